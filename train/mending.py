"""Class ids of a whole mask mended: components taken away, holes filled; see `postprocessing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from train.postprocessing import ClassRule

_NEIGHBOURS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def removed(ids: np.ndarray, rule: ClassRule, area: float) -> np.ndarray:
    """Without the components of a class that its rule does not keep."""
    if not (rule.largest_component or rule.minimum_size > 1):
        return ids
    mask = ids == rule.id
    if not mask.any():
        return ids
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    sizes = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    keep = sizes >= rule.least_size(area)
    if rule.largest_component:
        keep &= np.arange(count) == _largest(labels, sizes)
    keep[0] = True  # what is not of the class
    if keep.all():
        return ids
    rows, columns = np.nonzero(~keep[labels])
    which = (np.cumsum(~keep) - 1)[labels[rows, columns]]
    met = contacts(ids, rows, columns, which, rule.id, int((~keep).sum()))
    replacement = met.argmax(1).astype(np.uint8)
    replacement[met.sum(1) == 0] = rule.id  # it fills the image
    result = ids.copy()
    result[rows, columns] = replacement[which]
    return result


def _largest(labels: np.ndarray, sizes: np.ndarray) -> int:
    """The largest component but 0; of several as large, the first by rows."""
    most = sizes[1:].max()
    tied = sizes == most
    tied[0] = False
    if tied.sum() == 1:
        return int(tied.argmax())
    flat = labels.ravel()
    return int(flat[tied[flat].argmax()])


def contacts(
    ids: np.ndarray, rows: np.ndarray, columns: np.ndarray, which: np.ndarray, own: int, count: int
) -> np.ndarray:
    """How many pairs of 8-neighbours components share with each class but their own.

    Args:
      ids: class ids, uint8 [H, W].
      rows: of the components' pixels, [n].
      columns: the same.
      which: the component of each of these pixels, 0..count-1, [n].
      own: the components' class.
      count: how many components there are.

    Returns:
      int64 [count, K], K above all class ids.
    """
    height, width = ids.shape
    num_classes = int(ids.max()) + 1
    shape = count, num_classes
    total = np.zeros(shape[0] * num_classes, np.int64)
    for dy, dx in _NEIGHBOURS:
        y, x = rows + dy, columns + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        around, of = ids[y[inside], x[inside]], which[inside]
        other = around != own  # neighbours of the same class are of the same component
        total += np.bincount(of[other] * num_classes + around[other], minlength=len(total))
    return total.reshape(shape)


def filled(ids: np.ndarray, limits: Mapping[int, float]) -> np.ndarray:
    """With small holes filled; the largest size of a hole for each class."""
    if not limits:
        return ids
    background = ids == 0
    if not background.any():
        return ids
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        background.view(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    height, width = ids.shape
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    inside = (left > 0) & (top > 0) & (right < width) & (bottom < height)
    inside &= stats[:, cv2.CC_STAT_AREA] <= max(limits.values())
    inside[0] = False
    if not inside.any():
        return ids
    result = ids
    rows, columns = np.nonzero(inside[labels])
    own = labels[rows, columns]
    lowest, highest = np.full(count, 256), np.full(count, -1)
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        around = ids[rows + dy, columns + dx].astype(np.int64)
        across = around > 0
        np.minimum.at(lowest, own[across], around[across])
        np.maximum.at(highest, own[across], around[across])
    limit = np.array([limits.get(k, 0.0) for k in range(256)])
    fills = inside & (lowest == highest)
    fills[fills] = stats[fills, cv2.CC_STAT_AREA] <= limit[lowest[fills]]
    if fills.any():
        result = ids.copy()
        chosen = fills[own]
        result[rows[chosen], columns[chosen]] = lowest[own[chosen]]
    return result
