"""Losses, each in two halves: sums over pixels, and a value made of the sums.

Sums may be added over replicas and over batches before the value is taken. So a loss on two
replicas is the loss on one with the whole batch, and a validation loss is that of the whole split,
however it was cut into batches.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Protocol

import tensorflow as tf

from flexseg_errors import FlexsegError, nearest

Sums = dict[str, tf.Tensor]


class Loss(Protocol):
    """What every loss can do."""

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        """Sums over what is there.

        Args:
          logits: float32 [B, H, W, K], or [B, H, W, 1] for a sigmoid head.
          labels: class ids, uint8 [B, H, W]; ids outside the classes are left out.

        Returns:
          Name -> float32 tensor; the keys and shapes do not depend on the batch.
        """

    def value(self, sums: Sums) -> tf.Tensor:
        """The loss, a float32 scalar, from sums that may have been added up."""


def log_probabilities(logits: tf.Tensor) -> tf.Tensor:
    """Logits [..., K] or [..., 1] to log probabilities of the classes, [..., K] or [..., 2].

    A single logit z is that of class 1: log p = (log sigmoid(-z), log sigmoid(z)).
    """
    if logits.shape[-1] == 1:
        return tf.math.log_sigmoid(tf.concat([-logits, logits], -1))
    return tf.nn.log_softmax(logits)


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Mean over pixels of -log p[label]; with a sigmoid head this is binary cross-entropy."""

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        log_p = log_probabilities(logits)
        valid, ids = _valid(labels, log_p.shape[-1])
        picked = tf.gather(log_p, ids, batch_dims=3)
        return {
            "surprise": -tf.reduce_sum(tf.where(valid, picked, 0.0)),
            "pixels": tf.reduce_sum(tf.cast(valid, tf.float32)),
        }

    def value(self, sums: Sums) -> tf.Tensor:
        return tf.math.divide_no_nan(sums["surprise"], sums["pixels"])


@dataclasses.dataclass(frozen=True)
class SoftDice:
    """One minus the mean over foreground classes of (2 sum pg + s) / (sum p + sum g + s).

    p are probabilities, g the truth as 0 and 1; the sums run over the whole global batch, which is
    steadier than image by image where many images lack a class (nnU-Net's batch Dice, Isensee et
    al. 2021). The background is left out.

    Attributes:
      smooth: s, in pixels. Keeps the gradient bounded for a class that is absent from the batch.
    """

    smooth: float = 1.0

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        log_p = log_probabilities(logits)
        num_classes = log_p.shape[-1]
        valid, ids = _valid(labels, num_classes)
        mask = tf.cast(valid, tf.float32)[..., None]
        probability = tf.exp(log_p) * mask
        truth = tf.one_hot(ids, num_classes) * mask
        axes = [0, 1, 2]
        return {
            "both": tf.reduce_sum(probability * truth, axes)[1:],
            "either": tf.reduce_sum(probability + truth, axes)[1:],
        }

    def value(self, sums: Sums) -> tf.Tensor:
        dice = (2.0 * sums["both"] + self.smooth) / (sums["either"] + self.smooth)
        return 1.0 - tf.reduce_mean(dice)


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """A sum of losses, each with its weight."""

    terms: tuple[tuple[float, str, Loss], ...]

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        return {
            f"{name}/{key}": value
            for _, name, loss in self.terms
            for key, value in loss.sums(logits, labels).items()
        }

    def value(self, sums: Sums) -> tf.Tensor:
        total = tf.constant(0.0)
        for weight, name, loss in self.terms:
            own = {k.partition("/")[2]: v for k, v in sums.items() if k.partition("/")[0] == name}
            total += weight * loss.value(own)
        return total


LOSSES: dict[str, type[Loss]] = {"ce": CrossEntropy, "dice": SoftDice}


def parse(text: str) -> WeightedSum:
    """Reads a sum of losses such as "ce+dice" or "0.5*ce+0.5*dice".

    Raises:
      FlexsegError: naming the term that cannot be read and the known losses.
    """
    terms: list[tuple[float, str, Loss]] = []
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.eE-]+)\s*\*\s*)?([a-z_0-9]+)\s*", part)
        name = match.group(2) if match else part.strip()
        if not match or name not in LOSSES:
            raise FlexsegError(
                f'train.loss "{text}": "{part.strip()}" is not a loss; known are '
                f"{', '.join(LOSSES)}, with weights such as 0.5*ce+0.5*dice."
                + nearest(name, LOSSES)
            )
        try:
            weight = float(match.group(1) or 1.0)
        except ValueError:
            weight = 0.0
        if weight <= 0:
            raise FlexsegError(
                f'train.loss "{text}": "{match.group(1)}" is not a weight; expected a number '
                "above 0."
            )
        if name in (known for _, known, _ in terms):
            raise FlexsegError(f'train.loss "{text}" names {name} twice.')
        terms.append((weight, name, LOSSES[name]()))
    return WeightedSum(tuple(terms))


def _valid(labels: tf.Tensor, num_classes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Which pixels count, bool [B, H, W], and ids that are safe to look up, int32."""
    ids = tf.cast(labels, tf.int32)
    valid = ids < num_classes
    return valid, tf.where(valid, ids, 0)
