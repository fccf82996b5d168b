"""Figures from one confusion matrix, which is summed over replicas, batches and images.

Dice of a class pools its pixels: 2 TP / (2 TP + FP + FN). A class that is in neither truth nor
prediction has no figure (None) and leaves the means. "Dice" means foreground Dice of hard labels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf


def confusion(labels: tf.Tensor, predictions: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Counts pixels by truth and prediction.

    Args:
      labels: class ids, any shape and integer type; ids outside the classes are left out.
      predictions: class ids of the same shape, all within the classes.
      num_classes: K.

    Returns:
      int64 [K, K]; rows are the truth, columns the prediction.
    """
    truth = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    predicted = tf.cast(tf.reshape(predictions, [-1]), tf.int32)
    cells = num_classes * num_classes
    counted = (truth >= 0) & (truth < num_classes)
    index = tf.where(counted, truth * num_classes + predicted, cells)
    counts = tf.math.bincount(index, minlength=cells + 1, maxlength=cells + 1)
    return tf.cast(tf.reshape(counts[:cells], [num_classes, num_classes]), tf.int64)


def predicted_ids(logits: tf.Tensor) -> tf.Tensor:
    """The most probable class of each pixel: logits [..., K] or [..., 1] to int32 [...]."""
    if logits.shape[-1] == 1:
        return tf.cast(logits[..., 0] > 0.0, tf.int32)
    return tf.argmax(logits, -1, output_type=tf.int32)


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """Figures of one class, each 0..1 or None where it has no meaning."""

    dice: float | None
    iou: float | None
    precision: float | None
    recall: float | None


def per_class(matrix: np.ndarray) -> tuple[ClassScores, ...]:
    """The figures of every class from a confusion matrix [K, K] (rows truth)."""
    matrix = np.asarray(matrix, np.int64)
    hits, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return tuple(
        ClassScores(
            dice=_ratio(2 * hits[k], truth[k] + predicted[k]),
            iou=_ratio(hits[k], truth[k] + predicted[k] - hits[k]),
            precision=_ratio(hits[k], predicted[k]),
            recall=_ratio(hits[k], truth[k]),
        )
        for k in range(len(matrix))
    )


@dataclasses.dataclass(frozen=True)
class ForegroundScores:
    """Means over the classes from 1 that occur, and Dice with all foreground pixels in one pool.

    In the pool a pixel is a hit where its class is right, not merely foreground.
    """

    dice_macro: float | None
    iou_macro: float | None
    dice_pooled: float | None


def foreground(matrix: np.ndarray) -> ForegroundScores:
    """Sums up a confusion matrix [K, K] (rows truth) over the classes from 1."""
    matrix = np.asarray(matrix, np.int64)
    scores = per_class(matrix)[1:]
    hits = np.diag(matrix)[1:].sum()
    total = matrix[1:].sum() + matrix[:, 1:].sum()
    return ForegroundScores(
        dice_macro=_mean([s.dice for s in scores]),
        iou_macro=_mean([s.iou for s in scores]),
        dice_pooled=_ratio(2 * hits, total),
    )


def legacy_dice_coef_multiclass(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The figure that older projects print as "dice_coef_multiclass", for comparison alone.

    (2 sum tp + 1) / (sum t + sum p + 1) with the sums over pixels and all classes, background
    included. Since probabilities and one-hot truth each sum to the number of pixels, this is the
    mean probability of the true class, a soft pixel accuracy: a network that finds nothing scores
    as high as the background is large. It is not a Dice score.

    Args:
      probabilities: float [H, W, K].
      labels: class ids [H, W]; ids outside the classes are left out.
    """
    valid = labels < probabilities.shape[-1]
    p = probabilities[valid].astype(np.float64)
    hit = np.take_along_axis(p, labels[valid].astype(np.int64)[:, None], -1).sum()
    return float((2 * hit + 1) / (len(p) + p.sum() + 1))


def _ratio(above: int, below: int) -> float | None:
    return float(above) / float(below) if below else None


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
