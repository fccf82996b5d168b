"""Encoders made for classification: ResNet and EfficientNet, with the names and weights of Keras.

Written from the papers' tables instead of taken from `keras.applications`, so that every weight has
a seed of its own, batch normalization is synchronized, widths and depths are free and nothing is
built that a network does not use. Layers carry the names that `keras.applications` gives them; by
these names its weights are copied. Imports no Keras until something is built.

- K. He et al.: Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv:1512.03385): stem
  7 x 7 of stride 2 and a maximum of stride 2, then stages of bottlenecks of which the deeper ones
  begin with stride 2: strides 4, 8, 16, 32.
- M. Tan, Q. Le: EfficientNet, ICML 2019 (arXiv:1905.11946): stem of stride 2, then seven stages of
  inverted bottlenecks with squeeze and excitation: strides 2, 4, 8, 16, 16, 32, 32.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError

if TYPE_CHECKING:
    import keras

EFFICIENTNETS = tuple(f"efficientnet_b{i}" for i in range(8))
BACKBONES = ("resnet50", *EFFICIENTNETS)
RESNET50_BLOCKS = (3, 4, 6, 3)

# Width and depth coefficients (Tan and Le's table of scaled networks).
_COEFFICIENTS = {
    "efficientnet_b0": (1.0, 1.0),
    "efficientnet_b1": (1.0, 1.1),
    "efficientnet_b2": (1.1, 1.2),
    "efficientnet_b3": (1.2, 1.4),
    "efficientnet_b4": (1.4, 1.8),
    "efficientnet_b5": (1.6, 2.2),
    "efficientnet_b6": (1.8, 2.6),
    "efficientnet_b7": (2.0, 3.1),
}
# (kernel, blocks, filters, expansion, stride) of B0's stages (their table 1).
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
# What Keras' weights expect of values 0..255, in the order red, green, blue: the mean that is
# taken away and the deviation that divides. ResNet's were trained without the division, on blue,
# green, red; `load` brings its first kernel into the form that these inputs want.
_MEANS = {"resnet": (123.68, 116.779, 103.939), "efficientnet": (123.675, 116.28, 103.53)}
_DEVIATIONS = (58.395, 57.12, 57.375)

WEIGHTS_DOC = (
    'First weights of the backbone: "none" draws them, "imagenet" downloads those of '
    "keras.applications, anything else is the path of a file of such weights, without top."
)
WIDTH_DOC = "Factor of the backbone's channels; other than 1 for networks without loaded weights."
DEPTH_DOC = (
    "Factor of the backbone's blocks per stage, rounded up; other than 1 for networks without "
    "loaded weights."
)


def check_weights(weights: str, width: float, depth: float) -> None:
    """Holds the knobs of a backbone to what can be loaded.

    Raises:
      FlexsegError: weights are to be loaded into a backbone of another width or depth than theirs,
        or a factor is not above 0.
    """
    for name, value in (("width", width), ("depth", depth)):
        if not value > 0:
            raise FlexsegError(f"{name} must be above 0, not {value}.")
    if weights != "none" and (width, depth) != (1, 1):
        raise FlexsegError(
            f'weights "{weights}" fit a backbone of width 1 and depth 1, not of width {width:g} '
            f'and depth {depth:g}. Leave both at 1, or set weights to "none".'
        )


def normalize(x: Any, backbone: str) -> Any:
    """Brings images with values 0..255 to what the backbone was made for, in float32.

    It depends on the number of channels alone, not on whether weights are loaded, so that a trained
    network can be built again without the file that it began from. Three channels are taken as red,
    green, blue, and standardized by ImageNet's means and deviations; one channel is repeated and
    then treated alike, which is what ImageNet's weights can use; other numbers are divided by 255.

    Args:
      x: symbolic tensor [B, H, W, C], values 0..255, float32.
      backbone: one of `BACKBONES`.
    """
    import keras

    if x.shape[-1] == 1:
        x = keras.layers.Concatenate(name="gray_to_color", dtype="float32")([x, x, x])
    if x.shape[-1] != 3:
        return keras.layers.Rescaling(1 / 255, dtype="float32", name="standardize")(x)
    means = _MEANS[backbone.partition("_")[0].rstrip("0123456789")]
    scale = [1 / deviation for deviation in _DEVIATIONS]
    offset = [-mean / deviation for mean, deviation in zip(means, _DEVIATIONS, strict=True)]
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="standardize")(x)


def features(
    backbone: str,
    x: Any,
    *,
    last: str,
    width: float = 1.0,
    depth: float = 1.0,
    drop_rate: float = 0.0,
    seed: int,
) -> dict[str, Any]:
    """The backbone of that name; see `resnet` and `efficientnet`.

    Args:
      backbone: one of `BACKBONES`.
      x: symbolic tensor [B, H, W, C].
      last: the last block to build.
      width: factor of its channels.
      depth: factor of its blocks per stage, rounded up.
      drop_rate: stochastic depth of an EfficientNet's last block; a ResNet has none.
      seed: the network's.

    Returns:
      The outputs of its layers by their names.
    """
    if backbone == "resnet50":
        blocks = tuple(math.ceil(depth * count) for count in RESNET50_BLOCKS)
        return resnet(x, blocks=blocks, width=width, last=last, seed=seed)
    scale = _COEFFICIENTS[backbone]
    return efficientnet(
        x,
        width=width * scale[0],
        depth=depth * scale[1],
        drop_rate=drop_rate,
        last=last,
        seed=seed,
    )


def stage_end(backbone: str, stage: int, depth: float = 1.0) -> str:
    """The name of the last layer of an EfficientNet's stage 1..7, or of a ResNet's stage 2..5."""
    if backbone == "resnet50":
        return f"conv{stage}_block{math.ceil(depth * RESNET50_BLOCKS[stage - 2])}_out"
    count = _block_count(stage, depth * _COEFFICIENTS[backbone][1])
    block = f"block{stage}{chr(96 + count)}"
    # Without a block of equal width and size before it there is nothing to add to.
    return f"{block}_add" if count > 1 else f"{block}_project_bn"


def _block_count(stage: int, depth: float) -> int:
    return math.ceil(depth * _STAGES[stage - 1][1])


def resnet(
    x: Any,
    *,
    blocks: Sequence[int] = RESNET50_BLOCKS,
    width: float = 1.0,
    normalization: str = "batch",
    last: str = "",
    seed: int,
) -> dict[str, Any]:
    """A ResNet of bottlenecks, as far as a network needs it.

    Args:
      x: symbolic tensor [B, H, W, C], sides multiples of the deepest stride.
      blocks: how many each stage has; the first is "conv2", of stride 4.
      width: factor of the channels 64, 128, 256, 512 (times 4 at a block's end).
      normalization: one of `knobs.NORMALIZATIONS`.
      last: the block after which to stop, such as "conv4_block6"; all where "".
      seed: the network's.

    Returns:
      The outputs of its layers by name: "conv1_relu" of stride 2, and of every block N of stage S
      "convS_blockN_2_relu" inside it and "convS_blockN_out" at its end.
    """
    import keras

    from models import layers

    outputs = {}
    bias = normalization == "none"

    def conv_unit(x: Any, filters: int, kernel: int, stride: int, part: str, act: str) -> Any:
        if kernel == 7:  # "same" would pad it by 2 and 3
            x = keras.layers.ZeroPadding2D(3, name=f"{part}_pad")(x)
        conv = keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding="valid" if kernel == 7 else "same",
            use_bias=bias,
            kernel_initializer=keras.initializers.HeNormal(layers.layer_seed(seed, f"{part}_conv")),
            name=f"{part}_conv",
        )
        x = conv(x)
        norm = layers.normalization(normalization, filters, epsilon=1.001e-5, name=f"{part}_bn")
        x = x if norm is None else norm(x)
        outputs[act or f"{part}_bn"] = x = layers.activation("relu", name=act)(x) if act else x
        return x

    base = max(1, round(64 * width))
    x = conv_unit(x, base, 7, 2, "conv1", "conv1_relu")
    # What it pads with must not win the maximum: all values are 0 or more after a ReLU.
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    for stage, count in enumerate(blocks, start=2):
        filters = base * 2 ** (stage - 2)
        for number in range(1, count + 1):
            part = f"conv{stage}_block{number}"
            stride = 2 if stage > 2 and number == 1 else 1
            shortcut = conv_unit(x, 4 * filters, 1, stride, f"{part}_0", "") if number == 1 else x
            x = conv_unit(x, filters, 1, stride, f"{part}_1", f"{part}_1_relu")
            x = conv_unit(x, filters, 3, 1, f"{part}_2", f"{part}_2_relu")
            x = conv_unit(x, 4 * filters, 1, 1, f"{part}_3", "")
            x = keras.layers.Add(name=f"{part}_add")([shortcut, x])
            outputs[f"{part}_out"] = x = layers.activation("relu", name=f"{part}_out")(x)
            if part == last:
                return outputs
    return outputs


def efficientnet(
    x: Any,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    drop_rate: float = 0.0,
    last: str = "",
    seed: int,
) -> dict[str, Any]:
    """An EfficientNet without its top, as far as a network needs it.

    Args:
      x: symbolic tensor [B, H, W, C], sides multiples of the deepest stride.
      width: coefficient of B0's channels, which are then rounded to multiples of 8.
      depth: coefficient of B0's blocks per stage, rounded up.
      drop_rate: stochastic depth of the last block; it grows to that from 0 at the first.
      last: the block after which to stop, such as "block7a"; all where "".
      seed: the network's.

    Returns:
      The outputs of its layers by name: "stem_activation" of stride 2, and of every block such as
      "block3b" its "_activation" after the depthwise convolution, its "_project_bn" and, where it
      has a shortcut, its "_add".
    """
    import keras

    from models import layers

    outputs = {}

    def initializer(name: str) -> Any:
        return keras.initializers.VarianceScaling(
            2.0, "fan_out", "truncated_normal", seed=layers.layer_seed(seed, name)
        )

    def conv(x: Any, filters: int, name: str, kernel: int = 1, stride: int = 1) -> Any:
        return keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer=initializer(name),
            name=name,
        )(x)

    def norm(x: Any, part: str, act: str) -> Any:
        outputs[f"{part}bn"] = x = layers.batch_normalization(name=f"{part}bn")(x)
        if act:
            outputs[act] = x = layers.activation("silu", name=act)(x)
        return x

    def squeeze_and_excite(x: Any, filters: int, part: str) -> Any:
        squeezed = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{part}_se_squeeze")(x)
        for name, count, act in (
            (f"{part}_se_reduce", filters, "silu"),
            (f"{part}_se_expand", x.shape[-1], "sigmoid"),
        ):
            squeezed = keras.layers.Conv2D(
                count, 1, activation=act, kernel_initializer=initializer(name), name=name
            )(squeezed)
        return keras.layers.Multiply(name=f"{part}_se_excite")([x, squeezed])

    counts = [_block_count(stage, depth) for stage in range(1, len(_STAGES) + 1)]
    x = conv(x, _rounded(32 * width), "stem_conv", 3, 2)
    x = norm(x, "stem_", "stem_activation")
    index = 0
    for stage, (kernel, _, filters, expansion, stage_stride) in enumerate(_STAGES, start=1):
        filters = _rounded(filters * width)
        for number in range(counts[stage - 1]):
            part = f"block{stage}{chr(97 + number)}"
            stride = stage_stride if number == 0 else 1
            block_input, filters_in = x, x.shape[-1]
            if expansion > 1:
                x = conv(x, expansion * filters_in, f"{part}_expand_conv")
                x = norm(x, f"{part}_expand_", f"{part}_expand_activation")
            x = keras.layers.DepthwiseConv2D(
                kernel,
                strides=stride,
                padding="same",
                use_bias=False,
                depthwise_initializer=initializer(f"{part}_dwconv"),
                name=f"{part}_dwconv",
            )(x)
            x = norm(x, f"{part}_", f"{part}_activation")
            x = squeeze_and_excite(x, max(1, filters_in // 4), part)
            x = norm(conv(x, filters, f"{part}_project_conv"), f"{part}_project_", "")
            if stride == 1 and filters_in == filters:
                drop = layers.stochastic_depth(
                    drop_rate * index / sum(counts), seed=seed, name=f"{part}_drop"
                )
                x = x if drop is None else drop(x)
                outputs[f"{part}_add"] = x = keras.layers.Add(name=f"{part}_add")([x, block_input])
            if part == last:
                return outputs
            index += 1
    return outputs


def _rounded(filters: float) -> int:
    """The multiple of 8 next to that many channels, of at least 8 and 90% of them."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def load(model: keras.Model, backbone: str, weights: str) -> None:
    """Copies weights of `keras.applications` into a network's backbone, layer by layer by name.

    Args:
      model: the network, whose backbone has width 1 and depth 1.
      backbone: one of `BACKBONES`.
      weights: the knob: "none" does nothing; "imagenet" downloads; else the path of a file that
        `keras.applications` offers without top, or that `save_weights` of such a model wrote.

    Raises:
      FlexsegError: the weights cannot be downloaded, read, or used for the number of channels.
    """
    if weights == "none":
        return
    import numpy as np

    channels = model.input_shape[-1]
    if channels not in (1, 3):
        raise FlexsegError(
            f'weights "{weights}" were made for color images, and work for gray ones; these have '
            f'{channels} channels. Set weights to "none".'
        )
    source = {layer.name: layer for layer in _source(backbone, weights).layers}
    for layer in model.layers:
        if layer.name not in source or not layer.weights:
            continue
        values = source[layer.name].get_weights()
        if layer.name == "conv1_conv":
            values[0] = values[0][:, :, ::-1] * np.array(_DEVIATIONS)[:, None]
        if backbone == "resnet50" and layer.name.endswith("_conv"):
            # Keras' ResNet has biases before its batch normalization; ours takes them from the
            # moving mean, which comes to the same.
            bias = values.pop()
            norm = model.get_layer(f"{layer.name.removesuffix('_conv')}_bn")
            source_norm = source[norm.name].get_weights()
            source_norm[2] = source_norm[2] - bias
            norm.set_weights(source_norm)
        elif backbone == "resnet50":
            continue  # a normalization: done with its convolution
        layer.set_weights(values)


def _source(backbone: str, weights: str) -> keras.Model:
    """The model of `keras.applications` that has these weights."""
    import keras

    names = {name: f"EfficientNetB{name[-1]}" for name in EFFICIENTNETS}
    make = getattr(keras.applications, names.get(backbone, "ResNet50"))
    if weights == "imagenet":
        try:
            return make(include_top=False, weights="imagenet", input_shape=(None, None, 3))
        except Exception as error:  # Keras raises a bare one where it cannot download
            raise FlexsegError(
                f'weights "imagenet" of {backbone} could not be downloaded ({error}). Set weights '
                'to the path of a file with them, or to "none".'
            ) from error
    if not os.path.isfile(weights):
        raise FlexsegError(
            f'weights "{weights}" is not a file; give "none", "imagenet", or the path of a file '
            f"with the weights of keras.applications for {backbone}, without top."
        )
    model = make(include_top=False, weights=None, input_shape=(None, None, 3))
    try:
        model.load_weights(weights)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise FlexsegError(
            f"weights {weights} do not fit {backbone} of keras.applications without its top: "
            f"{error}"
        ) from error
    return model


def freeze(model: keras.Model, prefixes: Sequence[str]) -> None:
    """Keeps the weights and statistics of the layers whose names begin so as they are.

    Args:
      model: the network.
      prefixes: beginnings of layer names, such as "stem_" and "block1".
    """
    for layer in model.layers:
        if layer.name.startswith(tuple(prefixes)):
            layer.trainable = False
