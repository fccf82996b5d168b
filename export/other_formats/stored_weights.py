"""SavedModels whose weights are kept in fewer bits and widened when they are used.

TensorFlow 2.16 has quantizers of its own in `tf.quantization.experimental`. Weight-only works there
for one fixed input size alone, and through XLA, and a dynamic-range model took twice the time; so
weights are widened in the graph here, which leaves sizes free and needs no operation of its own.
Less is stored and sent; the arithmetic is float32, and so is the memory for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from export.other_formats.formats import Written
from flexseg_errors import FlexsegError
from train.runs import Run

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

FILES = ("fingerprint.pb", "variables", "saved_model.pb")
_LEAST_SIZE = 64  # values: below that nothing is gained
_LARGEST_HALF = 65504.0


def write_float16(trained: Run, model: keras.Model, folder: str) -> Written:
    """A SavedModel with the signatures of the plain one; kernels in float16."""
    return _write(trained, model, folder, _halved, "float16")


def write_int8(trained: Run, model: keras.Model, folder: str) -> Written:
    """The same; kernels in int8 with a scale per channel."""
    return _write(trained, model, folder, _quantized, "int8")


def _write(
    trained: Run, model: keras.Model, folder: str, store: Callable[..., Any], dtype: str
) -> Written:
    import tensorflow as tf

    from export.bundles import signatures, verify_bundle

    segmenter = trained.segmenter(_network(model, store))
    module = signatures.Bundle(segmenter)
    tf.saved_model.save(module, folder, signatures=module.endpoints)
    checks = verify_bundle.check(tf.saved_model.load(folder).signatures, segmenter)
    failed = [c for c in checks if not c.passed]
    if failed:
        raise FlexsegError(
            f"The SavedModel of {trained.folder} with {dtype} weights differs from what was saved: "
            + "; ".join(map(str, failed))
        )
    described = {"weights": dtype, "signatures": signatures.described(module.endpoints)}
    return Written(segmenter, described)


Store = Callable[[np.ndarray, Any], Any]  # values of a weight, a tf.Module -> how to get them back


def _network(model: keras.Model, store: Store) -> Any:
    """The network with its kernels kept by `store`; stands where the Keras model does."""
    import tensorflow as tf

    class StoredNetwork(tf.Module):
        """Images [B, h, w, C], 0..255, to logits.

        The Keras model lends its layers alone. It is held by a function, not by this module, so
        that its own variables are not saved.
        """

        def __init__(self) -> None:
            super().__init__()
            self.input_shape = model.input_shape
            self.outputs = [tf.TensorSpec(o.shape, tf.float32) for o in model.outputs]
            self.kept: list[tf.Variable] = []
            parts = (model.trainable_variables, model.non_trainable_variables)
            values = [[self._keep(v) for v in part] for part in parts]

            def logits(images: tf.Tensor) -> Any:
                trainable, rest = ([get() for get in part] for part in values)
                return model.stateless_call(trainable, rest, images, training=False)[0]

            self._logits = logits

        def __call__(self, images: tf.Tensor, training: bool = False) -> Any:
            if training:
                raise ValueError("An exported network cannot be trained.")
            return self._logits(images)

        def _keep(self, variable: keras.Variable) -> Callable[[], tf.Tensor]:
            value = variable.numpy()
            if value.dtype != np.float32:  # the state of random numbers, which nothing uses here
                return functools.partial(tf.constant, value)
            is_kernel = value.ndim >= 2 and value.size >= _LEAST_SIZE
            return (store if is_kernel else _whole)(value, self)

    return StoredNetwork()


def _variable(value: np.ndarray, owner: Any) -> tf.Variable:
    import tensorflow as tf

    variable = tf.Variable(value, trainable=False, name=f"weight_{len(owner.kept)}")
    owner.kept.append(variable)
    return variable


def _whole(value: np.ndarray, owner: Any) -> Callable[[], tf.Tensor]:
    return _variable(value, owner).read_value


def _halved(value: np.ndarray, owner: Any) -> Callable[[], tf.Tensor]:
    """As float16: 11 bits, relative error up to 2^-11; left whole where a value is beyond it."""
    import tensorflow as tf

    if np.abs(value).max() > _LARGEST_HALF:
        return _whole(value, owner)
    half = _variable(value.astype(np.float16), owner)
    return lambda: tf.cast(half, tf.float32)


def _quantized(value: np.ndarray, owner: Any) -> Callable[[], tf.Tensor]:
    """As int8 q: w = s q, s = max |w| / 127 for each index of the last axis that has several."""
    import tensorflow as tf

    axis = value.ndim - (1 if value.shape[-1] > 1 else 2)
    others = tuple(a for a in range(value.ndim) if a != axis)
    scale = np.abs(value).max(others, keepdims=True) / np.float32(127)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    stored = _variable(np.round(value / scale).astype(np.int8), owner)
    scales = _variable(scale, owner)
    return lambda: tf.cast(stored, tf.float32) * scales
