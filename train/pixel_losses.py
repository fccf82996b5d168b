"""Losses that are means over pixels: cross entropy, binary cross entropy, focal."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from flexseg_errors import FlexsegError
from models.knobs import check, knob
from train.loss_contract import Pixels, Sums, pixels


@dataclasses.dataclass(frozen=True)
class _PixelMean:
    """Sum w_y l / sum w_y over the pixels that count; w_y is the weight of a pixel's true class.

    Attributes:
      class_weights: one for each class; () weighs all the same.
    """

    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check(self)

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        seen = pixels(logits, labels)
        weights = self._weights(seen)
        by_pixel = tf.gather(weights, seen.ids) * seen.mask
        return {
            "loss": tf.reduce_sum(self._losses(seen, weights, by_pixel)),
            "weight": tf.reduce_sum(by_pixel),
        }

    def value(self, sums: Sums) -> tf.Tensor:
        return tf.math.divide_no_nan(sums["loss"], sums["weight"])

    def _losses(self, seen: Pixels, weights: tf.Tensor, by_pixel: tf.Tensor) -> tf.Tensor:
        """Weighted losses [B, H, W] from class weights [K] and the weight of each pixel."""
        raise NotImplementedError

    def _weights(self, seen: Pixels) -> tf.Tensor:
        weights = self.class_weights or (1.0,) * seen.num_classes
        if len(weights) != seen.num_classes:
            raise FlexsegError(f"{len(weights)} class weights for {seen.num_classes} classes.")
        return tf.constant(weights, seen.log_p.dtype)


@dataclasses.dataclass(frozen=True)
class CrossEntropy(_PixelMean):
    """Mean of -log p_y; with a sigmoid head this is binary cross entropy.

    With label smoothing s it is the mean of (1 - s) w_y (-log p_y) + s / K sum_c w_c (-log p_c),
    over sum w_y as ever, which is PyTorch's definition.
    """

    smoothing: float = knob(
        0.0, "Share of each label that is spread over all classes.", minimum=0, below=1
    )

    def _losses(self, seen: Pixels, weights: tf.Tensor, by_pixel: tf.Tensor) -> tf.Tensor:
        sharp = -tf.gather(seen.log_p, seen.ids, batch_dims=3) * by_pixel
        if not self.smoothing:
            return sharp
        spread = -tf.reduce_mean(seen.log_p * weights, -1) * seen.mask
        return (1.0 - self.smoothing) * sharp + self.smoothing * spread


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy(_PixelMean):
    """Mean over pixels and classes of -g log p - (1 - g) log(1 - p), each class against the rest.

    With one logit both classes give the same, so it is cross entropy. With K logits, p are the
    softmax probabilities, since those are what the network is used by.
    """

    def _losses(self, seen: Pixels, weights: tf.Tensor, by_pixel: tf.Tensor) -> tf.Tensor:
        own = tf.one_hot(seen.ids, seen.num_classes, on_value=True, off_value=False)
        chosen = tf.where(own, seen.log_p, log_complements(seen.log_p))
        return -tf.reduce_mean(chosen, -1) * by_pixel


@dataclasses.dataclass(frozen=True)
class Focal(_PixelMean):
    """Mean of -(1 - p_y)^gamma log p_y (Lin et al. 2017), which is cross entropy for gamma = 0.

    The paper's alpha is a class weight; here that is train.class_weights.
    """

    gamma: float = knob(2.0, "How much less a pixel counts that is right already.", minimum=0)

    def _losses(self, seen: Pixels, weights: tf.Tensor, by_pixel: tf.Tensor) -> tf.Tensor:
        log_p = tf.gather(seen.log_p, seen.ids, batch_dims=3)
        log_rest = tf.gather(log_complements(seen.log_p), seen.ids, batch_dims=3)
        # By way of the logarithm, the gradient is bounded for any gamma; that of a power is not.
        return -tf.exp(self.gamma * log_rest) * log_p * by_pixel


def log_complements(log_p: tf.Tensor) -> tf.Tensor:
    """log(1 - p) from log p [..., K], exact also where p is 1 to the last bit.

    For the most probable class it is the logarithm of the sum of the others, and for these, which
    are at most 1/2, log1p(-p).
    """
    top = tf.one_hot(tf.argmax(log_p, -1), log_p.shape[-1], on_value=True, off_value=False)
    lowest = tf.constant(log_p.dtype.min, log_p.dtype)
    others = tf.where(top, lowest, log_p)  # exp of it is 0 for the most probable
    return tf.where(
        top, tf.reduce_logsumexp(others, -1, keepdims=True), tf.math.log1p(-tf.exp(others))
    )
