"""What every loss is: sums over pixels or images, and a value made of the sums.

Sums may be added over replicas and over batches before the value is taken. So a loss on two
replicas is the loss on one with the whole batch, and a validation loss is that of the whole split,
however it was cut into batches. What is no sum over pixels of the whole batch, such as a measure
that sorts or convolves, is taken image by image, and summed over images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

Sums = dict[str, tf.Tensor]


class Loss(Protocol):
    """What every loss can do."""

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        """Sums over what is there.

        Args:
          logits: float [B, H, W, K], or [B, H, W, 1] for a sigmoid head.
          labels: class ids, integers [B, H, W]; ids outside the classes are left out.

        Returns:
          Name -> float32 tensor; the keys and shapes do not depend on the batch. float64 where the
          logits are.
        """

    def value(self, sums: Sums) -> tf.Tensor:
        """The loss, a scalar, from sums that may have been added up; 0 where nothing counts."""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Prediction and truth side by side, the same for every loss; K classes, two for one logit.

    Attributes:
      log_p: log probabilities, float32 [B, H, W, K]. At pixels that do not count those of equal
        odds, whatever the logits are, and without gradient.
      ids: class ids, int32 [B, H, W]; 0 at pixels that do not count.
      valid: which pixels count, bool [B, H, W].
      sigmoid: whether there was one logit.
    """

    log_p: tf.Tensor
    ids: tf.Tensor
    valid: tf.Tensor
    sigmoid: bool

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.log_p.shape[-1])

    @property
    def mask(self) -> tf.Tensor:
        """1 at pixels that count, else 0: [B, H, W], float."""
        return tf.cast(self.valid, self.log_p.dtype)

    @property
    def p(self) -> tf.Tensor:
        """Probabilities [B, H, W, K]; 0 at pixels that do not count."""
        return tf.exp(self.log_p) * self.mask[..., None]

    @property
    def truth(self) -> tf.Tensor:
        """1 for the class of a pixel, else 0: [B, H, W, K]; 0 at pixels that do not count."""
        dtype = self.log_p.dtype
        return tf.one_hot(self.ids, self.num_classes, dtype=dtype) * self.mask[..., None]

    @property
    def counted_images(self) -> tf.Tensor:
        """1 for images of which any pixel counts, else 0: [B], float."""
        return tf.cast(tf.reduce_any(self.valid, [1, 2]), self.log_p.dtype)


def pixels(logits: tf.Tensor, labels: tf.Tensor) -> Pixels:
    """Brings logits [B, H, W, K or 1] and labels [B, H, W] to what losses work on.

    A single logit z is that of class 1: log p = (log sigmoid(-z), log sigmoid(z)). Everything is
    computed in float32 at least, so that float16 logits, extreme ones too, give finite values.
    """
    logits = tf.convert_to_tensor(logits)
    logits = logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)
    sigmoid = logits.shape[-1] == 1
    ids = tf.cast(labels, tf.int32)
    valid = (ids >= 0) & (ids < (2 if sigmoid else logits.shape[-1]))
    # Before anything else, so that no loss can look under ignored pixels or send a gradient there.
    logits = tf.where(valid[..., None], logits, tf.zeros([], logits.dtype))
    if sigmoid:
        log_p = tf.math.log_sigmoid(tf.concat([-logits, logits], -1))
    else:
        log_p = tf.nn.log_softmax(logits)
    return Pixels(log_p, tf.where(valid, ids, 0), valid, sigmoid)


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """A sum of losses, each with its weight and the name it was asked for by."""

    terms: tuple[tuple[float, str, Loss], ...]

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> Sums:
        return numbered([loss.sums(logits, labels) for *_, loss in self.terms])

    def value(self, sums: Sums) -> tf.Tensor:
        parts = [
            weight * loss.value(part_of(sums, i)) for i, (weight, _, loss) in enumerate(self.terms)
        ]
        return tf.add_n(parts)


def numbered(parts: Sequence[Sums]) -> Sums:
    """Several losses' sums in one dictionary; `part_of` takes them apart."""
    return {f"{i}/{key}": value for i, part in enumerate(parts) for key, value in part.items()}


def part_of(sums: Sums, index: int) -> Sums:
    """The sums of one of several losses."""
    prefix = f"{index}/"
    return {k.removeprefix(prefix): v for k, v in sums.items() if k.startswith(prefix)}
