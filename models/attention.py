"""What the networks with attention share: attention over maps and windows, patches, positions.

Everything works on maps [B, H, W, C] instead of sequences, with height and width known or not.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from models import layers

ops = keras.ops


def dense(units: int, *, bias: bool = True, seed: int, name: str) -> keras.layers.Dense:
    """A linear layer over the channels; weights as in ViT: normal, deviation 0.02, cut at two."""
    return keras.layers.Dense(
        units,
        use_bias=bias,
        kernel_initializer=keras.initializers.TruncatedNormal(
            stddev=0.02, seed=layers.layer_seed(seed, name)
        ),
        name=name,
    )


def layer_norm(
    *, epsilon: float = 1e-6, center: bool = True, name: str
) -> keras.layers.LayerNormalization:
    """Layer normalization over the channels (Ba et al. 2016, arXiv:1607.06450).

    `center` gives it an offset, of use unless all that follows takes constants away.
    """
    return keras.layers.LayerNormalization(epsilon=epsilon, center=center, name=name)


def attend(queries: Any, keys: Any, values: Any, heads: int, bias: Any | None = None) -> Any:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762).

    softmax(q k^T / sqrt(d) + bias) v for each head, d = C / heads; the softmax in float32.

    Args:
      queries: [..., Q, C].
      keys: [..., K, C].
      values: [..., K, C].
      heads: how many parts the channels are cut into.
      bias: float32, what broadcasts to [..., heads, Q, K]; None for none.

    Returns:
      [..., Q, C].
    """
    width = queries.shape[-1] // heads

    def split(x: Any) -> Any:
        return ops.reshape(x, (*ops.shape(x)[:-1], heads, width))

    scores = ops.einsum("...qhd,...khd->...hqk", split(queries) * width**-0.5, split(keys))
    scores = ops.cast(scores, "float32")
    shares = ops.softmax(scores if bias is None else scores + bias, axis=-1)
    mixed = ops.einsum("...hqk,...khd->...qhd", ops.cast(shares, values.dtype), split(values))
    return ops.reshape(mixed, ops.shape(queries))


def _build_projections(layer: Any, width: int) -> None:
    """Gives a layer that has a seed its `query`, `key`, `value` and `projection`."""
    seed = layers.layer_seed(layer.seed, layer.name)
    for part in ("query", "key", "value", "projection"):
        projection = dense(width, bias=part != "key", seed=seed, name=part)
        projection.dtype_policy = layer.dtype_policy
        setattr(layer, part, projection)
        projection.build((None, None, width))


@keras.saving.register_keras_serializable(package="flexseg")
class MapAttention(keras.layers.Layer):
    """Attention of every pixel of a map to every pixel of another, with a projection behind it.

    Keys have no bias: it would add the same to all scores of a query, which the softmax cancels.
    Called on [queries [B, H, W, C], keys [B, h, w, C]]; returns [B, H, W, C].

    Args:
      heads: divides the channels.
      seed: the network's.
      **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, heads: int, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        _build_projections(self, input_shape[0][-1])

    def call(self, inputs: Any) -> Any:
        queries, keys = (
            ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1] * ops.shape(x)[2], x.shape[-1]))
            for x in inputs
        )
        mixed = attend(self.query(queries), self.key(keys), self.value(keys), self.heads)
        return ops.reshape(self.projection(mixed), ops.shape(inputs[0]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "seed": self.seed}


def partition(x: Any, window: int) -> Any:
    """Cuts maps into windows: [B, n W, m W, C] -> [B, n m, W W, C], row by row."""
    batch, height, width, channels = ops.shape(x)
    rows, columns = height // window, width // window
    x = ops.reshape(x, (batch, rows, window, columns, window, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (batch, rows * columns, window**2, channels))


def join(windows: Any, size: tuple[Any, Any], window: int) -> Any:
    """The inverse of `partition`: puts windows [B, n m, W W, C] back into maps of that size."""
    rows, columns = size[0] // window, size[1] // window
    batch, channels = ops.shape(windows)[0], windows.shape[-1]
    x = ops.reshape(windows, (batch, rows, columns, window, window, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (batch, *size, channels))


@keras.saving.register_keras_serializable(package="flexseg")
class WindowAttention(keras.layers.Layer):
    """Attention within windows, with learned biases by relative position, and a projection.

    After Z. Liu et al.: Swin Transformer, ICCV 2021 (arXiv:2103.14030). Shifted windows begin
    `shift` pixels earlier than the map's first window ends, so that those at its edges are cut; the
    paper's cyclic roll with masks computes the same, with fewer windows but for one size in many.
    Where windows reach over the edge, nothing attends to what lies beyond it. Along a side that one
    window covers there is no shift.

    Args:
      heads: divides the channels.
      window: side of the windows, in pixels of the map.
      shift: by how much the windows are moved, in 0 .. window - 1.
      seed: the network's.
      **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self, heads: int, window: int, shift: int = 0, *, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.window = window
        self.shift = shift
        self.seed = seed
        y, x = np.divmod(np.arange(window**2), window)
        # From window pixels (query, key) to rows of the table, one for each offset.
        self._offsets = (y[:, None] - y + window - 1) * (2 * window - 1) + (
            x[:, None] - x + window - 1
        )

    def build(self, input_shape: Any) -> None:
        _build_projections(self, input_shape[-1])
        seed = layers.layer_seed(self.seed, self.name)
        self.position_biases = self.add_weight(
            name="position_biases",
            shape=(2 * self.window - 1, 2 * self.window - 1, self.heads),
            initializer=keras.initializers.TruncatedNormal(
                stddev=0.02, seed=layers.layer_seed(seed, "position_biases")
            ),
            autocast=False,
        )

    def call(self, x: Any) -> Any:
        height, width = ops.shape(x)[1:3]
        top, bottom = self._margins(height)
        left, right = self._margins(width)
        margins = [[0, 0], [top, bottom], [left, right], [0, 0]]
        inside = ops.pad(ops.ones((1, height, width, 1), "float32"), margins)
        inside = ops.transpose(partition(inside, self.window), (0, 1, 3, 2))  # [1, n, 1, K]
        # By way of the reshaping the gradient is a tensor, not a list of slices.
        biases = ops.reshape(self.position_biases, (-1, self.heads))
        biases = ops.take(biases, self._offsets, axis=0)  # [Q, K, heads]
        biases = ops.cast(ops.transpose(biases, (2, 0, 1)), "float32")
        # [1, n, heads, Q, K]; so low that its share is 0, whatever the scores.
        biases = biases + (inside[:, :, None] - 1) * 1e9
        queries, keys, values = (
            partition(ops.pad(part(x), margins), self.window)
            for part in (self.query, self.key, self.value)
        )
        windows = attend(queries, keys, values, self.heads, biases)
        mixed = join(windows, (top + height + bottom, left + width + right), self.window)
        return self.projection(mixed[:, top : top + height, left : left + width])

    def _margins(self, length: Any) -> tuple[Any, Any]:
        """What lies before and behind a side of that length, to whole windows."""
        before: Any = (self.window - self.shift) % self.window
        if isinstance(length, int):
            before = before if length > self.window else 0
        else:
            before = ops.where(length > self.window, before, 0)
        return before, -(length + before) % self.window

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"heads": self.heads, "window": self.window, "shift": self.shift, "seed": self.seed}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="flexseg")
class SpaceToDepth(keras.layers.Layer):
    """Puts every `factor` x `factor` pixels into one: [B, H, W, C] -> [B, H / f, W / f, f f C].

    Args:
      factor: divides height and width.
      **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        size, factor = (height // self.factor, width // self.factor), self.factor
        x = ops.reshape(x, (batch, size[0], factor, size[1], factor, channels))
        return ops.reshape(
            ops.transpose(x, (0, 1, 3, 2, 4, 5)), (batch, *size, factor**2 * channels)
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *size, channels = input_shape
        size = [side if side is None else side // self.factor for side in size]
        return (batch, *size, channels * self.factor**2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="flexseg")
class DepthToSpace(keras.layers.Layer):
    """The inverse of `SpaceToDepth`: [B, H, W, f f C] -> [B, f H, f W, C].

    Args:
      factor: by which height and width grow.
      **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        batch, height, width, _ = ops.shape(x)
        factor, channels = self.factor, x.shape[-1] // self.factor**2
        x = ops.reshape(x, (batch, height, width, factor, factor, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (batch, height * factor, width * factor, channels))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *size, channels = input_shape
        size = [side if side is None else side * self.factor for side in size]
        return (batch, *size, channels // self.factor**2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="flexseg")
class Positions(keras.layers.Layer):
    """Adds a learned map of positions, which is stretched bilinearly to the size of the input.

    Args:
      grid: height and width of what is learned, in pixels of the map.
      seed: the network's.
      **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, grid: int, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = grid
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        self.positions = self.add_weight(
            name="positions",
            shape=(self.grid, self.grid, input_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(
                stddev=0.02, seed=layers.layer_seed(self.seed, self.name)
            ),
            autocast=False,
        )

    def call(self, x: Any) -> Any:
        height, width = ops.shape(x)[1:3]
        rows, columns = _stretching(self.grid, height), _stretching(self.grid, width)
        stretched = ops.einsum("yi,ijc,xj->yxc", rows, self.positions, columns)
        return x + ops.cast(stretched, x.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid": self.grid, "seed": self.seed}


def _stretching(length: int, target: Any) -> Any:
    """The matrix [target, length] of linear interpolation between pixels' centers."""
    places = (ops.cast(ops.arange(target), "float32") + 0.5) * (
        length / ops.cast(target, "float32")
    ) - 0.5
    places = ops.clip(places, 0, length - 1)
    distances = ops.abs(places[:, None] - ops.cast(ops.arange(length), "float32"))
    return ops.maximum(1 - distances, 0)
