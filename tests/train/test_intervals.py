"""Bootstrap intervals are those of the exact distribution, and of scipy; groups stay together."""

import itertools

import numpy as np
import pytest
import scipy.stats

from train import intervals, metrics

# SciPy before 1.15 has another word.
_NEW = tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 15)
_GENERATOR = "rng" if _NEW else "random_state"


def draw(number, num_classes=3, seed=0):
    """Tallies of images of different difficulty, on some of which classes are missing."""
    rng = np.random.default_rng(seed)
    matrices = []
    for _ in range(number):
        matrix = rng.integers(0, 20, (num_classes, num_classes))
        matrix += np.diag(rng.integers(0, 200, num_classes))
        absent = rng.integers(1, num_classes) if rng.random() < 0.4 else None
        if absent:
            matrix[absent] = matrix[:, absent] = 0
        matrices.append(matrix)
    return np.stack([metrics.tallies(m) for m in matrices])


def pooled(counts):
    """Dice of the classes, and the mean over the foreground that occurs."""
    hits, truth, predicted = counts.sum(0)
    with np.errstate(invalid="ignore"):
        dice = 2 * hits / (truth + predicted)
    known = dice[1:][~np.isnan(dice[1:])]
    return dice, known.mean() if len(known) else np.nan


def test_intervals_are_the_percentiles_of_all_draws_that_there_are():
    """Of four images there are 4^4 draws, all of them equally likely."""
    counts = draw(4, seed=3)
    all_draws = [pooled(counts[list(i)]) for i in itertools.product(range(4), repeat=4)]
    found = intervals.bootstrap(counts, resamples=40000, level=0.8)
    assert found.units == 4
    for k in range(3):
        own = [dice[k] for dice, _ in all_draws if not np.isnan(dice[k])]
        low, high = np.percentile(own, [10, 90])
        assert found.dice[k] == pytest.approx((low, high), abs=0.01)
    low, high = np.percentile([macro for _, macro in all_draws], [10, 90])
    assert found.dice_macro == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_intervals_are_scipys(level):
    counts = draw(30, seed=1)

    def macro(index):
        return pooled(counts[index.astype(int)])[1]

    expected = scipy.stats.bootstrap(
        (np.arange(30),),
        macro,
        vectorized=False,
        method="percentile",
        confidence_level=level,
        n_resamples=4000,
        **{_GENERATOR: np.random.default_rng(5)},
    ).confidence_interval
    found = intervals.bootstrap(counts, resamples=4000, level=level)
    width = expected.high - expected.low
    assert found.dice_macro == pytest.approx(tuple(expected), abs=0.1 * width)
    assert found.dice_macro[0] < pooled(counts)[1] < found.dice_macro[1]


def test_groups_are_drawn_whole():
    """Images of a group count as one image that holds all of their pixels."""
    counts = draw(12)
    groups = ["a", "b", "c", "a", "b", "d", "e", "a", "f", "f", "c", "e"]
    merged = np.stack(
        [counts[[g == name for g in groups]].sum(0) for name in ("a", "b", "c", "d", "e", "f")]
    )
    found = intervals.bootstrap(counts, groups)
    assert found == intervals.bootstrap(merged)
    assert found.units == 6
    assert found != intervals.bootstrap(counts)


def test_copies_of_images_narrow_the_interval_unless_they_are_of_one_group():
    counts = draw(10)
    many = np.concatenate([counts] * 20)
    groups = list(range(10)) * 20

    def width(interval):
        return interval[1] - interval[0]

    alone, grouped, ungrouped = (
        intervals.bootstrap(*args).dice_macro for args in [(counts,), (many, groups), (many,)]
    )
    assert grouped == pytest.approx(alone)
    assert width(ungrouped) < 0.5 * width(alone)


def test_the_draws_follow_from_the_seed_and_not_from_the_blocks(monkeypatch):
    counts = draw(9)
    first = intervals.bootstrap(counts, seed=1)
    assert intervals.bootstrap(counts, seed=1) == first
    assert intervals.bootstrap(counts, seed=2) != first
    monkeypatch.setattr(intervals, "_CELLS", 100)
    assert intervals.bootstrap(counts, seed=1) == first


def test_a_class_that_never_occurs_has_no_interval():
    counts = draw(8)
    counts[:, :, 2] = 0
    found = intervals.bootstrap(counts)
    assert found.dice[2] is None
    assert found.dice[1] is not None
    assert found.dice_macro == found.dice[1]
    counts[:, :, 1] = 0
    assert intervals.bootstrap(counts).dice_macro is None


@pytest.mark.parametrize("number", [0, 1])
def test_of_one_unit_there_is_no_interval(number):
    found = intervals.bootstrap(draw(5)[:number])
    assert found == intervals.Intervals(number, None, (None, None, None))
    assert intervals.bootstrap(draw(5), ["all"] * 5).dice_macro is None


def test_equal_images_have_an_interval_without_width():
    counts = np.concatenate([draw(1)] * 6)
    found = intervals.bootstrap(counts)
    assert found.dice_macro == pytest.approx((pooled(counts)[1],) * 2)
