"""Figures mean what their names say, and absent classes have none."""

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
    expected["iou"] = np.where(np.isnan(expected["dice"]), np.nan, expected["iou"])
    for name, values in expected.items():
        for k in labels:
            assert same(getattr(scores[k], name), values[k]), (name, k)


def test_a_class_in_neither_truth_nor_prediction_has_no_figure_at_all():
    assert metrics.per_class(TOY)[2] == metrics.ClassScores(None, None, None, None)


def test_a_class_that_is_only_predicted_has_dice_zero_and_no_recall():
    scores = metrics.per_class(np.array([[5, 3], [0, 0]]))[1]
    assert scores == metrics.ClassScores(dice=0.0, iou=0.0, precision=0.0, recall=None)


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


def test_the_toy_of_the_reference_has_its_published_figures():
    background, foreground, absent = metrics.per_class(TOY)
    assert round(background.dice, 4) == 0.96
    assert round(foreground.dice, 4) == 0.8571
    assert round(background.iou, 4) == 0.9231
    assert round(foreground.iou, 4) == 0.75
    assert absent.dice is None
    assert round(metrics.foreground(TOY).dice_macro, 4) == 0.8571


def test_finding_nothing_scores_nothing_however_large_the_background():
    found = metrics.foreground(np.array([[9750, 0], [250, 0]]))
    assert (found.dice_macro, found.iou_macro, found.dice_pooled) == (0.0, 0.0, 0.0)


def test_pixels_of_another_foreground_class_are_no_hits_in_the_pool():
    assert metrics.foreground(np.array([[0, 0, 0], [0, 0, 8], [0, 0, 0]])).dice_pooled == 0.0


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("ignored", [0.0, 0.2])
def test_the_legacy_figure_is_the_old_formula_on_one_hot_masks(num_classes, ignored):
    """dice_coef_multiclass: (2 sum t p + 1) / (sum t + sum p + 1) over pixels and all classes."""
    rng = np.random.default_rng(num_classes)
    p = rng.dirichlet(np.ones(num_classes), (12, 10)).astype(np.float32)
    labels = rng.integers(0, num_classes, (12, 10)).astype(np.uint8)
    labels[rng.random(labels.shape) < ignored] = IGNORE_ID
    one_hot = np.eye(256)[labels][..., :num_classes]
    counted = p.astype(np.float64) * (labels < num_classes)[..., None]
    expected = (2 * (one_hot * counted).sum() + 1) / (one_hot.sum() + counted.sum() + 1)
    found = metrics.legacy_dice_coef_multiclass(p, labels)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_the_predicted_class_is_the_most_probable(outputs):
    logits = np.random.default_rng(0).normal(size=(2, 4, 5, outputs)).astype(np.float32)
    both = np.concatenate([np.zeros_like(logits), logits], -1) if outputs == 1 else logits
    found = metrics.predicted_ids(tf.constant(logits))
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, both.argmax(-1))
