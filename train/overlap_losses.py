"""Losses that measure how prediction and truth of a class overlap.

With p the probability of a class and g its truth, 0 or 1: hits = sum p g, excess = sum p (1 - g),
which are soft false positives, and missed = sum (1 - p) g, soft false negatives. The sums run over
the pixels that count, of the whole global batch or of each image.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from models.knobs import check, knob
from train.loss_contract import Pixels, Sums, pixels


class _Counts(NamedTuple):
    """Sums by class, [K'] or [B, K']."""

    hits: tf.Tensor
    excess: tf.Tensor
    missed: tf.Tensor
    truth: tf.Tensor


@dataclasses.dataclass(frozen=True)
class _Overlap:
    """A mean over classes of what `_by_class` makes of their sums.

    Over the batch (per_image=false) is steadier where many images lack a class, and the default
    (nnU-Net's batch Dice, Isensee et al. 2021): an image without the class has a loss near 1 for
    any trace of it. Image by image, it is the mean over images of which any pixel counts.
    """

    smooth: float = knob(
        1.0, "Pixels added to hits and to the whole, for classes that are absent.", minimum=0
    )
    per_image: bool = knob(False, "Take each image by itself instead of the global batch.")
    background: bool = knob(False, "Let class 0 take part.")

    def __post_init__(self) -> None:
        check(self)

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        seen = pixels(logits, labels)
        p, g = self._maps(seen)
        counts = _Counts(*(tf.reduce_sum(x, [1, 2]) for x in (p * g, p * (1 - g), (1 - p) * g, g)))
        counts = self._gathered(counts)
        if self.per_image:
            losses = self._over_classes(counts)
            images = seen.counted_images
            return {"loss": tf.reduce_sum(losses * images), "images": tf.reduce_sum(images)}
        return {k: tf.reduce_sum(v, 0) for k, v in counts._asdict().items()}

    def value(self, sums: Sums) -> tf.Tensor:
        if self.per_image:
            return tf.math.divide_no_nan(sums["loss"], sums["images"])
        return self._over_classes(_Counts(**sums))

    def _maps(self, seen: Pixels) -> tuple[tf.Tensor, tf.Tensor]:
        """Probabilities and truth of the classes that take part."""
        first = 0 if self.background else 1
        return seen.p[..., first:], seen.truth[..., first:]

    def _gathered(self, counts: _Counts) -> _Counts:
        return counts

    def _over_classes(self, counts: _Counts) -> tf.Tensor:
        return tf.reduce_mean(self._by_class(counts), -1)

    def _by_class(self, counts: _Counts) -> tf.Tensor:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class SoftDice(_Overlap):
    """1 - (2 sum pg + s) / (sum p + sum g + s), the mean over classes."""

    def _by_class(self, counts: _Counts) -> tf.Tensor:
        wrong = counts.excess + counts.missed
        return tf.math.divide_no_nan(wrong, 2.0 * counts.hits + wrong + self.smooth)


@dataclasses.dataclass(frozen=True)
class Jaccard(_Overlap):
    """1 - (sum pg + s) / (sum p + sum g - sum pg + s), the mean over classes."""

    def _by_class(self, counts: _Counts) -> tf.Tensor:
        wrong = counts.excess + counts.missed
        return tf.math.divide_no_nan(wrong, counts.hits + wrong + self.smooth)


@dataclasses.dataclass(frozen=True)
class Tversky(_Overlap):
    """1 - (TP + s) / (TP + a FP + b FN + s), the mean over classes (Salehi et al. 2017).

    a = false_positives and b = false_negatives. The paper's alpha is a, as MONAI's; other libraries
    swap the two, so that here they have names. With both 0.5 it is soft Dice with twice the s.
    """

    false_positives: float = knob(0.3, "What a false positive costs.", minimum=0)
    false_negatives: float = knob(0.7, "What a false negative costs.", minimum=0)

    def _by_class(self, counts: _Counts) -> tf.Tensor:
        wrong = self.false_positives * counts.excess + self.false_negatives * counts.missed
        return tf.math.divide_no_nan(wrong, counts.hits + wrong + self.smooth)


@dataclasses.dataclass(frozen=True)
class FocalTversky(Tversky):
    """(1 - Tversky index)^(1 / gamma), the mean over classes (Abraham and Khan 2019).

    As in the paper, gamma above 1 holds on to classes that are found already.
    """

    gamma: float = knob(4 / 3, "Inverse of the exponent.", minimum=0.01)

    def _by_class(self, counts: _Counts) -> tf.Tensor:
        loss = super()._by_class(counts)
        # The slope of a root is infinite at 0, and infinite times 0 is no number.
        perfect = loss <= 0
        return tf.where(
            perfect, tf.zeros_like(loss), tf.where(perfect, 1.0, loss) ** (1 / self.gamma)
        )


@dataclasses.dataclass(frozen=True)
class GeneralizedDice(_Overlap):
    """1 - (2 sum_c w_c sum pg + s) / (sum_c w_c (sum p + sum g) + s), w_c = 1 / (sum g)^2.

    Sudre et al. 2017. The weights are those of the global batch, or of the image, multiplied by a
    common factor so that the smallest class has 1; hence s is in its pixels. An absent class has
    the largest weight of the others, as in MONAI. The background takes part, as in the paper: its
    weight is small, and without it a batch of background alone has nothing to be weighed by.
    """

    background: bool = knob(True, "Let class 0 take part.")

    def _over_classes(self, counts: _Counts) -> tf.Tensor:
        present = counts.truth > 0
        largest = counts.truth.dtype.max
        smallest = tf.reduce_min(tf.where(present, counts.truth, largest), -1, keepdims=True)
        share = tf.where(present, smallest / tf.maximum(counts.truth, 1.0), 1.0)
        weights = tf.stop_gradient(share**2)
        wrong = tf.reduce_sum(weights * (counts.excess + counts.missed), -1)
        hits = tf.reduce_sum(weights * counts.hits, -1)
        return tf.math.divide_no_nan(wrong, 2.0 * hits + wrong + self.smooth)


@dataclasses.dataclass(frozen=True)
class Lovasz:
    """Lovász-softmax (Berman et al. 2018): the Jaccard loss, extended to probabilities.

    The errors |g - p| of a class are sorted, largest first; each is multiplied by what its pixel,
    counted as wrong after all before it, adds to the Jaccard loss 1 - I / U. Sorting the global
    batch is no sum, so each image is sorted by itself: the mean over images of the mean over the
    classes that are present in the image's truth. Images in which no class is present that takes
    part are left out.
    """

    background: bool = knob(
        True, "Let class 0 take part; without it, images of background alone teach nothing."
    )

    def __post_init__(self) -> None:
        check(self)

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        seen = pixels(logits, labels)
        first = 0 if self.background else 1
        p, g = (_by_class_in_rows(x[..., first:]) for x in (seen.p, seen.truth))
        # 0 at pixels that do not count, which so come last, where they stand in nobody's way.
        errors = tf.abs(g - p)
        order = tf.argsort(errors, direction="DESCENDING")
        errors, wanted = (tf.gather(x, order, batch_dims=2) for x in (errors, g))
        size = tf.reduce_sum(g, -1, keepdims=True)
        both = size - tf.cumsum(wanted, -1)
        either = size + tf.cumsum(1.0 - wanted, -1)
        # I / U - I / (U + 1) for a pixel outside the class, 1 / U for one in it: without the
        # cancellation of subtracting one Jaccard loss from the next.
        outside = tf.math.divide_no_nan(both, either * (either - 1.0))
        steps = tf.where(wanted > 0, tf.math.reciprocal_no_nan(either), outside)
        losses = tf.reduce_sum(errors * steps, -1)
        present = tf.cast(size[..., 0] > 0, p.dtype)
        number = tf.reduce_sum(present, -1)
        by_image = tf.math.divide_no_nan(tf.reduce_sum(losses * present, -1), number)
        images = tf.cast(number > 0, p.dtype)
        return {"loss": tf.reduce_sum(by_image), "images": tf.reduce_sum(images)}

    def value(self, sums: Sums) -> tf.Tensor:
        return tf.math.divide_no_nan(sums["loss"], sums["images"])


def _by_class_in_rows(maps: tf.Tensor) -> tf.Tensor:
    """[B, H, W, K] to [B, K, H W]."""
    shape = tf.shape(maps)
    return tf.transpose(tf.reshape(maps, [shape[0], shape[1] * shape[2], shape[3]]), [0, 2, 1])
