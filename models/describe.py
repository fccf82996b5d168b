"""What a network consists of: its layers by level, their shapes, weights, work and memory.

A multiply-add is one product and one sum. They are counted where they are many: convolutions of all
kinds, dense layers and the matrix products of attention. Normalization, activation, pooling and
interpolation are a few operations for each value, and not counted. The tables at the end say which
layers are counted how; a layer of our own that has weights must be among them.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras

from models import attention, layers, registry
from models.sharpen import Sharpen
from models.sizes import check_size

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer of a network, for one image.

    Attributes:
      name: of the layer.
      kind: its class.
      inputs: the names of the layers that it takes its input from.
      level: how often its output's sides are halved; that of its input where it has no sides.
      shape: of its output without the batch, (height, width, channels) mostly.
      parameters: its weights' values, trainable or not.
      multiply_adds: see the module.
      activation_bytes: the size of its output.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    level: int
    shape: Shape
    parameters: int
    multiply_adds: int
    activation_bytes: int


@dataclasses.dataclass(frozen=True)
class Description:
    """A network for images of one size.

    Attributes:
      name: of the model.
      size: (height, width) of the images in pixels.
      rows: its layers, each after those that it takes its input from.
      parameters: the values of all its weights.
      trainable: how many of them training changes.
    """

    name: str
    size: tuple[int, int]
    rows: tuple[LayerRow, ...]
    parameters: int
    trainable: int

    @property
    def multiply_adds(self) -> int:
        """Of one image's way through the network."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """The outputs of all layers for one image together: what a training step keeps at most."""
        return sum(row.activation_bytes for row in self.rows)


def abstract(name: str, **keywords: Any) -> keras.Model:
    """`registry.build`, but the weights are never made: for shapes and counts of large networks."""
    policy = keras.config.dtype_policy()

    def build() -> keras.Model:
        keras.config.set_dtype_policy(policy)
        with keras.StatelessScope(initialize_variables=False):
            return registry.build(name, **keywords)

    # Keras remembers weights that are still to be made, and makes them with the next model's. What
    # it remembers ends with the thread.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as threads:
        return threads.submit(build).result()


def describe(model: keras.Model, size: tuple[int, int]) -> Description:
    """Describes a network for images of a size, whatever size it was built for.

    Args:
      model: a functional model from images [B, H, W, C].
      size: (height, width) of the images in pixels.

    Raises:
      FlexsegError: a size that the network cannot take.
      TypeError: a layer whose multiply-adds are not known, or a network within the network.
    """
    for operation in model.operations:
        if isinstance(operation, layers.SizeCheck):  # which checks values, not shapes
            check_size(size, operation.divisor, operation.minimum)
    shape = (1, *size, model.input_shape[-1])
    rows = tuple(_rows(model, shape, size))
    return Description(
        name=model.name,
        size=size,
        rows=rows,
        parameters=model.count_params(),
        trainable=sum(math.prod(weight.shape) for weight in model.trainable_weights),
    )


def multiply_adds(model: keras.Model, size: tuple[int, int]) -> int:
    """Multiply-adds of one image of that size (height, width); see `describe`."""
    return describe(model, size).multiply_adds


def _rows(model: keras.Model, shape: Shape, size: tuple[int, int]) -> list[LayerRow]:
    nested = [o.name for o in model.operations if isinstance(o, keras.Model)]
    if nested:
        raise TypeError(f"{model.name} holds the network {nested[0]}, which is not looked into.")
    operations = [o for o in model.operations if not isinstance(o, keras.layers.InputLayer)]
    tensors = {id(t): t for o in operations for t in keras.tree.flatten(o.output)}
    specs = keras.Model(model.inputs, list(tensors.values())).compute_output_spec(
        keras.KerasTensor(shape, dtype=model.inputs[0].dtype)
    )
    known = dict(zip(tensors, specs, strict=True))
    sources = {id(t): o.name for o in operations for t in keras.tree.flatten(o.output)}
    levels = {"": 0}
    rows = []
    for operation in operations:
        inputs = [t for t in keras.tree.flatten(operation.input) if id(t) in sources]
        outputs = keras.tree.flatten(operation.output)
        shapes = [known[id(t)].shape if id(t) in known else shape for t in _input(operation)]
        names = tuple(dict.fromkeys(sources[id(t)] for t in inputs))
        output = known[id(outputs[0])]
        inherited = max((levels[name] for name in names), default=0)
        levels[operation.name] = _level(output.shape, size, inherited)
        rows.append(
            LayerRow(
                name=operation.name,
                kind=type(operation).__name__,
                inputs=names,
                level=levels[operation.name],
                shape=tuple(output.shape[1:]),
                parameters=_parameters(operation),
                multiply_adds=_multiply_adds(operation, shapes, output.shape),
                activation_bytes=sum(_bytes(known[id(t)]) for t in outputs),
            )
        )
    return rows


def _input(operation: Any) -> list[Any]:
    tensors: list[Any] = keras.tree.flatten(operation.input)
    return tensors


def _parameters(operation: Any) -> int:
    return operation.count_params() if isinstance(operation, keras.layers.Layer) else 0


def _bytes(tensor: Any) -> int:
    bits = {"float64": 64, "float16": 16, "bfloat16": 16, "uint8": 8, "bool": 8}
    return math.prod(tensor.shape[1:]) * bits.get(tensor.dtype, 32) // 8


def _level(shape: Shape, size: tuple[int, int], inherited: int) -> int:
    """How often the sides were halved, or the number of tokens [B, T, C] was quartered."""
    pixels = size[0] * size[1]
    if len(shape) == 4:
        return round(math.log(pixels / (shape[1] * shape[2]), 4))
    if len(shape) == 3:
        return round(math.log(max(1.0, pixels / shape[1]), 4))
    return inherited


def _multiply_adds(operation: Any, inputs: list[Shape], output: Shape) -> int:
    """Of one operation for one image; shapes have a batch of 1."""
    for kind, count in _COUNTS.items():
        if isinstance(operation, kind):
            return count(operation, inputs, output)
    name = type(operation).__name__
    if name in _OPERATIONS:  # of keras.ops, whose classes have no public names
        return _OPERATIONS[name](operation, inputs, output)
    foreign = not type(operation).__module__.startswith("keras.")
    if hasattr(operation, "kernel") or (foreign and getattr(operation, "weights", None)):
        raise TypeError(
            f"The multiply-adds of the layer {operation.name} are not known: {name} is missing "
            "in the table of models/describe.py."
        )
    return 0


def _convolution(layer: Any, inputs: list[Shape], output: Shape) -> int:
    return math.prod(output[1:-1]) * math.prod(layer.kernel.shape)


def _transposed_convolution(layer: Any, inputs: list[Shape], output: Shape) -> int:
    return math.prod(inputs[0][1:-1]) * math.prod(layer.kernel.shape)


def _separable_convolution(layer: Any, inputs: list[Shape], output: Shape) -> int:
    kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
    return math.prod(output[1:-1]) * sum(math.prod(kernel.shape) for kernel in kernels)


def _attention(layer: Any, inputs: list[Shape], output: Shape) -> int:
    """Of queries, keys, values and results [B, T, C]; without a third input, keys are values."""
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 else value
    queries, values = query[1], value[1]
    inner, carried = layer.num_heads * layer.key_dim, layer.num_heads * layer.value_dim
    projections = queries * query[-1] * inner + values * key[-1] * inner
    projections += values * value[-1] * carried + queries * carried * output[-1]
    return projections + queries * values * (inner + carried)


def _map_attention(layer: Any, inputs: list[Shape], output: Shape) -> int:
    """Of queries [B, H, W, C] to keys [B, h, w, C], all of them projected, and the result again."""
    (queries, keys), channels = (math.prod(shape[1:3]) for shape in inputs), output[-1]
    return 2 * (queries + keys) * channels**2 + 2 * queries * keys * channels


def _window_attention(layer: Any, inputs: list[Shape], output: Shape) -> int:
    """Of every pixel of a window to every other; those of windows over the edge count whole."""
    channels, windows = output[-1], 1
    for side in output[1:3]:
        before = (layer.window - layer.shift) % layer.window if side > layer.window else 0
        windows *= -(-(side + before) // layer.window)
    projections = 4 * math.prod(output[1:3]) * channels**2
    return projections + 2 * windows * layer.window**4 * channels


def _sharpening(layer: Any, inputs: list[Shape], output: Shape) -> int:
    return math.prod(output[1:]) * 9


def _nothing(layer: Any, inputs: list[Shape], output: Shape) -> int:
    return 0


def _matrix_product(operation: Any, inputs: list[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[0][-1]


def _einsum(operation: Any, inputs: list[Shape], output: Shape) -> int:
    sides: dict[str, int] = {}
    terms = operation.subscripts.partition("->")[0].split(",")
    for term, shape in zip(terms, inputs, strict=True):
        sides.update(zip(term, shape, strict=True))
    return math.prod(sides.values())


_COUNTS: dict[Any, Callable[[Any, list[Shape], Shape], int]] = {
    keras.layers.Conv2DTranspose: _transposed_convolution,
    keras.layers.SeparableConv2D: _separable_convolution,
    keras.layers.DepthwiseConv2D: _convolution,
    keras.layers.Conv2D: _convolution,
    keras.layers.Dense: _convolution,
    keras.layers.MultiHeadAttention: _attention,
    attention.MapAttention: _map_attention,
    attention.WindowAttention: _window_attention,
    attention.Positions: _nothing,
    Sharpen: _sharpening,
}
_OPERATIONS: dict[str, Callable[[Any, list[Shape], Shape], int]] = {
    "Matmul": _matrix_product,
    "Einsum": _einsum,
}
