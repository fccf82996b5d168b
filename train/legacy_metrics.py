"""The metrics of older projects, under their names and by their formulas, for comparison alone.

They look at soft probabilities p and one-hot truth t, channel by channel, as those projects did: a
network with one logit has one channel, the foreground's; one with K logits has K, background
included, so that the background outweighs all else. Sums run over the pixels and channels of a
batch. None of these figures is to be taken for the one of that name in `train/metrics.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

_EPSILON = 1e-7  # Keras' own
_BLOCK = 1 << 20  # pixels that are summed at a time, in float64


@dataclasses.dataclass(frozen=True)
class Sums:
    """What the old metrics are made of, over pixels and channels.

    Attributes:
      overlap: sum of t p.
      truth: sum of t.
      predicted: sum of p.
      found: sum of round(t p): true elements with p above 0.5.
      left: sum of round((1 - t)(1 - p)): other elements with p below 0.5.
      right: elements where t is 1 and p above 0.5, or t is 0 and p is not.
      elements: pixels times channels.
    """

    overlap: float
    truth: float
    predicted: float
    found: int
    left: int
    right: int
    elements: int


def sums(probabilities: np.ndarray, labels: np.ndarray, channels: Sequence[int]) -> Sums:
    """Sums up one batch.

    Args:
      probabilities: float [..., K], 0..1.
      labels: class ids [...]; pixels with ids outside the classes are left out.
      channels: the classes that count as channels, within 0..K-1.
    """
    labels = labels.reshape(-1)
    flat = probabilities.reshape(len(labels), -1)
    total = np.zeros(7)
    for start in range(0, len(labels), _BLOCK):
        ids, block = labels[start : start + _BLOCK], flat[start : start + _BLOCK]
        valid = (ids >= 0) & (ids < flat.shape[-1])
        for channel in channels:
            t, p = ids[valid] == channel, block[valid, channel].astype(np.float64)
            total += (
                p[t].sum(),
                t.sum(),
                p.sum(),
                np.round(p[t]).sum(),
                np.round(1.0 - p[~t]).sum(),
                ((p > 0.5) == t).sum(),
                len(p),
            )
    found, left, right, elements = (int(v) for v in total[3:])
    return Sums(float(total[0]), float(total[1]), float(total[2]), found, left, right, elements)


def dice_coef(s: Sums) -> float:
    """(2 sum tp + 1) / (sum t + sum p + 1): smoothed soft Dice of a whole batch in one pool.

    With the foreground as the one channel it is a soft, pooled Dice that counts how sure the
    network is, and is 1 where truth and prediction are empty. With all channels it is
    `dice_coef_multiclass` of the batch.
    """
    return (2 * s.overlap + 1) / (s.truth + s.predicted + 1)


def dice_coef_multiclass(s: Sums) -> float:
    """The same formula over all K channels of one image, background included.

    Since p and t each sum to the number of pixels, this is the mean probability of the true class,
    a soft pixel accuracy: a network that finds nothing scores as high as the background is large.
    It is not a Dice score.
    """
    return dice_coef(s)


def iou_coef(s: Sums) -> float:
    """Soft IoU, sum tp / sum(t + p - tp), not smoothed: NaN where nothing is true nor predicted.

    Below the IoU of hard labels where the network is right but unsure.
    """
    union = s.truth + s.predicted - s.overlap
    return s.overlap / union if union else float("nan")


jacard_similarity = iou_coef  # the same figure under its other name, spelt as it was


def sensitivity(s: Sums) -> float:
    """Sensitivity, sum round(tp) / (sum t + 1e-7): recall at 0.5; 0 where nothing is true.

    With all channels a class counts as found only where its probability is above 0.5, and the
    background's pixels count too: it is near the pixel accuracy then.
    """
    return s.found / (s.truth + _EPSILON)


def specificity(s: Sums) -> float:
    """Specificity, sum round((1 - t)(1 - p)) / (sum(1 - t) + 1e-7), with the threshold 0.5.

    With all channels every pixel is a negative of K - 1 classes, and nearly all of those are easy.
    """
    return s.left / (s.elements - s.truth + _EPSILON)


def binary_accuracy(s: Sums) -> float:
    """Share of pixels and channels on the right side of 0.5: pixel accuracy, for one channel.

    Where the background is large, a network that finds nothing scores nearly 1.
    """
    return s.right / s.elements if s.elements else float("nan")
