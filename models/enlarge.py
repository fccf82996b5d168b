"""Bilinear enlargement by a whole factor that also works where sizes are unknown."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="flexseg")
class Enlarge(keras.layers.Layer):
    """Bilinear interpolation to `factor` times the size, between pixels' centers.

    As `keras.layers.UpSampling2D`, which cannot be traced into a graph while height and width are
    unknown: there the same sum of neighbours is written out. Beyond the edge the edge goes on.

    Args:
      factor: how many times as high and wide the result is.
      **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        if None in x.shape[1:3]:
            return _stretched(_stretched(x, 1, self.factor), 2, self.factor)
        size = (x.shape[1] * self.factor, x.shape[2] * self.factor)
        return keras.ops.image.resize(x, size, "bilinear", data_format="channels_last")

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, height, width, channels = input_shape
        sides = [None if side is None else side * self.factor for side in (height, width)]
        return (batch, *sides, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


def _stretched(x: Any, axis: int, factor: int) -> Any:
    """`x` [B, H, W, C], `factor` times as long along axis 1 or 2."""
    ops = keras.ops

    def part(start: int | None, stop: int | None) -> Any:
        return x[:, start:stop] if axis == 1 else x[:, :, start:stop]

    before = ops.concatenate([part(None, 1), part(None, -1)], axis)
    after = ops.concatenate([part(1, None), part(-1, None)], axis)
    parts = []
    for index in range(factor):
        place = (index + 0.5) / factor - 0.5  # of the new pixel's center, from the old one's
        neighbour, share = (before, -place) if place < 0 else (after, place)
        parts.append(x * (1 - share) + neighbour * share)
    shape = list(ops.shape(x))
    shape[axis] = shape[axis] * factor
    return ops.reshape(ops.stack(parts, axis + 1), shape)
