"""Whether probabilities mean what they say: calibration error and Brier score, in bounded memory.

Expected calibration error (Guo et al. 2017), over bins of equal width, each closed above:
ECE = sum_b n_b / n |share of b that is right - mean probability in b|. Once for the most probable
class of each pixel, and once for each class k, where b collects p_k and "right" is that the pixel
is of class k (Kull et al. 2019): a large background hides the foreground's error in the first, not
in the second. Brier score (Brier 1950): the mean over pixels of sum_k (p_k - t_k)^2, 0..2; of one
class, the mean of its own term, 0..1. Both look at every pixel that has a class.
"""

from __future__ import annotations

import dataclasses

import numpy as np

BINS = 15
_BLOCK = 1 << 20  # pixels that are looked at at a time, in float64


@dataclasses.dataclass(frozen=True)
class Bin:
    """Pixels with a probability in (low, high]; the first bin holds 0 too.

    Attributes:
      pixels: how many.
      confidence: their mean probability; None where there are none.
      accuracy: the share of them that is right.
    """

    low: float
    high: float
    pixels: int
    confidence: float | None
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Scores:
    """Calibration over all images.

    Attributes:
      pixels: that were looked at; where there are none, all figures are None.
      ece: of the most probable class.
      brier: over all classes.
      class_ece: of each class, [K].
      class_brier: of each class, [K].
      bins: the reliability diagram of the most probable class.
    """

    pixels: int
    ece: float | None
    brier: float | None
    class_ece: tuple[float | None, ...]
    class_brier: tuple[float | None, ...]
    bins: tuple[Bin, ...]


class Calibration:
    """Sums over images: histograms of K + 1 rows, whatever the number of pixels."""

    def __init__(self, num_classes: int, bins: int = BINS):
        self._edges = np.linspace(0.0, 1.0, bins + 1)
        shape = [num_classes + 1, bins]  # the last row is that of the most probable class
        self._pixels = np.zeros(shape, np.int64)
        self._right = np.zeros(shape, np.int64)
        self._probability = np.zeros(shape)
        self._squares = np.zeros(num_classes)

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Looks at one image.

        Args:
          probabilities: float [..., K], 0..1.
          labels: class ids [...]; pixels with ids outside the classes are left out.
        """
        num_classes = len(self._squares)
        labels = labels.reshape(-1)
        flat = probabilities.reshape(len(labels), num_classes)
        for start in range(0, len(labels), _BLOCK):
            ids, block = labels[start : start + _BLOCK], flat[start : start + _BLOCK]
            valid = (ids >= 0) & (ids < num_classes)
            ids, block = ids[valid], block[valid]
            for k in range(num_classes):
                p, truth = block[:, k].astype(np.float64), ids == k
                self._count(k, p, truth)
                self._squares[k] += ((p - truth) ** 2).sum()
            self._count(num_classes, block.max(-1).astype(np.float64), block.argmax(-1) == ids)

    def scores(self) -> Scores:
        """What follows from the images so far."""
        pixels = int(self._pixels[-1].sum())
        errors = np.abs(self._right - self._probability).sum(1)
        ece = [float(e) / pixels if pixels else None for e in errors]
        brier = [float(s) / pixels if pixels else None for s in self._squares]
        return Scores(
            pixels=pixels,
            ece=ece[-1],
            brier=float(self._squares.sum()) / pixels if pixels else None,
            class_ece=tuple(ece[:-1]),
            class_brier=tuple(brier),
            bins=tuple(self._bin(b) for b in range(len(self._edges) - 1)),
        )

    def _count(self, row: int, p: np.ndarray, right: np.ndarray) -> None:
        bins = len(self._edges) - 1
        index = np.searchsorted(self._edges[1:-1], p)
        self._pixels[row] += np.bincount(index, minlength=bins)
        self._right[row] += np.bincount(index[right], minlength=bins)
        self._probability[row] += np.bincount(index, p, bins)

    def _bin(self, b: int) -> Bin:
        pixels = int(self._pixels[-1, b])
        return Bin(
            low=float(self._edges[b]),
            high=float(self._edges[b + 1]),
            pixels=pixels,
            confidence=float(self._probability[-1, b]) / pixels if pixels else None,
            accuracy=int(self._right[-1, b]) / pixels if pixels else None,
        )
