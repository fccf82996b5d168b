"""How far Dice would vary with other images: percentile bootstrap intervals (Efron 1979).

What belongs together (the images of one patient) is drawn together, with replacement; each draw's
Dice pools its pixels, as that of the split does. A draw in which a class is in neither truth nor
prediction says nothing of that class. With few units an interval comes out too narrow; of a single
one there is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

from train import metrics

LEVEL = 0.95
RESAMPLES = 1000
_CELLS = 1 << 22  # of the weights and tallies that are held at a time

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Intervals of Dice, each (low, high) or None where there is none.

    Attributes:
      units: how many images or groups were drawn from.
      dice_macro: of the mean over the classes from 1 that occur.
      dice: of each class, [K].
    """

    units: int
    dice_macro: Interval | None
    dice: tuple[Interval | None, ...]


def bootstrap(
    counts: np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Intervals:
    """Draws images, or groups of them, again and again.

    Args:
      counts: tallies of the images, int [N, 3, K] (`metrics.tallies`).
      groups: which group each image belongs to; None draws images.
      resamples: how often the whole is drawn.
      level: the share of the draws that an interval holds, below 1.
      seed: of the draws.
    """
    counts = np.asarray(counts)
    units = _by_group(counts, groups) if groups is not None else counts
    number, _, num_classes = units.shape
    if number < 2:
        return Intervals(number, None, (None,) * num_classes)
    # Whole numbers below 2^53, which float64 adds up exactly, and fast.
    flat = units.reshape(number, -1).astype(np.float64)
    rng = np.random.default_rng(seed)
    together = max(1, _CELLS // max(number, 3 * num_classes))
    dice, macro = [], []
    for start in range(0, resamples, together):
        draws = min(together, resamples - start)
        weights = rng.multinomial(number, np.full(number, 1 / number), draws)
        drawn = metrics.dice_of((weights @ flat).reshape(draws, 3, num_classes))
        dice.append(drawn)
        macro.append(_mean_known(drawn[:, 1:]))
    return Intervals(
        units=number,
        dice_macro=_percentiles(np.concatenate(macro), level),
        dice=tuple(_percentiles(column, level) for column in np.concatenate(dice).T),
    )


def _by_group(counts: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Adds up the tallies of each group, in the order in which groups first occur."""
    places: dict[Hashable, int] = {}
    index = [places.setdefault(group, len(places)) for group in groups]
    result = np.zeros([len(places), *counts.shape[1:]], np.int64)
    np.add.at(result, index, counts)
    return result


def _mean_known(values: np.ndarray) -> np.ndarray:
    """Means over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(-1)
    count = known.sum(-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _percentiles(values: np.ndarray, level: float) -> Interval | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
