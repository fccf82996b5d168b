"""The old figures are the old formulas, and are what their docstrings say."""

import keras
import numpy as np
import pytest
import sklearn.metrics

from pipelines.label_map import IGNORE_ID
from train import legacy_metrics

EPSILON = 1e-7


def draw(num_classes, seed=0, ignored=0.0, shape=(12, 10)):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(num_classes, 0.5), shape).astype(np.float32)
    labels = rng.integers(0, num_classes, shape).astype(np.uint8)
    labels[rng.random(shape) < ignored] = IGNORE_ID
    return p, labels


def flat(p, labels, channels):
    """One-hot truth and probabilities of the channels and of the pixels that count."""
    one_hot = np.eye(256)[labels][..., channels]
    valid = labels < p.shape[-1]
    return one_hot[valid], p.astype(np.float64)[..., channels][valid]


FORMULAS = {
    "dice_coef": lambda t, p: (2 * (t * p).sum() + 1) / (t.sum() + p.sum() + 1),
    "dice_coef_multiclass": lambda t, p: (2 * (t * p).sum() + 1) / (t.sum() + p.sum() + 1),
    "iou_coef": lambda t, p: (t * p).sum() / (t + p - t * p).sum(),
    "jacard_similarity": lambda t, p: (t * p).sum() / (t + p - t * p).sum(),
    "sensitivity": lambda t, p: (
        np.round(np.clip(t * p, 0, 1)).sum() / (np.round(np.clip(t, 0, 1)).sum() + EPSILON)
    ),
    "specificity": lambda t, p: (
        np.round(np.clip((1 - t) * (1 - p), 0, 1)).sum()
        / (np.round(np.clip(1 - t, 0, 1)).sum() + EPSILON)
    ),
    "binary_accuracy": lambda t, p: ((p > 0.5) == t).mean(),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(
    ("num_classes", "channels"), [(2, [1]), (2, [0, 1]), (5, [0, 1, 2, 3, 4]), (5, [2])]
)
@pytest.mark.parametrize("ignored", [0.0, 0.2])
def test_figures_are_the_old_formulas_on_one_hot_masks(name, num_classes, channels, ignored):
    p, labels = draw(num_classes, num_classes, ignored)
    found = getattr(legacy_metrics, name)(legacy_metrics.sums(p, labels, channels))
    assert found == pytest.approx(FORMULAS[name](*flat(p, labels, channels)), rel=1e-9)


def test_blocks_of_pixels_change_nothing(monkeypatch):
    p, labels = draw(3, ignored=0.1)
    whole = legacy_metrics.sums(p, labels, [0, 1, 2])
    monkeypatch.setattr(legacy_metrics, "_BLOCK", 7)
    assert vars(legacy_metrics.sums(p, labels, [0, 1, 2])) == pytest.approx(vars(whole))


@pytest.mark.parametrize("num_classes", [2, 5])
def test_dice_coef_multiclass_is_the_mean_probability_of_the_true_class(num_classes):
    p, labels = draw(num_classes, shape=(60, 50))
    own = np.take_along_axis(p, labels[..., None].astype(int), -1).mean()
    sums = legacy_metrics.sums(p, labels, range(num_classes))
    assert legacy_metrics.dice_coef_multiclass(sums) == pytest.approx(own, abs=1e-3)


def test_finding_nothing_scores_as_high_as_the_background_is_large():
    """2.5% of foreground, none of it found: .9746 and the like, where Dice is 0."""
    labels = np.zeros([100, 100], np.uint8)
    labels[:25, :10] = 1
    p = np.zeros([100, 100, 2], np.float32)
    p[..., 0] = 1
    sums = legacy_metrics.sums(p, labels, [0, 1])
    assert legacy_metrics.dice_coef_multiclass(sums) == pytest.approx(0.975, abs=1e-4)
    assert legacy_metrics.binary_accuracy(sums) == 0.975
    assert legacy_metrics.dice_coef(legacy_metrics.sums(p, labels, [1])) == 1 / 251


def test_of_one_channel_they_are_scikit_learns_at_the_threshold_of_a_half():
    p, labels = draw(2)
    truth, found = (labels == 1).ravel(), (p[..., 1] > 0.5).ravel()
    sums = legacy_metrics.sums(p, labels, [1])
    recall = sklearn.metrics.recall_score
    assert legacy_metrics.sensitivity(sums) == pytest.approx(recall(truth, found))
    assert legacy_metrics.specificity(sums) == pytest.approx(recall(~truth, ~found))
    accuracy = sklearn.metrics.accuracy_score(truth, found)
    assert legacy_metrics.binary_accuracy(sums) == pytest.approx(accuracy)


def test_a_half_rounds_and_compares_as_keras_does():
    """Rounding is to even, so that 0.5 is no hit, for truth and for the rest."""
    p = np.array([[0.5, 0.5], [0.5, 0.5], [0.4, 0.6]], np.float32)
    labels = np.array([0, 1, 1], np.uint8)
    sums = legacy_metrics.sums(p, labels, [1])
    t, q = np.array([0.0, 1.0, 1.0]), p[:, 1]
    round_ = keras.ops.round
    assert sums.found == float(keras.ops.sum(round_(t * q)))
    assert sums.left == float(keras.ops.sum(round_((1 - t) * (1 - q))))
    assert legacy_metrics.binary_accuracy(sums) == pytest.approx(
        float(keras.ops.mean(keras.metrics.binary_accuracy(t[:, None], q[:, None])))
    )


def test_nothing_true_and_nothing_predicted():
    p = np.zeros([4, 4, 2], np.float32)
    sums = legacy_metrics.sums(p, np.zeros([4, 4], np.uint8), [1])
    assert legacy_metrics.dice_coef(sums) == 1
    assert np.isnan(legacy_metrics.iou_coef(sums))
    assert legacy_metrics.sensitivity(sums) == 0
