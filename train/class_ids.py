"""Probabilities to class ids: the first of the most probable, as they are or enlarged on the way.

Enlarged, no more than a few rows of the large probabilities are ever held.
"""

from __future__ import annotations

import numpy as np

Size = tuple[int, int]


def most_probable(values: np.ndarray) -> np.ndarray:
    """The first of the most probable classes, from [..., K] to uint8 [...]."""
    if values.shape[-1] == 2:  # argmax takes ten times as long
        return np.greater(values[..., 1], values[..., 0]).view(np.uint8)
    return values.argmax(-1).astype(np.uint8)


def enlarged(values: np.ndarray, size: Size) -> np.ndarray:
    """The class ids of probabilities that are resized first, as `resize.resize` does it.

    The same arithmetic in the same order as TensorFlow's: columns between their two neighbours,
    then rows, first + (second - first) part.

    Args:
      values: float32 [h, w, K].
      size: (height, width) of the result, in pixels.

    Returns:
      uint8 [height, width].
    """
    if values.shape[:2] == tuple(size):
        return most_probable(values)
    from train.resize import RowResizer, resize_array  # they load TensorFlow

    source = values.shape[0], values.shape[1]
    resizer = RowResizer(source, (size[0], size[1]))
    if resizer.shrinks:
        return most_probable(resize_array(values, size))
    # Classes apart, so that each row of one is a run of numbers.
    planes = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    wide = resizer.widened(planes)
    lower, upper, parts = resizer.between
    ids = np.empty(size, np.uint8)
    starts = np.flatnonzero(np.diff(lower, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], size[0]], strict=True):
        # All rows between the same two of the source.
        first = wide[:, lower[start]]
        step = wide[:, upper[start]] - first
        _choose(first, step, parts[start:stop, None], ids[start:stop])
    return ids


def _choose(first: np.ndarray, step: np.ndarray, parts: np.ndarray, ids: np.ndarray) -> None:
    """Writes the most probable classes of rows first + step part into ids [n, W].

    Args:
      first: float32 [K, W].
      step: the same.
      parts: float32 [n, 1].
      ids: uint8 [n, W].
    """
    best = step[0] * parts
    best += first[0]
    other = np.empty_like(best)
    for k in range(1, len(first)):
        np.multiply(step[k], parts, out=other)
        other += first[k]
        if k == 1:
            better = np.greater(other, best, out=ids.view(bool))
        else:
            better = other > best
            ids[better] = k
        if k + 1 < len(first):
            np.maximum(best, other, out=best)
