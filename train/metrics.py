"""Figures from one confusion matrix, which is summed over replicas, batches and images.

Dice of a class pools its pixels: 2 TP / (2 TP + FP + FN). A class that is in neither truth nor
prediction has no figure (None) and leaves the means. "Dice" means foreground Dice of hard labels.
What is said of single images follows from three rows of each image's matrix (`tallies`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

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


# ---- A split as a whole --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """Figures of one class against all others, or None where one has no meaning.

    A class that is in neither truth nor prediction has none at all.

    Attributes:
      dice: 2 TP / (2 TP + FP + FN), 0..1.
      iou: TP / (TP + FP + FN), 0..1.
      precision: TP / (TP + FP), 0..1.
      recall: TP / (TP + FN), the sensitivity, 0..1.
      specificity: TN / (TN + FP), 0..1.
      matthews: (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)), -1..1.
    """

    dice: float | None
    iou: float | None
    precision: float | None
    recall: float | None
    specificity: float | None
    matthews: float | None


def per_class(matrix: np.ndarray) -> tuple[ClassScores, ...]:
    """The figures of every class from a confusion matrix [K, K] (rows truth)."""
    truth, predicted, hits = _margins(matrix)
    everything = sum(truth)
    return tuple(
        _class_scores(hit, there - hit, found - hit, everything - there - found + hit)
        for hit, there, found in zip(hits, truth, predicted, strict=True)
    )


@dataclasses.dataclass(frozen=True)
class ForegroundScores:
    """Means over the classes from 1 that have the figure, and Dice with all of them in one pool.

    In the pool a pixel is a hit where its class is right, not merely foreground.

    Attributes:
      classes: how many classes `dice_macro` and `iou_macro` are means of.
    """

    dice_macro: float | None
    iou_macro: float | None
    dice_pooled: float | None
    precision_macro: float | None
    recall_macro: float | None
    specificity_macro: float | None
    matthews_macro: float | None
    classes: int


def foreground(matrix: np.ndarray) -> ForegroundScores:
    """Sums up a confusion matrix [K, K] (rows truth) over the classes from 1."""
    truth, predicted, hits = _margins(matrix)
    scores = per_class(matrix)[1:]
    return ForegroundScores(
        dice_macro=mean([s.dice for s in scores]),
        iou_macro=mean([s.iou for s in scores]),
        dice_pooled=_ratio(2 * sum(hits[1:]), sum(truth[1:]) + sum(predicted[1:])),
        precision_macro=mean([s.precision for s in scores]),
        recall_macro=mean([s.recall for s in scores]),
        specificity_macro=mean([s.specificity for s in scores]),
        matthews_macro=mean([s.matthews for s in scores]),
        classes=sum(s.dice is not None for s in scores),
    )


@dataclasses.dataclass(frozen=True)
class OverallScores:
    """Figures of all classes together, in which a large background outweighs all else.

    Attributes:
      pixel_accuracy: share of the pixels whose class is right, 0..1.
      matthews: Matthews' correlation of several classes (Gorodkin 2004), -1..1:
        (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2)(s^2 - sum_k t_k^2)) with c right pixels of
        s, of which t_k are of class k and p_k are said to be. None where there is but one class in
        truth or in prediction.
      dice_macro_with_background: mean of Dice over all classes that occur.
      iou_macro_with_background: the same of IoU.
    """

    pixel_accuracy: float | None
    matthews: float | None
    dice_macro_with_background: float | None
    iou_macro_with_background: float | None


def overall(matrix: np.ndarray) -> OverallScores:
    """Sums up a confusion matrix [K, K] (rows truth) over all classes."""
    truth, predicted, hits = _margins(matrix)
    right, everything = sum(hits), sum(truth)
    scores = per_class(matrix)
    spread = (everything**2 - sum(p * p for p in predicted)) * (
        everything**2 - sum(t * t for t in truth)
    )
    together = sum(p * t for p, t in zip(predicted, truth, strict=True))
    return OverallScores(
        pixel_accuracy=_ratio(right, everything),
        matthews=(right * everything - together) / math.sqrt(spread) if spread else None,
        dice_macro_with_background=mean([s.dice for s in scores]),
        iou_macro_with_background=mean([s.iou for s in scores]),
    )


# ---- Images by themselves ------------------------------------------------------------------------


def tallies(matrix: np.ndarray) -> np.ndarray:
    """What Dice needs of a confusion matrix [K, K]: right, true and predicted pixels, int64 [3, K].

    Those of single images add up to those of the split.
    """
    matrix = np.asarray(matrix, np.int64)
    return np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)])


def dice_of(counts: np.ndarray) -> np.ndarray:
    """Dice of tallies [..., 3, K]: float64 [..., K], NaN where a class is in neither."""
    counts = np.asarray(counts)
    total = (counts[..., 1, :] + counts[..., 2, :]).astype(np.float64)
    hits = 2.0 * counts[..., 0, :]
    return np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0)


@dataclasses.dataclass(frozen=True)
class ImageScores:
    """Dice of one class over the images that have it in truth or in prediction.

    An image where the class is in the truth alone, or in the prediction alone, counts with 0; one
    that has it in neither is left out.

    Attributes:
      images: how many images that are.
      dice_mean: over those; None where there is none.
      dice_median: the same.
      dice_std: the same, with the divisor n.
    """

    images: int
    dice_mean: float | None
    dice_median: float | None
    dice_std: float | None


def per_image(counts: np.ndarray) -> tuple[ImageScores, ...]:
    """Sums up images by their own Dice; tallies int [N, 3, K] to the figures of every class."""
    counts = np.asarray(counts)
    return tuple(_image_scores(column[~np.isnan(column)]) for column in dice_of(counts).T)


@dataclasses.dataclass(frozen=True)
class Detection:
    """Whether a class is found on an image at all, by whatever pixel.

    Attributes:
      images_with: images that have the class in their truth.
      missed_images: those of them on which no pixel is predicted to be of it.
      missed_pixels: the class's true pixels on the missed images.
      images_without: images that do not have it in their truth.
      false_alarm_images: those of them on which some pixel is predicted to be of it.
      false_alarm_pixels: how many pixels that are.
    """

    images_with: int
    missed_images: int
    missed_pixels: int
    images_without: int
    false_alarm_images: int
    false_alarm_pixels: int


def detection(counts: np.ndarray) -> tuple[Detection, ...]:
    """Counts images by whether each class is there and found; tallies int [N, 3, K]."""
    counts = np.asarray(counts, np.int64)
    truth, predicted = counts[:, 1], counts[:, 2]
    missed, alarm = (truth > 0) & (predicted == 0), (truth == 0) & (predicted > 0)
    return tuple(
        Detection(
            images_with=int((truth[:, k] > 0).sum()),
            missed_images=int(missed[:, k].sum()),
            missed_pixels=int(truth[missed[:, k], k].sum()),
            images_without=int((truth[:, k] == 0).sum()),
            false_alarm_images=int(alarm[:, k].sum()),
            false_alarm_pixels=int(predicted[alarm[:, k], k].sum()),
        )
        for k in range(counts.shape[-1])
    )


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the figures that are there; None where none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _margins(matrix: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """True, predicted and right pixels of each class. Python's integers, whose products fit."""
    matrix = np.asarray(matrix, np.int64)
    return matrix.sum(1).tolist(), matrix.sum(0).tolist(), np.diag(matrix).tolist()


def _class_scores(tp: int, fn: int, fp: int, tn: int) -> ClassScores:
    if not tp + fn + fp:
        return ClassScores(*[None] * len(dataclasses.fields(ClassScores)))
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return ClassScores(
        dice=_ratio(2 * tp, 2 * tp + fp + fn),
        iou=_ratio(tp, tp + fp + fn),
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        specificity=_ratio(tn, tn + fp),
        matthews=(tp * tn - fp * fn) / math.sqrt(spread) if spread else None,
    )


def _image_scores(dice: Sequence[float] | np.ndarray) -> ImageScores:
    if not len(dice):
        return ImageScores(0, None, None, None)
    return ImageScores(len(dice), float(np.mean(dice)), float(np.median(dice)), float(np.std(dice)))


def _ratio(above: int, below: int) -> float | None:
    return above / below if below else None
