"""A U-Net whose encoder is a deep stack of residual blocks.

After the "ResEnc" networks of nnU-Net: F. Isensee et al.: nnU-Net Revisited: A Call for Rigorous
Validation in 3D Medical Image Segmentation, MICCAI 2024 (arXiv:2404.09556); its blocks are those of
K. He et al.: Deep Residual Learning for Image Recognition, CVPR 2016, with the average pooling in
the shortcut of T. He et al.: Bag of Tricks, CVPR 2019 ("ResNet-D"). What differs from nnU-Net: it
plans the number of levels from the patch, here it is a knob (6, for images from about 200 pixels
on); a convolution whose normalization takes the mean away has no bias; leaky ReLU has Keras' slope
of 0.2 instead of 0.01; the extra logits of deep supervision come enlarged to the image's size (in
nnU-Net's loss, those of the lowest decoder level weigh nothing).

Shapes for an image [B, H, W, C], with F_i = min(base_filters 2^i, max_filters), level i < L:

| level  | encoder                                  | decoder                                  |
|--------|------------------------------------------|------------------------------------------|
| stem   | [B, H, W, F_0], one convolution          |                                          |
| i      | [B, H / 2^i, W / 2^i, F_i], blocks[i]    | the same shape, decoder_convs            |
|        | residual blocks                          | convolutions                             |
| L - 1  | the deepest: residual blocks, no skip    |                                          |
| logits |                                          | [B, H, W, num_classes]                   |

A residual block is conv, norm, activation, conv, norm, plus the shortcut, then the activation. The
first block of levels 1 and deeper has stride 2; its shortcut is averaged 2 x 2, and passes a 1 x 1
convolution and norm where the channels change. Decoder levels begin with a 2 x 2 transposed
convolution of stride 2, whose output stands before the skip.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models.knobs import ACTIVATIONS, INPUT_NORMALIZATIONS, NORMALIZATIONS, check, knob
from models.pyramid import Pyramid

if TYPE_CHECKING:
    import keras

_SCHEDULE = (1, 3, 4, 6)  # blocks of the upper levels; all deeper ones have the last's


@dataclasses.dataclass(frozen=True)
class ResidualUNetConfig(Pyramid):
    """The knobs of `residual_unet`. Tuples that override a schedule have one item per level."""

    base_filters: int = knob(
        32, "Filters of level 0; they double with every level up to max_filters.", minimum=1
    )
    max_filters: int = knob(512, "The most filters that any level has.", minimum=1)
    levels: int = knob(
        6, "Resolutions from the image's own down to the deepest; each halves it.", minimum=1
    )
    blocks: tuple[int, ...] = knob(
        (), "Residual blocks of each encoder level, instead of 1, 3, 4, 6, 6, and so on.", minimum=1
    )
    decoder_convs: int = knob(1, "Convolutions of each decoder level after the skip.", minimum=1)
    kernel: int = knob(3, "Side of all kernels but the 1 x 1 ones, in pixels.", minimum=1)
    dropout_rate: float = knob(
        0.0, "Share dropped between a block's two convolutions, in training.", minimum=0, below=1
    )
    activation: str = knob(
        "leaky_relu", "Activation after every convolution but the last.", choices=ACTIVATIONS
    )
    normalization: str = knob(
        "instance", "What normalizes after every convolution but the last.", choices=NORMALIZATIONS
    )
    deep_supervision: bool = knob(
        False,
        "Whether logits come from every decoder level; the result is a list of them, the main ones "
        "first.",
    )
    input_normalization: str = knob(
        "unit",
        'What the network does to the values 0..255: "unit" divides by 255, "none" leaves them.',
        choices=INPUT_NORMALIZATIONS,
    )

    def __post_init__(self) -> None:
        check(self)
        if len(self.blocks) not in (0, self.levels):
            raise FlexsegError(
                f"blocks must have one value for each of the {self.levels} levels, or none at all; "
                f"it has {len(self.blocks)}."
            )
        self.check_supervision(self.deep_supervision)

    def filters(self, level: int) -> int:
        """The channels of that level."""
        return min(self.base_filters * 2**level, self.max_filters)

    def block_count(self, level: int) -> int:
        """The residual blocks of that encoder level."""
        return self.blocks[level] if self.blocks else _SCHEDULE[min(level, len(_SCHEDULE) - 1)]


def build(
    config: ResidualUNetConfig,
    *,
    num_classes: int,
    channels: int = 3,
    size: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
) -> keras.Model:
    """Builds the network; arguments and result are those of `registry.build`.

    With deep_supervision the model's output is a list of tensors of that shape.
    """
    import keras

    from models import layers

    def norm(x: Any, name: str) -> Any:
        layer = layers.normalization(config.normalization, x.shape[-1], epsilon=1e-5, name=name)
        return x if layer is None else layer(x)

    def act(x: Any, name: str) -> Any:
        return layers.activation(config.activation, name=name)(x)

    def conv(x: Any, filters: int, kernel: int, name: str, stride: int = 1) -> Any:
        return layers.conv(
            filters, kernel, stride=stride, bias=config.conv_bias, seed=seed, name=name
        )(x)

    def conv_unit(x: Any, filters: int, part: str, number: int) -> Any:
        x = conv(x, filters, config.kernel, f"{part}_conv{number}")
        return act(norm(x, f"{part}_norm{number}"), f"{part}_act{number}")

    def residual_block(x: Any, filters: int, stride: int, part: str) -> Any:
        shortcut = x
        if stride > 1:
            shortcut = keras.layers.AveragePooling2D(stride, name=f"{part}_shortcut_pool")(shortcut)
        if shortcut.shape[-1] != filters:
            shortcut = conv(shortcut, filters, 1, f"{part}_shortcut_conv")
            shortcut = norm(shortcut, f"{part}_shortcut_norm")
        x = conv(x, filters, config.kernel, f"{part}_conv1", stride)
        x = act(norm(x, f"{part}_norm1"), f"{part}_act1")
        drop = layers.dropout(config.dropout_rate, seed=seed, name=f"{part}_drop")
        x = x if drop is None else drop(x)
        x = norm(conv(x, filters, config.kernel, f"{part}_conv2"), f"{part}_norm2")
        x = keras.layers.Add(name=f"{part}_add")([x, shortcut])
        return act(x, f"{part}_act2")

    images, x = layers.image_input(
        size,
        channels,
        scaling=config.input_normalization,
        divisor=config.size_divisor,
        minimum=config.size_minimum,
    )
    x = conv_unit(x, config.filters(0), "stem", 1)
    skips = []
    for level in range(config.levels):
        for index in range(config.block_count(level)):
            stride = 2 if level > 0 and index == 0 else 1
            x = residual_block(x, config.filters(level), stride, f"enc{level}_block{index + 1}")
        skips.append(x)
    x = skips.pop()
    decoded: list[tuple[Any, int]] = []
    for level in reversed(range(config.levels - 1)):
        x = layers.upsample(config.filters(level), seed=seed, name=f"dec{level}_up")(x)
        x = keras.layers.Concatenate(name=f"dec{level}_concat")([x, skips[level]])
        for number in range(1, config.decoder_convs + 1):
            x = conv_unit(x, config.filters(level), f"dec{level}", number)
        decoded.insert(0, (x, 2**level))
    supervised = decoded if config.deep_supervision else decoded[:1] or [(x, 1)]
    outputs = layers.supervised_logits(supervised, num_classes, seed=seed)
    return keras.Model(
        images, outputs if config.deep_supervision else outputs[0], name="residual_unet"
    )
