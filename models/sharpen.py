"""The fixed sharpening of Sharp U-Net's skips, as a layer."""

from __future__ import annotations

from typing import Any

import keras

LAPLACIAN = ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1))


@keras.saving.register_keras_serializable(package="flexseg")
class Sharpen(keras.layers.Layer):
    """Convolves every channel with the 3 x 3 Laplacian, 8 in the middle and -1 around.

    Outside the image are zeros. The kernel is a weight of the network, as in the original, but
    never a trainable one: not even where all of a network is set to be trainable.
    """

    def build(self, input_shape: Any) -> None:
        self.laplacian = self.add_weight(
            name="laplacian",
            shape=(3, 3, input_shape[-1], 1),
            initializer=_laplacian,
            trainable=False,
        )
        self.built = True

    def call(self, x: Any) -> Any:
        return keras.ops.depthwise_conv(x, self.laplacian, strides=1, padding="same")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def _laplacian(shape: tuple[int, ...], dtype: Any = None) -> Any:
    kernel = keras.ops.reshape(keras.ops.convert_to_tensor(LAPLACIAN, dtype), (3, 3, 1, 1))
    return keras.ops.broadcast_to(kernel, shape)
