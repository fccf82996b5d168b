"""Calibration figures are those of scikit-learn and of loops, whatever the blocks and images."""

import dataclasses

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from pipelines.label_map import IGNORE_ID
from train import calibration


def draw(num_classes, seed=0, number=3, ignored=0.1):
    """Images of probabilities that are too sure, and labels drawn from tamer ones."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        tame = rng.dirichlet(np.ones(num_classes), (9, 11))
        labels = (tame.cumsum(-1) < rng.random((9, 11, 1))).sum(-1).astype(np.uint8)
        sure = tame**3 / (tame**3).sum(-1, keepdims=True)
        labels[rng.random(labels.shape) < ignored] = IGNORE_ID
        yield sure.astype(np.float32), labels


def scores_of(pairs, num_classes, bins=calibration.BINS):
    found = calibration.Calibration(num_classes, bins)
    for p, labels in pairs:
        found.add(p, labels)
    return found.scores()


def counted(pairs):
    """All pixels that count: probabilities [N, K] and labels [N]."""
    p = np.concatenate([p[labels != IGNORE_ID] for p, labels in pairs]).astype(np.float64)
    return p, np.concatenate([labels[labels != IGNORE_ID] for _, labels in pairs])


def looped_ece(p, right, bins):
    """The definition, bin by bin: (low, high], and the first holds 0."""
    total = 0.0
    for b in range(bins):
        inside = (p > b / bins) & (p <= (b + 1) / bins) | ((p == 0) & (b == 0))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - p[inside].mean())
    return total


@pytest.mark.parametrize("num_classes", [2, 3, 6])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_expected_calibration_error_is_its_definition(num_classes, bins):
    pairs = list(draw(num_classes, num_classes))
    found = scores_of(pairs, num_classes, bins)
    p, labels = counted(pairs)
    assert found.pixels == len(labels)
    top = looped_ece(p.max(-1), p.argmax(-1) == labels, bins)
    assert found.ece == pytest.approx(top, abs=1e-12)
    for k in range(num_classes):
        assert found.class_ece[k] == pytest.approx(
            looped_ece(p[:, k], labels == k, bins), abs=1e-12
        )


@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_reliability_diagram_is_scikit_learns(num_classes):
    pairs = list(draw(num_classes, 1))
    p, labels = counted(pairs)
    accuracy, confidence = sklearn.calibration.calibration_curve(
        p.argmax(-1) == labels, p.max(-1), n_bins=calibration.BINS
    )
    bins = scores_of(pairs, num_classes).bins
    filled = [b for b in bins if b.pixels]
    assert [b.accuracy for b in filled] == pytest.approx(accuracy)
    assert [b.confidence for b in filled] == pytest.approx(confidence)
    assert all(b.low < b.confidence <= b.high for b in filled)
    assert (bins[0].low, bins[-1].high) == (0, 1)
    empty = [b for b in bins if not b.pixels]
    assert empty  # no top probability is below 1 / K
    assert {(b.accuracy, b.confidence) for b in empty} == {(None, None)}


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_brier_scores_are_scikit_learns(num_classes):
    pairs = list(draw(num_classes, num_classes))
    found = scores_of(pairs, num_classes)
    p, labels = counted(pairs)
    for k in range(num_classes):
        one = sklearn.metrics.brier_score_loss(labels == k, p[:, k])
        assert found.class_brier[k] == pytest.approx(one)
    assert found.brier == pytest.approx(((p - np.eye(num_classes)[labels]) ** 2).sum(-1).mean())
    assert found.brier == pytest.approx(sum(found.class_brier))


def test_images_and_blocks_may_be_cut_in_any_way(monkeypatch):
    pairs = list(draw(3))
    whole = scores_of([tuple(map(np.concatenate, zip(*pairs, strict=True)))], 3)
    monkeypatch.setattr(calibration, "_BLOCK", 7)
    found = scores_of(pairs, 3)
    for key, value in dataclasses.asdict(whole).items():
        if key == "bins":
            assert [b.pixels for b in found.bins] == [b["pixels"] for b in value]
        else:
            assert getattr(found, key) == pytest.approx(value)


def test_right_and_sure_is_perfect_and_wrong_and_sure_the_worst():
    labels = np.array([0, 1, 2, 1], np.uint8)
    perfect = scores_of([(np.eye(3, dtype=np.float32)[labels], labels)], 3)
    assert (perfect.ece, perfect.brier, perfect.class_ece) == (0, 0, (0, 0, 0))
    worst = scores_of([(np.eye(3, dtype=np.float32)[(labels + 1) % 3], labels)], 3)
    assert (worst.ece, worst.brier) == (1, 2)


def test_probabilities_on_an_edge_lie_in_the_bin_below():
    p = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)
    bins = scores_of([(p, np.array([0, 1], np.uint8))], 2, bins=4).bins
    assert [b.pixels for b in bins] == [0, 1, 1, 0]


def test_without_a_pixel_there_is_no_figure():
    found = scores_of([(np.ones([2, 2, 2], np.float32), np.full([2, 2], IGNORE_ID, np.uint8))], 2)
    assert (found.pixels, found.ece, found.brier) == (0, None, None)
    assert found.class_ece == found.class_brier == (None, None)
