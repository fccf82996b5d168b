"""How TensorFlow runs the steps: compiled by XLA or not, the same to the bit or not."""

from __future__ import annotations

import keras
import tensorflow as tf

from flexseg_errors import FlexsegError
from train.losses import WeightedSum

# Their distance transforms go on until nothing changes, with shapes that XLA cannot know.
_NOT_COMPILED = ("boundary", "hausdorff")


def wants_xla(wanted: str, strategy: tf.distribute.Strategy, loss: WeightedSum) -> bool:
    """Whether to compile the step, from train.jit_compile.

    "auto" does on a single GPU. On a CPU, oneDNN's convolutions are faster than XLA's.

    Raises:
      FlexsegError: where it is "always" but cannot be: under several replicas, as a compiled
        function cannot reach the variables and sums of other devices, or with some losses.
    """
    if wanted == "never":
        return False
    replicas, loss_names = strategy.num_replicas_in_sync, [name for _, name, _ in loss.terms]
    impossible = [name for name in loss_names if name in _NOT_COMPILED]
    if wanted == "auto":
        alone = replicas == 1 and not impossible
        return alone and bool(tf.config.list_logical_devices("GPU"))
    if replicas > 1:
        raise FlexsegError(
            f"train.jit_compile=always works on one device, but there are {replicas} replicas: XLA "
            "cannot compile a step that sums over them. Set train.jit_compile=auto, or "
            "distribute.strategy=one."
        )
    if impossible:
        raise FlexsegError(
            f"train.jit_compile=always: XLA cannot compile the loss {impossible[0]}, whose shapes "
            "it cannot know beforehand. Set train.jit_compile=auto, or leave that loss out."
        )
    return True


def make_deterministic(seed: int) -> None:
    """From here on, this process computes the same bits each time, on a GPU too, or stops.

    Convolutions then take other algorithms and reductions a fixed order; an operation that has no
    such form raises an error. Everything here is drawn from seeds of its own; the seed is for what
    might not be.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
