"""Networks with several outputs, of which the first is the one that counts in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from flexseg_errors import FlexsegError
from train.loss_contract import Loss, Sums, numbered, part_of


def main_logits(outputs: tf.Tensor | Sequence[tf.Tensor]) -> tf.Tensor:
    """The logits that predictions are made of: the first of several, or the only ones."""
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def weights_of_outputs(count: int, given: Sequence[float] = ()) -> tuple[float, ...]:
    """The weight of each output's loss: 2^-i for output i, as in nnU-Net, unless given.

    Raises:
      FlexsegError: as many are given as there are no outputs, or none is above 0.
    """
    if not given:
        return tuple(2.0**-i for i in range(count))
    if len(given) != count:
        raise FlexsegError(
            f"train.deep_supervision_weights has {len(given)} values, but the network has {count} "
            f"output{'s' if count > 1 else ''}; give one for each, the main output's first."
        )
    if not sum(given) > 0:
        raise FlexsegError("train.deep_supervision_weights must have a value above 0.")
    return tuple(given)


@dataclasses.dataclass(frozen=True)
class DeepSupervision:
    """sum_i w_i loss(outputs_i) / sum_i w_i, every output having the size of the labels.

    Attributes:
      loss: the loss of each output.
      weights: w, one for each output, the main one first.
    """

    loss: Loss
    weights: tuple[float, ...]

    def sums(self, outputs: Sequence[tf.Tensor], labels: tf.Tensor) -> Sums:
        """The sums of every output's loss, from logits [B, H, W, K] each and labels [B, H, W]."""
        if len(outputs) != len(self.weights):
            raise ValueError(f"{len(outputs)} outputs for {len(self.weights)} weights.")
        return numbered([self.loss.sums(logits, labels) for logits in outputs])

    def value(self, sums: Sums) -> tf.Tensor:
        parts = [w * self.loss.value(part_of(sums, i)) for i, w in enumerate(self.weights)]
        return tf.add_n(parts) / sum(self.weights)
