"""What a training takes of memory, estimated from the network's shapes alone.

The sum of: weights, their gradients and the optimizer's two moments, all float32, 16 bytes for each
parameter; what the layers put out, which the way back needs, times a factor for gradients and work
space; and what TensorFlow takes before it has seen a network. Factor and base are upper bounds of
what training steps of `flex_unet` took on a CPU: factors 1.1 to 1.3 in float32 and 1.7 to 1.9 in
bfloat16 (of half as many bytes) once activations are most of it, a base of 0.6 to 0.9 GiB.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from train import runs
from train.experiment import ModelConfig

if TYPE_CHECKING:
    from models.describe import Description

BASE = 1 << 30  # bytes
_PARAMETER = 16  # bytes: weight, gradient, two moments
_FACTORS = {"float32": 1.4, "mixed_bfloat16": 2.0, "mixed_float16": 2.0}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a training step on one device, estimated.

    Attributes:
      weights: with their gradients and moments.
      activations: what the layers put out, with gradients and work space.
      base: all else.
    """

    weights: int
    activations: int
    base: int = BASE

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.base


def estimate(description: Description, batch: float, precision: str) -> Memory:
    """The memory of a training step.

    Args:
      description: the network, made by `describe` in that precision, at the examples' size.
      batch: examples on one device.
      precision: a value of train.precision.
    """
    return Memory(
        weights=description.parameters * _PARAMETER,
        activations=int(description.activation_bytes * batch * _FACTORS[precision]),
    )


@functools.lru_cache(maxsize=64)
def describe(
    model: ModelConfig, precision: str, num_classes: int, channels: int, size: tuple[int, int]
) -> Description:
    """The network of an experiment, described without making its weights.

    Args:
      model: architecture, head and knobs.
      precision: a value of train.precision.
      num_classes: of the label map; a sigmoid head has one logit all the same.
      channels: of the images.
      size: (height, width) of the examples, in pixels.

    Raises:
      FlexsegError: a size that the network cannot take.
    """
    from models import describe as description

    outputs = 1 if model.head == "sigmoid" else num_classes
    with runs.precision(precision):
        network = description.abstract(
            model.name, config=model.network, num_classes=outputs, channels=channels
        )
        return description.describe(network, size)
