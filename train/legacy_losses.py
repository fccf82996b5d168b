"""The losses of older projects, under their names and by their formulas, for comparison alone.

They look at channels as those projects did: with one logit, at the foreground's probability alone;
with K logits, at all K, background included, so that the background outweighs all else. Sums run
over the global batch. Cross entropies are taken from logits and so are not cut off at a probability
of 1e-7, as Keras cuts those that it takes from probabilities.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from train.loss_contract import Loss, Pixels, WeightedSum
from train.overlap_losses import Jaccard, SoftDice, _Counts
from train.pixel_losses import BinaryCrossEntropy, CrossEntropy
from train.shape_losses import StructuralSimilarity


def categorical_crossentropy() -> Loss:
    """Mean over pixels of -sum_c t_c log p_c."""
    return CrossEntropy()


def binary_crossentropy() -> Loss:
    """Mean over pixels and channels of -t log p - (1 - t) log(1 - p)."""
    return BinaryCrossEntropy()


def dice_loss() -> Loss:
    """1 - (2 sum tp + 1) / (sum t + sum p + 1) over batch, pixels and channels at once."""
    return _FlatDice(smooth=1.0)


def dice_loss_multiclass() -> Loss:
    """The same for each image by itself, and the mean over images."""
    return _FlatDice(smooth=1.0, per_image=True)


def iou_loss() -> Loss:
    """1 - sum tp / sum(t + p - tp) over batch, pixels and channels at once; 0 for 0 / 0."""
    return _FlatJaccard(smooth=0.0)


def bce_dice_loss() -> Loss:
    """(BCE + dice_loss) / 2."""
    return _mean(binary_crossentropy=binary_crossentropy(), dice_loss=dice_loss())


def bce_iou_loss() -> Loss:
    """(BCE + iou_loss) / 2."""
    return _mean(binary_crossentropy=binary_crossentropy(), iou_loss=iou_loss())


def basnet_hybrid_loss() -> Loss:
    """(BCE + (1 - SSIM) + iou_loss) / 3, SSIM being the mean over channels (Qin et al. 2019)."""
    return _mean(
        binary_crossentropy=binary_crossentropy(),
        ssim=_ChannelSimilarity(),
        iou_loss=iou_loss(),
    )


def _channels(seen: Pixels) -> tuple[tf.Tensor, tf.Tensor]:
    first = 1 if seen.sigmoid else 0
    return seen.p[..., first:], seen.truth[..., first:]


def _in_one(counts: _Counts) -> _Counts:
    return _Counts(*(tf.reduce_sum(x, -1, keepdims=True) for x in counts))


@dataclasses.dataclass(frozen=True)
class _FlatDice(SoftDice):
    """Soft Dice with all channels in one pool."""

    def _maps(self, seen: Pixels) -> tuple[tf.Tensor, tf.Tensor]:
        return _channels(seen)

    def _gathered(self, counts: _Counts) -> _Counts:
        return _in_one(counts)


@dataclasses.dataclass(frozen=True)
class _FlatJaccard(Jaccard):
    """Soft Jaccard with all channels in one pool."""

    def _maps(self, seen: Pixels) -> tuple[tf.Tensor, tf.Tensor]:
        return _channels(seen)

    def _gathered(self, counts: _Counts) -> _Counts:
        return _in_one(counts)


@dataclasses.dataclass(frozen=True)
class _ChannelSimilarity(StructuralSimilarity):
    def _maps(self, seen: Pixels) -> tuple[tf.Tensor, tf.Tensor]:
        return _channels(seen)


def _mean(**terms: Loss) -> WeightedSum:
    return WeightedSum(tuple((1 / len(terms), name, loss) for name, loss in terms.items()))
