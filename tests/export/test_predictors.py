"""Runs and bundles, alone and together: probabilities, class ids, maps and what is refused."""

import dataclasses
import functools
import itertools
import pickle
import shutil

import numpy as np
import pytest
import scipy.stats

from export.predictions import members, predictors
from export.predictions.members import Member
from export.predictions.predictors import MAPS, Predictor, PredictorOptions
from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines.preparation import Preparation
from train import postprocessing
from train.postprocessing import ClassRule, Postprocessing
from train.test_time import Variants

THREE = label_maps.load("{(0,0,0):0,(255,0,0):1,(0,255,0):2}")
TTA = ("none", "flips", "d4")


def fake(slide, *, preparation=None, chosen=postprocessing.IDENTITY):
    """A member of three classes without a network: `slide` alone."""
    preparation = preparation or Preparation()
    return Member("fake", THREE, 3, preparation, chosen, slide, segmenter=object())


def as_probabilities(image):
    """An image of three channels as probabilities of three classes."""
    shares = image.astype(np.float32) + 1
    return shares / shares.sum(-1, keepdims=True)


def brightest_left(image):
    """What depends on where it is: class 1 in the left third, 2 in the middle, 0 elsewhere."""
    third = np.arange(image.shape[1]) * 3 // image.shape[1]
    ids = np.broadcast_to(np.array([1, 2, 0])[third], image.shape[:2])
    return np.where(ids[..., None] == np.arange(3), 0.75, 0.125).astype(np.float32)


@pytest.fixture(scope="session")
def load(untrained_runs, bundle_of):
    """A function (name, options) -> predictor; "bundle:colour" is the run's bundle.

    Each is loaded and traced once; how an image is varied and what follows do not depend on it.
    """

    @functools.cache
    def member(name):
        bundle = name.startswith("bundle:")
        name = name.removeprefix("bundle:")
        path = bundle_of(name) if bundle else untrained_runs[name].folder
        return predictors.load(str(path)).members[0]

    def predictor(names, options=PredictorOptions()):  # noqa: B008
        return Predictor(tuple(member(name) for name in names.split()), options)

    return predictor


@pytest.mark.parametrize("name", ["colour", "gray", "stretched", "halved"])
def test_a_run_alone_is_its_segmenter(untrained_runs, load, draw_image, name):
    run, predictor = untrained_runs[name], load(name)
    image = draw_image((45, 67), run.channels)
    expected = predictor.members[0].segmenter.probabilities(image).numpy()
    np.testing.assert_allclose(predictor.probabilities(image), expected, atol=1e-6)
    found = predictor.predict(image)
    np.testing.assert_array_equal(found.probabilities, predictor.probabilities(image))
    np.testing.assert_array_equal(found.class_ids, found.probabilities.argmax(-1))
    np.testing.assert_array_equal(predictor.class_ids(image), found.class_ids)
    assert found.class_ids.dtype == np.uint8
    assert found.entropy is None
    assert found.agreement is None
    assert len(np.unique(found.class_ids)) > 1
    assert (predictor.label_map, predictor.channels) == (run.label_map, run.channels)


@pytest.mark.parametrize(
    ("name", "tta", "scales", "tolerance"),
    [
        ("colour", "none", (1.0,), 1e-5),
        ("colour", "d4", (1.0,), 1e-5),
        ("colour", "none", (0.7, 1.0), 1e-5),
        ("halved", "d4", (1.0,), 0.02),  # a gray value may be rounded the other way
    ],
)
def test_a_bundle_predicts_as_its_run(load, draw_image, name, tta, scales, tolerance):
    image = draw_image((45, 60))
    options = PredictorOptions(tta=tta, scales=scales)
    run, bundle = load(name, options), load(f"bundle:{name}", options)
    expected = run.predict(image)
    found = bundle.predict(image)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=tolerance)
    top = np.sort(expected.probabilities, -1)
    sure = top[..., -1] - top[..., -2] > 2 * tolerance
    np.testing.assert_array_equal(found.class_ids[sure], expected.class_ids[sure])
    np.testing.assert_array_equal(bundle.class_ids(image)[sure], expected.class_ids[sure])


@pytest.mark.parametrize("size", [(32, 32), (45, 67), (20, 70)])
def test_with_all_symmetries_a_prediction_turns_with_the_image(load, draw_image, size):
    image = draw_image(size)
    plain, turned = load("colour"), load("colour", PredictorOptions(tta="d4"))
    expected = turned.probabilities(image)
    for mirror, k in itertools.product((1, -1), range(4)):
        found = turned.probabilities(np.ascontiguousarray(np.rot90(image[:, ::mirror], k)))
        np.testing.assert_allclose(found, np.rot90(expected[:, ::mirror], k), atol=1e-5)
    # It does not of itself.
    alone = plain.probabilities(np.ascontiguousarray(np.rot90(image)))
    assert np.abs(alone - np.rot90(plain.probabilities(image))).max() > 1e-2


@pytest.mark.parametrize("scales", [(1.0,), (0.6, 1.0, 1.4)])
@pytest.mark.parametrize("tta", TTA)
def test_a_network_that_says_what_it_sees_is_not_changed_by_symmetries(tta, scales, draw_image):
    options = PredictorOptions(tta, scales, maps=True)
    predictor = Predictor((fake(as_probabilities),), options)
    image = draw_image((33, 47))
    if scales != (1.0,):  # resizing blurs; what is flat it leaves alone
        image[:] = image[5, 5]
    found = predictor.predict(image)
    np.testing.assert_allclose(found.probabilities, as_probabilities(image), atol=1e-6)
    if tta == "none" and scales == (1.0,):
        assert found.agreement is None
    else:
        np.testing.assert_array_equal(found.agreement, 1)


def test_twice_the_same_model_is_that_model(untrained_runs, load, draw_image):
    folder, image = untrained_runs["colour"].folder, draw_image((45, 67))
    options = PredictorOptions(maps=True)
    one = load("colour", options).predict(image)
    two = predictors.load([folder, folder], options)
    assert two.voices == 2
    found = two.predict(image)
    np.testing.assert_array_equal(found.probabilities, one.probabilities)
    np.testing.assert_array_equal(found.class_ids, one.class_ids)
    np.testing.assert_array_equal(found.entropy, one.entropy)
    np.testing.assert_array_equal(found.agreement, 1)


def test_an_ensemble_is_the_mean_of_members_each_with_its_preparation(load, draw_image):
    image = draw_image((45, 67))
    names = "colour stretched halved bundle:colour"
    alone = [load(name).probabilities(image) for name in names.split()]
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    predictor = load(names, PredictorOptions(maps=True))
    found = predictor.predict(image)
    expected = np.mean(alone, 0, dtype=np.float64)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(predictor.probabilities(image), expected, atol=1e-6)
    votes = [a.argmax(-1) == found.class_ids for a in alone]
    np.testing.assert_allclose(found.agreement, np.mean(votes, 0), atol=1e-6)
    assert found.agreement.min() < 1
    np.testing.assert_array_equal(predictor.class_ids(image), expected.argmax(-1))


def test_agreement_is_the_share_of_voices_for_the_class_in_the_mask():
    """Mirrored left to right, a third of the image changes its class: by counting."""
    predictor = Predictor((fake(brightest_left),), PredictorOptions("flips", maps=True))
    found = predictor.predict(np.zeros((4, 9, 3), np.uint8))
    # Left 1 1 0 0, middle always 2, right 0 0 1 1: of equals the lower class wins.
    np.testing.assert_array_equal(found.class_ids[0], [0, 0, 0, 2, 2, 2, 0, 0, 0])
    np.testing.assert_array_equal(found.agreement[0], [0.5] * 3 + [1] * 3 + [0.5] * 3)
    assert found.agreement.dtype == np.float32


def test_agreement_is_of_the_class_after_postprocessing():
    def slide(image):
        ids = np.zeros(image.shape[:2], int)
        ids[3, 3] = 1
        return np.eye(3, dtype=np.float32)[ids]

    chosen = Postprocessing((ClassRule(1, minimum_size=2),))
    predictor = Predictor((fake(slide, chosen=chosen),) * 2, PredictorOptions(maps=True))
    found = predictor.predict(np.zeros((7, 7, 3), np.uint8))
    assert not found.class_ids.any()
    assert found.probabilities[3, 3, 1] == 1  # left alone
    assert found.agreement[3, 3] == 0
    assert found.agreement.sum() == 48


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_entropy_is_scipys_over_log_k(num_classes):
    rng = np.random.default_rng(num_classes)
    p = rng.dirichlet(np.full(num_classes, 0.2), (20, 30)).astype(np.float32)
    p[0], p[1] = 1 / num_classes, np.eye(num_classes)[0]
    found = predictors.entropy(p)
    expected = scipy.stats.entropy(p.astype(float), base=num_classes, axis=-1)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.dtype == np.float32
    assert found.min() == 0
    assert found.max() <= 1
    np.testing.assert_allclose(found[0], 1, atol=1e-6)
    np.testing.assert_array_equal(found[1], 0)


def test_entropy_is_of_the_mean():
    both = tuple(
        fake(lambda image, k=k: np.broadcast_to(np.eye(3, dtype=np.float32)[k], image.shape))
        for k in (0, 1)
    )
    image = np.zeros((2, 3, 3), np.uint8)
    found = Predictor(both, PredictorOptions(maps=True)).predict(image)
    for mean in (found.probabilities, Predictor(both).probabilities(image)):
        np.testing.assert_array_equal(mean, np.broadcast_to([0.5, 0.5, 0], (2, 3, 3)))
    np.testing.assert_allclose(found.entropy, np.log(2) / np.log(3), atol=1e-6)


@pytest.mark.parametrize(("minimum", "stays"), [(4, True), (5, False)])
def test_sizes_are_in_pixels_of_the_prepared_image(minimum, stays):
    """Four pixels on the network's image are sixteen on one of twice its sides."""

    def slide(image):
        assert image.shape == (10, 12, 3)
        ids = np.zeros((10, 12), int)
        ids[4:6, 4:6] = 1
        return np.eye(3, dtype=np.float32)[ids]

    chosen = Postprocessing((ClassRule(1, minimum_size=minimum),))
    member = fake(slide, preparation=Preparation(scale=0.5), chosen=chosen)
    found = Predictor((member,)).predict(np.zeros((20, 24, 3), np.uint8))
    assert (found.class_ids == 1).sum() == (16 if stays else 0)
    kept = Predictor((member,), PredictorOptions(postprocessing=False))
    assert (kept.class_ids(np.zeros((20, 24, 3), np.uint8)) == 1).sum() == 16


@pytest.fixture
def copied(untrained_runs, tmp_path):
    """A function that copies a run and writes a postprocessing.yaml into it."""

    def copy(name, text):
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(untrained_runs[name].folder, folder)
        (folder / postprocessing.FILE).write_text(text)
        return str(folder)

    return copy


def test_a_runs_postprocessing_is_applied_unless_it_shall_not_be(copied, draw_image):
    folder = copied("colour", "classes: [{id: 1, largest_component: true}, {id: 2, fill_holes: 9}]")
    image = draw_image((45, 67))
    predictor = predictors.load(folder)
    left = dataclasses.replace(predictor, options=PredictorOptions(postprocessing=False))
    left = left.predict(image)
    np.testing.assert_array_equal(left.class_ids, left.probabilities.argmax(-1))
    found = predictor.predict(image)
    expected = predictor.postprocessing.apply(left.class_ids)
    np.testing.assert_array_equal(found.class_ids, expected)
    assert (found.class_ids != left.class_ids).any()


def test_postprocessing_of_other_classes_is_refused(copied):
    with pytest.raises(FlexsegError, match=r"postprocessing.yaml: .* class ids \[7\]"):
        predictors.load(copied("colour", "classes: [{id: 7}]"))


def test_members_chosen_for_apart_do_not_go_together(monkeypatch):
    chosen = [Postprocessing((ClassRule(1, minimum_size=size),)) for size in (3, 9)]
    kinds = {
        "one": fake(as_probabilities, chosen=chosen[0]),
        "two": fake(as_probabilities, chosen=chosen[1]),
        "halved": fake(as_probabilities, chosen=chosen[0], preparation=Preparation(scale=0.5)),
    }
    monkeypatch.setattr(members, "load", lambda path, window: kinds[path])
    with pytest.raises(FlexsegError, match=r"other post-processing .*--nopostprocessing"):
        predictors.load(["one", "two"])
    assert predictors.load(["one", "two"], PredictorOptions(postprocessing=False)).voices == 2
    assert predictors.load(["one", "one"]).voices == 2
    with pytest.raises(FlexsegError, match="pixels of different size"):
        predictors.load(["one", "halved"])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"label_map": label_maps.load("{(0,0,0):0,(255,0,0):1,(0,254,0):2}")},
            r"label maps differ \(LabelClass\(id=2.* and LabelClass\(id=2.*254",
        ),
        (
            {"label_map": label_maps.load("{(0,0,0):0,(255,0,0):1}")},
            "they have 3 and 2 classes",
        ),
        ({"channels": 1}, "they take 3 and 1 channels"),
        (
            {"preparation": Preparation(intensity="window:0:4095")},
            "by --intensity=none for one and by window:0:4095",
        ),
    ],
)
def test_what_does_not_fit_together_is_told_with_both_names(monkeypatch, how, message):
    first = dataclasses.replace(fake(as_probabilities), path="runs/first")
    loaded = {m.path: m for m in (first, dataclasses.replace(first, path="runs/other", **how))}
    monkeypatch.setattr(members, "load", lambda path, window: loaded[path])
    assert predictors.load(["runs/first", "runs/first"]).voices == 2
    with pytest.raises(FlexsegError, match=f"runs/first and runs/other .*{message}"):
        predictors.load(["runs/first", "runs/other"])


def test_a_bundle_refuses_what_its_graph_cannot_do(bundle_of):
    with pytest.raises(FlexsegError, match="part of its graph: --overlap, --blend cannot"):
        predictors.load(str(bundle_of("colour")), PredictorOptions(overlap=0.5, blend="logits"))


def test_what_a_graph_stretches_is_not_turned_or_scaled(monkeypatch):
    preparation = Preparation(image_size=(32, 48))
    stretched = dataclasses.replace(fake(as_probabilities, preparation=preparation), segmenter=None)
    for variants in (Variants(scales=(0.5, 1)), Variants("d4")):
        with pytest.raises(FlexsegError, match=r"stretches every image to 32x48.*Give the run"):
            stretched.refuse_variants(variants)
    stretched.refuse_variants(Variants("flips"))
    run = fake(as_probabilities, preparation=preparation)
    run.refuse_variants(Variants("d4", (0.5, 1)))
    kinds = {"bundle": stretched}
    monkeypatch.setattr(members, "load", lambda path, window: kinds[path])
    with pytest.raises(FlexsegError, match="which --tta=d4 cannot be combined with"):
        predictors.load("bundle", PredictorOptions("d4"))


def test_what_is_neither_run_nor_bundle_is_told(tmp_path):
    for path, message in (
        (str(tmp_path), "neither a run .* nor a bundle"),
        (str(tmp_path / "none"), "there is no such folder"),
        ([], "at least one run or bundle"),
    ):
        with pytest.raises(FlexsegError, match=message):
            predictors.load(path)


def test_maps_that_cannot_be_had_are_refused():
    one = Predictor((fake(as_probabilities),), PredictorOptions(maps=True))
    one.refuse_maps(["entropy"])
    with pytest.raises(FlexsegError, match=r"agreement needs several .*several --model"):
        one.refuse_maps(MAPS)
    with pytest.raises(FlexsegError, match='--maps: "entrpy" is unknown; known are entropy'):
        one.refuse_maps(["entrpy"])
    for options in (PredictorOptions("flips"), PredictorOptions(scales=(1, 2))):
        dataclasses.replace(one, options=options).refuse_maps(MAPS)
    dataclasses.replace(one, members=one.members * 2).refuse_maps(MAPS)


def test_options_replace_what_the_runs_experiment_says(untrained_runs, load, draw_image):
    folder, image = untrained_runs["colour"].folder, draw_image((45, 67))
    options = PredictorOptions(overlap=8, weights="uniform", batch_size=1, blend="logits")
    changed = predictors.load(folder, options)
    inference = changed.members[0].segmenter.inference
    assert dataclasses.asdict(inference) == {
        "overlap": 8,
        "weights": "uniform",
        "batch_size": 1,
        "blend": "logits",
    }
    plain = load("colour")
    assert plain.members[0].segmenter.inference.weights == "gaussian"
    assert np.abs(changed.probabilities(image) - plain.probabilities(image)).max() > 1e-4


def test_options_are_checked_and_travel():
    options = PredictorOptions("d4", (0.5, 1), overlap=32, maps=True)
    assert pickle.loads(pickle.dumps(options)) == options  # noqa: S301
    assert options.variants.count == 16
    with pytest.raises(FlexsegError, match='--tta="d8" is unknown'):
        PredictorOptions("d8")
    with pytest.raises(FlexsegError, match="--scales"):
        PredictorOptions(scales=())
