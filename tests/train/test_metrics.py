"""Figures mean what their names say, and absent classes have none."""

import dataclasses

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from pipelines.label_map import IGNORE_ID
from train import metrics

TOY = np.array([[48, 0, 0], [4, 12, 0], [0, 0, 0]])  # 8 x 8, TP 12, FN 4, class 2 absent


def draw(num_classes, seed, classes=None, ignored=0.1, size=400):
    """Truth, with pixels to ignore, and a prediction that agrees with it at times."""
    rng = np.random.default_rng(seed)
    classes = list(range(num_classes)) if classes is None else classes
    truth = rng.choice(classes, size)
    predicted = np.where(rng.random(size) < 0.6, truth, rng.choice(classes, size))
    truth[rng.random(size) < ignored] = IGNORE_ID
    return truth.astype(np.uint8), predicted.astype(np.int32)


CASES = [(2, None), (3, None), (6, None), (6, [0, 2, 5]), (4, [0]), (4, [1, 3])]


def expected_matrix(truth, predicted, num_classes):
    valid = truth < num_classes
    labels = list(range(num_classes))
    return sklearn.metrics.confusion_matrix(truth[valid], predicted[valid], labels=labels)


@pytest.mark.parametrize(("num_classes", "classes"), CASES)
@pytest.mark.parametrize("shape", [(400,), (20, 20), (4, 10, 10)])
def test_the_confusion_matrix_counts_all_pixels_but_the_ignored(num_classes, classes, shape):
    truth, predicted = draw(num_classes, 0, classes)
    found = metrics.confusion(truth.reshape(shape), predicted.reshape(shape), num_classes)
    assert found.dtype == tf.int64
    np.testing.assert_array_equal(found, expected_matrix(truth, predicted, num_classes))


def test_negative_ids_are_outside_the_classes_too():
    truth, predicted = np.array([-1, 0, 1, 2, -7]), np.array([0, 0, 1, 1, 1])
    found = metrics.confusion(truth, predicted, 2)
    np.testing.assert_array_equal(found, [[1, 0], [0, 1]])


def test_nothing_to_count_gives_zeros():
    found = metrics.confusion(np.full(9, IGNORE_ID, np.uint8), np.zeros(9, np.int32), 3)
    assert not found.numpy().any()


def same(found, expected):
    """Equal, or None where the expected figure is not a number."""
    return found is None if np.isnan(expected) else found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("num_classes", "classes"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_figures_of_a_class_are_those_of_scikit_learn(num_classes, classes, seed):
    truth, predicted = draw(num_classes, seed, classes)
    scores = metrics.per_class(expected_matrix(truth, predicted, num_classes))
    valid = truth < num_classes
    labels = list(range(num_classes))

    def oracle(figure, **kwargs):
        return figure(truth[valid], predicted[valid], labels=labels, average=None, **kwargs)

    expected = {
        "dice": oracle(sklearn.metrics.f1_score, zero_division=np.nan),
        "precision": oracle(sklearn.metrics.precision_score, zero_division=np.nan),
        "recall": oracle(sklearn.metrics.recall_score, zero_division=np.nan),
        "iou": oracle(sklearn.metrics.jaccard_score, zero_division=0),
    }
    absent = np.isnan(expected["dice"])
    expected["iou"] = np.where(absent, np.nan, expected["iou"])
    one_against_all = [(truth[valid] == k, predicted[valid] == k) for k in labels]
    expected["specificity"] = np.where(
        absent,
        np.nan,
        [sklearn.metrics.recall_score(~t, ~p, zero_division=np.nan) for t, p in one_against_all],
    )
    expected["matthews"] = [
        sklearn.metrics.matthews_corrcoef(t, p) if 0 < t.mean() < 1 and 0 < p.mean() < 1 else np.nan
        for t, p in one_against_all
    ]
    assert set(expected) == {f.name for f in dataclasses.fields(metrics.ClassScores)}
    for name, values in expected.items():
        for k in labels:
            assert same(getattr(scores[k], name), values[k]), (name, k)


def test_a_class_in_neither_truth_nor_prediction_has_no_figure_at_all():
    assert metrics.per_class(TOY)[2] == metrics.ClassScores(*[None] * 6)


def test_a_class_that_is_only_predicted_has_dice_zero_and_no_recall():
    scores = metrics.per_class(np.array([[5, 3], [0, 0]]))[1]
    assert scores == metrics.ClassScores(
        dice=0.0, iou=0.0, precision=0.0, recall=None, specificity=5 / 8, matthews=None
    )


@pytest.mark.parametrize(("num_classes", "classes"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_overall_figures_are_those_of_scikit_learn(num_classes, classes, seed):
    truth, predicted = draw(num_classes, seed, classes)
    found = metrics.overall(expected_matrix(truth, predicted, num_classes))
    valid = truth < num_classes
    truth, predicted = truth[valid], predicted[valid]
    assert same(found.pixel_accuracy, sklearn.metrics.accuracy_score(truth, predicted))
    constant = min(len(set(truth)), len(set(predicted))) == 1
    correlation = np.nan if constant else sklearn.metrics.matthews_corrcoef(truth, predicted)
    assert same(found.matthews, correlation)
    labels = sorted(set(truth) | set(predicted))
    for name, figure in [
        ("dice", sklearn.metrics.f1_score),
        ("iou", sklearn.metrics.jaccard_score),
    ]:
        mean = figure(truth, predicted, labels=labels, average="macro")
        assert same(getattr(found, f"{name}_macro_with_background"), mean)


def test_nothing_counted_has_no_figures():
    nothing = np.zeros([3, 3], np.int64)
    assert set(dataclasses.astuple(metrics.overall(nothing))) == {None}
    assert set(dataclasses.astuple(metrics.foreground(nothing))) == {None, 0}


def test_correlations_of_very_many_pixels_do_not_overflow():
    """10^4 images of 10 million pixels: the products under the root have 40 digits and more."""
    small = np.array([[70, 3, 2], [5, 9, 1], [4, 0, 6]])
    large = small * 10**9
    for scores in (metrics.overall, lambda m: metrics.per_class(m)[1]):
        assert scores(large).matthews == pytest.approx(scores(small).matthews, rel=1e-12)


@pytest.mark.parametrize(("num_classes", "classes"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_foreground_figures_are_counted_pixel_by_pixel(num_classes, classes, seed):
    truth, predicted = draw(num_classes, seed, classes)
    matrix = expected_matrix(truth, predicted, num_classes)
    pairs = [(t, p) for t, p in zip(truth, predicted, strict=True) if t < num_classes]
    dices, ious = [], []
    for k in range(1, num_classes):
        both = sum(t == k and p == k for t, p in pairs)
        either = sum(t == k or p == k for t, p in pairs)
        if either:
            dices.append(2 * both / (both + either))
            ious.append(both / either)
    hits = sum(t == p and t > 0 for t, p in pairs)
    total = sum(t > 0 for t, _ in pairs) + sum(p > 0 for _, p in pairs)
    found = metrics.foreground(matrix)
    assert same(found.dice_macro, np.mean(dices) if dices else np.nan)
    assert same(found.iou_macro, np.mean(ious) if ious else np.nan)
    assert same(found.dice_pooled, 2 * hits / total if total else np.nan)
    assert found.classes == len(dices)
    scores = metrics.per_class(matrix)[1:]
    for name in ("precision", "recall", "specificity", "matthews"):
        known = [v for s in scores if (v := getattr(s, name)) is not None]
        assert same(getattr(found, f"{name}_macro"), np.mean(known) if known else np.nan)


def test_the_toy_of_the_reference_has_its_published_figures():
    background, foreground, absent = metrics.per_class(TOY)
    assert round(background.dice, 4) == 0.96
    assert round(foreground.dice, 4) == 0.8571
    assert round(background.iou, 4) == 0.9231
    assert round(foreground.iou, 4) == 0.75
    assert absent.dice is None
    assert round(metrics.foreground(TOY).dice_macro, 4) == 0.8571
    assert round(metrics.overall(TOY).dice_macro_with_background, 4) == 0.9086


def test_finding_nothing_scores_nothing_however_large_the_background():
    found = metrics.foreground(np.array([[9750, 0], [250, 0]]))
    assert (found.dice_macro, found.iou_macro, found.dice_pooled) == (0.0, 0.0, 0.0)


def test_pixels_of_another_foreground_class_are_no_hits_in_the_pool():
    assert metrics.foreground(np.array([[0, 0, 0], [0, 0, 8], [0, 0, 0]])).dice_pooled == 0.0


def images(num_classes, number, seed):
    """Truth and prediction of several images, on which some classes are missing."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        classes = rng.choice(num_classes, rng.integers(1, num_classes + 1), replace=False)
        truth, _ = draw(num_classes, rng.integers(1 << 30), classes, size=60)
        classes = rng.choice(num_classes, rng.integers(1, num_classes + 1), replace=False)
        guess = rng.choice(classes, 60)
        there = np.isin(truth, classes) & (rng.random(60) < 0.7)
        yield truth, np.where(there, truth, guess)


def counts_of(pairs, num_classes):
    return np.stack([metrics.tallies(expected_matrix(*pair, num_classes)) for pair in pairs])


@pytest.mark.parametrize("num_classes", [2, 4])
def test_tallies_of_images_add_up_to_those_of_the_split(num_classes):
    pairs = list(images(num_classes, 20, 0))
    whole = [np.concatenate(parts) for parts in zip(*pairs, strict=True)]
    matrix = expected_matrix(*whole, num_classes)
    total = counts_of(pairs, num_classes).sum(0)
    np.testing.assert_array_equal(total, metrics.tallies(matrix))
    for found, score in zip(metrics.dice_of(total), metrics.per_class(matrix), strict=True):
        assert found == pytest.approx(score.dice)
    assert np.isnan(metrics.dice_of(metrics.tallies(TOY))[2])


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_images_by_themselves_count_where_the_class_is_in_truth_or_prediction(num_classes, seed):
    pairs = list(images(num_classes, 30, seed))
    counts = counts_of(pairs, num_classes)
    pairs = [(t[t < num_classes], p[t < num_classes]) for t, p in pairs]
    summed, seen = metrics.per_image(counts), metrics.detection(counts)
    assert min(s.images for s in summed) < 30  # some image has a class in neither
    for k in range(num_classes):
        dice = [
            sklearn.metrics.f1_score(t == k, p == k)
            for t, p in pairs
            if (t == k).any() or (p == k).any()
        ]
        assert dataclasses.astuple(summed[k]) == pytest.approx(
            (len(dice), np.mean(dice), np.median(dice), np.std(dice))
        )
        missed = [(t == k).sum() for t, p in pairs if (t == k).any() and not (p == k).any()]
        alarms = [(p == k).sum() for t, p in pairs if (p == k).any() and not (t == k).any()]
        there = sum((t == k).any() for t, _ in pairs)
        assert seen[k] == metrics.Detection(
            there, len(missed), sum(missed), 30 - there, len(alarms), sum(alarms)
        )


def test_a_class_on_no_image_has_no_mean_and_no_alarm():
    counts = metrics.tallies(TOY)[None]
    assert metrics.per_image(counts)[2] == metrics.ImageScores(0, None, None, None)
    assert metrics.detection(counts)[2] == metrics.Detection(0, 0, 0, 1, 0, 0)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_the_predicted_class_is_the_most_probable(outputs):
    logits = np.random.default_rng(0).normal(size=(2, 4, 5, outputs)).astype(np.float32)
    both = np.concatenate([np.zeros_like(logits), logits], -1) if outputs == 1 else logits
    found = metrics.predicted_ids(tf.constant(logits))
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, both.argmax(-1))
