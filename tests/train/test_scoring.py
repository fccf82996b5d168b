"""What is kept of each image adds up to what the definitions say of all of them."""

import json

import numpy as np
import pytest
import sklearn.metrics
from scipy import ndimage

from pipelines.label_map import IGNORE_ID, LabelClass, LabelMap
from train import calibration, intervals, legacy_metrics, metrics, surface
from train.scoring import Scoring

NAMES = ("sky", "vessel", "spot")
LABELS = LabelMap(
    tuple(LabelClass(k, name, ((40 * k, 0, 0),)) for k, name in enumerate(NAMES)),
)
TWO = LabelMap(LABELS.classes[:2])
BOUNDARY = surface.BoundaryOptions(1.5, (1.0, 2.0))


def draw(num_classes=3, number=7, seed=0, ignored=0.05):
    """Images of several sizes: (id, probabilities, truth). On some a class is missing.

    On p1 one is not found, on p0 one is found that is not there.
    """
    rng = np.random.default_rng(seed)
    for i in range(number):
        shape = (int(rng.integers(20, 30)), int(rng.integers(20, 30)), num_classes)
        fields = ndimage.gaussian_filter(rng.normal(size=shape), (3, 3, 0)) * 15
        fields[..., 0] += 1
        fields[..., 1 + i % (num_classes - 1)] -= 30 * (i % 3 == 0)
        truth = fields.argmax(-1).astype(np.uint8)
        logits = fields + ndimage.gaussian_filter(rng.normal(size=shape), (2, 2, 0)) * 6
        logits[..., -1] -= 60 * (i == 1)
        logits[:4, :4, 1 + i % (num_classes - 1)] += 60 * (i == 0)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        truth[rng.random(truth.shape) < ignored] = IGNORE_ID
        yield f"p{i}", (p / p.sum(-1, keepdims=True)).astype(np.float32), truth


def scored(images, label_map=LABELS, **options):
    found = Scoring(label_map, **{"one_logit": False, **options})
    for image in images:
        found.add(*image)
    return found


def counted(images):
    """Truth and prediction of each image, of the pixels that count."""
    pairs = [(t, p.argmax(-1)) for _, p, t in images]
    return [(t[t != IGNORE_ID], g[t != IGNORE_ID]) for t, g in pairs]


def test_everything_is_there_as_plain_data():
    images = list(draw())
    found = scored(images, boundary=BOUNDARY).summary(None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["rules"]) == set(found) - {
        *("images", "foreground", "background", "overall", "confusion", "rules")
    }
    for part in ("classes", "intervals", "per_image", "detection", "calibration"):
        entries = found[part] if part == "classes" else found[part]["classes"]
        assert [(e["id"], e["name"]) for e in entries] == list(enumerate(NAMES)), part
    assert [(e["id"], e["name"]) for e in found["boundary"]["classes"]] == [
        (1, "vessel"),
        (2, "spot"),
    ]


def test_pooled_figures_come_from_all_pixels_in_one_matrix():
    images = list(draw())
    found = scored(images).summary(None)
    truth, guess = (np.concatenate(x) for x in zip(*counted(images), strict=True))
    matrix = sklearn.metrics.confusion_matrix(truth, guess)
    assert found["confusion"] == matrix.tolist()
    assert found["overall"]["pixel_accuracy"] == pytest.approx((truth == guess).mean())
    expected = sklearn.metrics.matthews_corrcoef(truth, guess)
    assert found["overall"]["matthews"] == pytest.approx(expected)
    for k, entry in enumerate(found["classes"]):
        assert entry["dice"] == pytest.approx(sklearn.metrics.f1_score(truth == k, guess == k))
        assert entry["images"] == sum((t == k).any() for t, _ in counted(images))
    assert {e["images"] for e in found["classes"]} != {7}


def test_images_by_themselves_and_what_is_found_on_them():
    images = list(draw())
    found = scored(images).summary(None)
    counts = np.stack(
        [
            metrics.tallies(sklearn.metrics.confusion_matrix(t, g, labels=range(3)))
            for t, g in counted(images)
        ]
    )
    for k, (own, seen) in enumerate(
        zip(metrics.per_image(counts), metrics.detection(counts), strict=True)
    ):
        assert found["per_image"]["classes"][k] == {"id": k, "name": NAMES[k], **vars(own)}
        assert own.images
        assert found["detection"]["classes"][k] == {"id": k, "name": NAMES[k], **vars(seen)}
    assert sum(e["missed_images"] for e in found["detection"]["classes"])
    assert sum(e["false_alarm_pixels"] for e in found["detection"]["classes"])
    means = [e["dice_mean"] for e in found["per_image"]["classes"][1:]]
    assert found["per_image"]["foreground"] == {"dice_mean": np.mean(means), "classes": 2}
    for groups in (None, ["a", "b", "b", "a", "c", "c", "c"]):
        interval = scored(images).summary(groups)["intervals"]
        expected = intervals.bootstrap(counts, groups, seed=137)
        assert interval["units"] == (7 if groups is None else 3)
        assert interval["drawn"] == ("images" if groups is None else "groups")
        assert interval["foreground_dice_macro"] == list(expected.dice_macro)
        assert [c["dice"] for c in interval["classes"]] == [list(i) for i in expected.dice]


def test_the_reader_is_told_what_was_drawn():
    found = scored(draw())
    assert "Images are drawn" in found.summary(None)["rules"]["intervals"]
    assert "groups of the split are drawn" in found.summary(list("abcdefg"))["rules"]["intervals"]


def test_calibration_is_over_all_images():
    images = list(draw())
    expected = calibration.Calibration(3)
    for _, p, truth in images:
        expected.add(p, truth)
    found = scored(images).summary(None)["calibration"]
    scores = expected.scores()
    assert (found["pixels"], found["ece"], found["brier"]) == (
        *(scores.pixels, scores.ece, scores.brier),
    )
    assert [c["ece"] for c in found["classes"]] == list(scores.class_ece)
    assert [c["brier"] for c in found["classes"]] == list(scores.class_brier)
    assert sum(b["pixels"] for b in found["bins"]) == scores.pixels


@pytest.mark.parametrize("one_logit", [False, True])
def test_old_figures_are_means_over_images_under_their_old_names(one_logit):
    images = list(draw(2))
    found = scored(images, TWO, one_logit=one_logit).summary(None)["legacy"]
    channels = [1] if one_logit else [0, 1]
    every = [legacy_metrics.sums(p, t, [0, 1]) for _, p, t in images]
    own = [legacy_metrics.sums(p, t, channels) for _, p, t in images]
    truth, p = (
        np.concatenate(x)
        for x in zip(*((t.ravel(), p.reshape(-1, 2)) for _, p, t in images), strict=True)
    )
    valid = truth != IGNORE_ID
    own_p = p[valid, truth[valid]]
    names = ("dice_coef", "iou_coef", "jacard_similarity", "sensitivity", "specificity")
    assert found == pytest.approx(
        {
            **{
                name: np.mean([getattr(legacy_metrics, name)(s) for s in own])
                for name in (*names, "binary_accuracy")
            },
            "dice_coef_multiclass": np.mean(
                [legacy_metrics.dice_coef_multiclass(s) for s in every]
            ),
            "categorical_crossentropy": -np.log(np.maximum(own_p, 1e-7)).mean(),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize("options", [BOUNDARY, surface.BoundaryOptions()])
def test_boundaries_are_means_over_images_with_their_counts(options):
    images = list(draw())
    found = scored(images, boundary=options).summary(None)["boundary"]
    assert (found["nsd_tolerance"], found["spacing"]) == (
        options.nsd_tolerance,
        list(options.spacing),
    )
    for k, entry in enumerate(found["classes"], 1):
        own = [
            surface.compare(t == k, (p.argmax(-1) == k) & (t != IGNORE_ID), options)
            for _, p, t in images
        ]
        both = [s for s in own if s.hd95 is not None]
        seen = [s for s in own if s.nsd is not None]
        assert entry["distance_images"] == len(both)
        assert entry["images"] == len(seen)
        assert entry["one_sided"] == len(seen) - len(both)
        assert entry["hd95"] == pytest.approx(np.mean([s.hd95 for s in both]))
        assert entry["average_surface_distance"] == pytest.approx(
            np.mean([s.average_surface_distance for s in both])
        )
        assert entry["nsd"] == pytest.approx(np.mean([s.nsd for s in seen]))
        assert entry["cl_dice"] == pytest.approx(np.mean([s.cl_dice for s in seen]))
    assert sum(e["one_sided"] for e in found["classes"])
    assert {e["images"] for e in found["classes"]} != {7}
    for key in ("hd95", "average_surface_distance", "nsd", "cl_dice"):
        assert found["foreground"][key] == np.mean([e[key] for e in found["classes"]])


def test_a_class_with_a_thick_region_anywhere_has_no_cl_dice():
    """Not even of the images that came before the thick one."""
    thick = np.zeros([90, 90], np.uint8)
    thick[10:80, 10:80] = 1
    thick[85:88] = 2
    image = ("thick", np.eye(3, dtype=np.float32)[thick], thick)
    found = scored([*draw(), image, *draw()], boundary=BOUNDARY)
    vessel, spot = found.summary(None)["boundary"]["classes"]
    assert (vessel["thin"], vessel["cl_dice"]) == (False, None)
    assert vessel["nsd"] is not None
    assert spot["thin"]
    assert spot["cl_dice"] is not None
    assert found.summary(None)["boundary"]["foreground"]["cl_dice"] == spot["cl_dice"]
    header, *lines = found.image_table()
    assert {line[header.index("cl_dice_vessel")] for line in lines} == {None}


def test_the_table_of_images_has_the_worst_first():
    images = list(draw(number=9))
    blank = np.zeros([5, 6], np.uint8)
    images.insert(3, ("blank", np.eye(3, dtype=np.float32)[blank], blank))
    header, *lines = scored(images, boundary=BOUNDARY).image_table()
    by_id = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert set(by_id) == {i for i, *_ in images}
    for (source_id, *_), (truth, guess) in zip(images, counted(images), strict=True):
        line = by_id[source_id]
        assert line["pixels"] == len(truth)
        dice = []
        for k, name in enumerate(NAMES):
            assert line[f"pixels_{name}"] == (truth == k).sum()
            assert line[f"predicted_{name}"] == (guess == k).sum()
            if (truth == k).any() or (guess == k).any():
                value = sklearn.metrics.f1_score(truth == k, guess == k)
                assert line[f"dice_{name}"] == pytest.approx(value, abs=1e-6)
                dice += [value] if k else []
            else:
                assert line[f"dice_{name}"] is None
        if dice:
            assert line["dice_macro"] == pytest.approx(np.mean(dice), abs=1e-6)
    order = [line[header.index("dice_macro")] for line in lines]
    assert order[:-1] == sorted(order[:-1])
    assert lines[-1][0] == "blank"
    assert order[-1] is None
    assert "hd95_sky" not in header
    plain, *_ = scored(images).image_table()
    assert plain == [name for name in header if not name.startswith(("hd95", "aver", "nsd", "cl_"))]


def test_an_image_without_a_pixel_to_score_changes_no_figure():
    images = list(draw())
    nothing = ("nothing", images[0][1], np.full_like(images[0][2], IGNORE_ID))
    found = scored([*images, nothing], boundary=BOUNDARY).summary(None)
    expected = scored(images, boundary=BOUNDARY).summary(None)
    assert found["images"] == 8
    for part in ("classes", "foreground", "overall", "per_image", "calibration", "boundary"):
        assert found[part] == expected[part], part
    assert found["legacy"] == expected["legacy"]


def test_what_stays_of_an_image_is_small():
    """A few numbers for each class, whatever the number of pixels."""
    found = scored(draw(number=1))
    kept = sum(c.nbytes for c in found._counts)
    assert kept == 3 * 3 * 8
    large = np.zeros([200, 300], np.uint8)
    found.add("large", np.eye(3, dtype=np.float32)[large], large)
    assert sum(c.nbytes for c in found._counts) == 2 * kept


def test_no_image_at_all_has_no_figures():
    found = scored([], boundary=BOUNDARY).summary(None)
    assert found["images"] == 0
    assert found["foreground"]["dice_macro"] is None
    assert found["boundary"]["foreground"]["hd95"] is None
    assert len(scored([]).image_table()) == 1
