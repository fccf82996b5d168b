"""A step is accepted only where it helps its class and hurts none; what is chosen is scored."""

import hashlib
import json

import numpy as np
import pytest
import sklearn.metrics
import yaml
from scipy import ndimage

from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from train import evaluate, postprocessing, runs, tune_postprocessing
from train.postprocessing import ClassRule, Postprocessing
from train.tune_postprocessing import Figures, PackedImage, tune

THREE = label_maps.load("{(0,0,0):0,(255,0,0):1,(0,255,0):2}")


def disk(shape, y, x, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def phantom(seed, *, specks=8, holes=4):
    """A disk as truth; as prediction the same with specks of 1 to 4 pixels beside, and holes."""
    rng = np.random.default_rng(seed)
    truth = disk((64, 64), 24, 24, 14).astype(np.uint8)
    predicted = truth.copy()
    for _ in range(specks):
        y, x = rng.integers(44, 62, 2)
        predicted[y : y + rng.integers(1, 3), x : x + rng.integers(1, 3)] = 1
    for _ in range(holes):
        y, x = rng.integers(18, 30, 2)
        predicted[y, x] = 0
    return predicted, truth


def pack(pairs):
    return [PackedImage.of(*pair) for pair in pairs]


def sklearn_dice(pairs, k, cleaning):
    """Dice over all pixels, and the mean over images that have the class."""
    guesses = [(cleaning.apply(p) == k).ravel() for p, _ in pairs]
    truths = [(t == k).ravel() for _, t in pairs]
    pooled = sklearn.metrics.f1_score(np.concatenate(truths), np.concatenate(guesses))
    own = [
        sklearn.metrics.f1_score(t, g)
        for t, g in zip(truths, guesses, strict=True)
        if t.any() or g.any()
    ]
    return pooled, np.mean(own)


def test_specks_and_holes_are_found_and_the_figures_are_scikit_learns():
    pairs = [phantom(seed) for seed in range(4)]
    outcome = tune(pack(pairs), 2)
    rule = outcome.chosen.of(1)
    assert rule.largest_component or 2 <= rule.minimum_size <= 512
    assert rule.fill_holes
    for figures, cleaning in (
        (outcome.before, postprocessing.IDENTITY),
        (outcome.after, outcome.chosen),
    ):
        pooled, mean = sklearn_dice(pairs, 1, cleaning)
        assert figures.dice[1] == pytest.approx(pooled)
        assert figures.per_image[1] == pytest.approx(mean)
    assert outcome.after.dice[1] == pytest.approx(1)
    for predicted, truth in pairs:
        np.testing.assert_array_equal(outcome.chosen.apply(predicted), truth)


def test_where_there_are_two_true_components_the_size_is_chosen_instead():
    pairs = []
    for predicted, truth in (phantom(seed, holes=0) for seed in range(3)):
        second = disk((64, 64), 52, 10, 6)
        pairs.append((np.where(second, 1, predicted), np.where(second, 1, truth)))
    outcome = tune(pack([(p.astype(np.uint8), t.astype(np.uint8)) for p, t in pairs]), 2)
    assert outcome.chosen.classes == (ClassRule(1, minimum_size=16),)
    largest = outcome.steps[0]
    assert largest.rule.largest_component
    assert "Dice of {1} falls" in largest.refused


def test_a_step_that_helps_its_class_and_hurts_another_is_refused():
    """Without the specks of class 1, those within class 2 come to class 2, which is wrong there."""
    truth = np.zeros((40, 40), np.uint8)
    truth[5:20, 5:20] = 1
    predicted = truth.copy()
    predicted[25:38, 25:38] = 2
    truth[25:38, 25:38] = 2
    for y in range(27, 37, 3):
        predicted[y, 27] = 1  # class 1 is wrong here, and so would class 2 be
        truth[y, 27] = 0
    outcome = tune(pack([(predicted, truth)]), 3)
    assert outcome.chosen.is_identity
    assert outcome.before == outcome.after
    own = Figures.of(counts_of([(predicted, truth)], Postprocessing((ClassRule(1, True),)), 3))
    assert own.dice[1] > outcome.before.dice[1]
    assert "{2} falls" in outcome.steps[0].refused
    assert "Dice of class_2 falls" in tune_postprocessing.table(outcome, THREE)


def counts_of(pairs, cleaning, num_classes):
    counts = []
    for predicted, truth in pairs:
        found = cleaning.apply(predicted)
        counts.append(
            [
                [((truth == k) & (found == k)).sum() for k in range(num_classes)],
                [(truth == k).sum() for k in range(num_classes)],
                [(found == k).sum() for k in range(num_classes)],
            ]
        )
    return np.array(counts)


def test_both_figures_must_rise():
    """Pooled Dice rises by the large image's specks; the small image loses its only object."""
    large = phantom(0, holes=0, specks=14)
    truth = np.zeros((64, 64), np.uint8)
    truth[8, 8:12] = 1
    two = disk(truth.shape, 12, 12, 9) | disk(truth.shape, 50, 50, 9)  # no largest component
    pairs = [large, (truth, truth), (two.astype(np.uint8), two.astype(np.uint8))]
    outcome = tune(pack(pairs), 2, sizes=(8,))
    (removal,) = (s for s in outcome.steps if s.rule.minimum_size and not s.rule.fill_holes)
    assert removal.figures.dice[1] > outcome.before.dice[1]
    assert "mean Dice over images of {1} falls" in removal.refused


def test_a_class_without_truth_is_not_removed_on_no_evidence():
    predicted = np.zeros((20, 20), np.uint8)
    predicted[3, 3] = 1
    outcome = tune(pack([(predicted, np.zeros_like(predicted))]), 2)
    assert outcome.chosen.is_identity
    assert "there is none in the truth" in outcome.steps[1].refused
    two = label_maps.load("{(0,0,0):0,(255,0,0):1}")
    assert "Nothing helps" in tune_postprocessing.table(outcome, two)


def test_the_order_of_images_and_what_is_ignored_do_not_matter():
    pairs = [phantom(seed) for seed in range(3)]
    outcome = tune(pack(pairs), 2)
    assert tune(pack(pairs[::-1]), 2).chosen == outcome.chosen
    ignored = [(p.copy(), t.copy()) for p, t in pairs]
    for _, truth in ignored:
        truth[44:, 44:] = 255  # where the specks are
    without = tune(pack(ignored), 2)
    assert not without.chosen.of(1).minimum_size
    assert not without.chosen.of(1).largest_component


def test_sizes_are_of_prepared_pixels():
    pairs = [tuple(np.kron(a, np.ones((4, 4), np.uint8)) for a in phantom(s)) for s in range(2)]
    images = [PackedImage.of(p, t, 16.0) for p, t in pairs]
    small = tune(pack([phantom(s) for s in range(2)]), 2)
    assert tune(images, 2).chosen == small.chosen


def test_what_is_packed_comes_out_again_and_is_small():
    predicted, truth = phantom(3)
    image = PackedImage.of(predicted, truth)
    for found, expected in zip(image.unpack(), (predicted, truth), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert image.present == {0, 1}
    assert len(image.predicted) + len(image.truth) < predicted.size / 10


@pytest.fixture
def speckled(untrained, large_datasets, monkeypatch):
    """A run whose predictions are the truth with specks: its network is not asked."""
    run = untrained(data=large_datasets["whole"])

    def segmented(run, manifest, split, *arguments):
        for image in real(run, manifest, split, *arguments):
            rng = np.random.default_rng(len(image.source_id))
            guess = np.where(image.truth < 3, image.truth, 0)
            far = ndimage.binary_dilation(guess > 0, iterations=3)
            specks = (rng.random(guess.shape) < 0.02) & ~far
            guess = np.where(specks, 1 + specks.cumsum().reshape(guess.shape) % 2, guess)
            yield evaluate.Segmented(
                image.source_id, np.eye(3, dtype=np.float32)[guess], image.truth, image.area
            )

    real = evaluate.segmented
    monkeypatch.setattr(evaluate, "segmented", segmented)
    return run


def test_the_command_writes_what_evaluate_applies(speckled, command):
    path = speckled.path(postprocessing.FILE)
    arguments = ["tune-postprocessing", f"--run={speckled.folder}", "--split=test"]
    done = command(*arguments, "--dry_run")
    assert done.status == 0, done.err
    assert "was not written" in done.out
    assert postprocessing.load(path).is_identity
    done = command(*arguments)
    assert done.status == 0, done.err
    assert "accepted" in done.out
    chosen = postprocessing.of_run(speckled)
    assert {rule.id for rule in chosen.classes} == {1, 2}
    with open(path, encoding="utf-8") as file:
        kept = yaml.safe_load(file)["chosen"]
    manifest = manifests.load(speckled.data)
    assert kept["split"] == "test"
    assert kept["images"] == manifest.split("test").sources
    assert kept["dataset_fingerprint"] == manifest.fingerprint
    assert kept["weights_sha256"] == postprocessing.weights_sha256(speckled)
    for flag, key in (("", "after"), ("--nopostprocessing", "before")):
        done = command("evaluate", f"--run={speckled.folder}", *filter(None, [flag]))
        assert done.status == 0, done.err
        with open(speckled.path("evaluation", "test.json"), encoding="utf-8") as file:
            found = json.load(file)
        assert [c["dice"] for c in found["classes"]] == pytest.approx(kept[f"dice_{key}"], abs=1e-6)
        means = [c["dice_mean"] for c in found["per_image"]["classes"]]
        assert means == pytest.approx(kept[f"dice_per_image_{key}"], abs=1e-6)
        applied = None if flag else chosen.to_dict()["classes"]
        assert found["prediction"] == {"tta": "none", "scales": [1.0], "postprocessing": applied}
        assert ("Post-processed: class_1, class_2." in done.out) == (not flag)
    assert kept["dice_after"][1] > kept["dice_before"][1]


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        ([], 2, "tune-postprocessing needs --run"),
        (["--run=nowhere", "--sizes=3,x"], 1, '--sizes="3,x": expected whole numbers'),
        (["--run=nowhere", "--sizes=0"], 1, "expected whole numbers"),
        (["--run=nowhere"], 1, "nowhere: it is not a run"),
    ],
)
def test_the_command_tells_what_is_wrong(command, flags, status, message):
    done = command("tune-postprocessing", *flags)
    assert done.status == status
    assert message in done.err


def test_a_choice_is_bound_to_the_weights_it_was_made_for(untrained, large_datasets, capsys):
    run = untrained(data=large_datasets["whole"])
    path = run.path(postprocessing.FILE)
    chosen = Postprocessing((ClassRule(1, True),))

    def told(chosen, chosen_on):
        with open(path, "w", encoding="utf-8") as file:
            file.write(tune_postprocessing.dump(chosen, chosen_on, run.label_map))
        assert postprocessing.of_run(run) == chosen
        return capsys.readouterr().err

    bound = {postprocessing.WEIGHTS: postprocessing.weights_sha256(run)}
    assert told(chosen, bound) == ""
    assert told(chosen, {"split": "valid"}) == "", "of an earlier version, which kept none"
    with open(run.path(runs.BEST_WEIGHTS), "rb") as file:
        assert bound[postprocessing.WEIGHTS] == hashlib.sha256(file.read()).hexdigest()
    with open(run.path(runs.BEST_WEIGHTS), "ab") as file:
        file.write(b"trained on")
    said = told(chosen, bound)
    assert f"{path} was chosen for other weights than {run.folder} has now" in said
    assert "Run flexseg tune-postprocessing again, or delete the file." in said
    assert told(postprocessing.IDENTITY, bound) == "", "nothing is done"


def test_nothing_chosen_is_written_too(tmp_path):
    text = tune_postprocessing.dump(postprocessing.IDENTITY, {"split": "valid"}, THREE)
    (tmp_path / "file.yaml").write_text(text)
    assert postprocessing.load(str(tmp_path / "file.yaml")) == postprocessing.IDENTITY
    chosen = Postprocessing((ClassRule(1, True, 5), ClassRule(2, fill_holes=7)))
    (tmp_path / "file.yaml").write_text(tune_postprocessing.dump(chosen, {"images": 3}, THREE))
    assert postprocessing.load(str(tmp_path / "file.yaml")) == chosen


def test_a_damaged_file_stops_evaluate(untrained, large_datasets, command):
    run = untrained(data=large_datasets["whole"])
    with open(run.path(postprocessing.FILE), "w", encoding="utf-8") as file:
        file.write("classes: [{id: 9}]")
    with pytest.raises(FlexsegError, match="rules for the class ids"):
        postprocessing.of_run(run)
    assert command("evaluate", f"--run={run.folder}").status == 1
