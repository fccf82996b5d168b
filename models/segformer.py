"""SegFormer: a pyramid of attention over overlapping patches, and a decoder of linear layers.

After E. Xie et al.: SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers, NeurIPS 2021 (arXiv:2105.15203), B0 to B2. What differs from the paper: images are
divided by 255 instead of standardized; logits come enlarged to the image's size; what no output
depends on is left out: the biases of keys, and those before the decoder's batch normalization with
the offset of the deepest stage's normalization.

Shapes for an image [B, H, W, C] and B0, D = decoder_width:

| part    | shape                                                                            |
|---------|----------------------------------------------------------------------------------|
| stage 0 | [B, H / 4, W / 4, 32]: 7 x 7 patches of stride 4, then its blocks                |
| stage 1 | [B, H / 8, W / 8, 64]: 3 x 3 patches of stride 2, then its blocks                |
| stage 2 | [B, H / 16, W / 16, 160], likewise                                               |
| stage 3 | [B, H / 32, W / 32, 256], likewise                                               |
| decoder | [B, H / 4, W / 4, 4 D]: each stage linear to D, enlarged; deepest first; then to D |
| logits  | [B, H, W, num_classes], linear and enlarged four times                           |

A block is attention and a feed-forward part, each behind a layer normalization and added to what it
got. Keys and values are shrunk by a convolution whose kernel and stride are the stage's reduction.
The feed-forward part is linear to mlp_ratio times the width, a depthwise 3 x 3 convolution, which
tells positions, GELU, and linear back.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models.knobs import INPUT_NORMALIZATIONS, check, knob

if TYPE_CHECKING:
    import keras

_WIDTHS = {"b0": (32, 64, 160, 256), "b1": (64, 128, 320, 512), "b2": (64, 128, 320, 512)}
_DEPTHS = {"b0": (2, 2, 2, 2), "b1": (2, 2, 2, 2), "b2": (3, 4, 6, 3)}
_DECODER_WIDTHS = {"b0": 256, "b1": 256, "b2": 768}
_STRIDES = (4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class SegFormerConfig:
    """The knobs of `segformer`. Tuples have one item for each of the four stages."""

    variant: str = knob(
        "b0", "Which of the paper's networks gives widths and depths.", choices=tuple(_WIDTHS)
    )
    widths: tuple[int, ...] = knob((), "Channels of each stage, not the variant's.", minimum=1)
    depths: tuple[int, ...] = knob((), "Blocks of each stage, not the variant's.", minimum=1)
    heads: tuple[int, ...] = knob(
        (1, 2, 5, 8), "Heads of each stage's attention; they divide its channels.", minimum=1
    )
    reductions: tuple[int, ...] = knob(
        (8, 4, 2, 1), "By how much each stage shrinks its keys, along each side.", minimum=1
    )
    mlp_ratio: int = knob(4, "Width of the feed-forward parts over the stage's own.", minimum=1)
    decoder_width: int = knob(
        0, "Channels that the decoder brings each stage to; 0 for the variant's.", minimum=0
    )
    stochastic_depth: float = knob(
        0.1,
        "Share of the images that skip the last block's branches in training; less at earlier "
        "blocks.",
        minimum=0,
        below=1,
    )
    dropout_rate: float = knob(
        0.1, "Share dropped before the logits, in training.", minimum=0, below=1
    )
    input_normalization: str = knob(
        "unit",
        'What the network does to the values 0..255: "unit" divides by 255, "none" leaves them.',
        choices=INPUT_NORMALIZATIONS,
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("widths", "depths", "heads", "reductions"):
            values = getattr(self, name)
            if len(values) != 4 and (values or name in ("heads", "reductions")):
                raise FlexsegError(
                    f"{name} must have one value for each of the 4 stages; it has {len(values)}."
                )
        for width, heads in zip(self.stage_widths, self.heads, strict=True):
            if width % heads:
                raise FlexsegError(
                    f"widths must be multiples of heads; {width} is no multiple of {heads}."
                )

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """The channels of each stage."""
        return self.widths or _WIDTHS[self.variant]

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """The blocks of each stage."""
        return self.depths or _DEPTHS[self.variant]

    @property
    def size_divisor(self) -> int:
        """What an image's sides must be multiples of, in pixels, so that every stage can shrink."""
        shrunk = (stride * r for stride, r in zip(_STRIDES, self.reductions, strict=True))
        return math.lcm(*shrunk)

    @property
    def size_minimum(self) -> int:
        """The least side of an image, in pixels."""
        return self.size_divisor


def build(
    config: SegFormerConfig,
    *,
    num_classes: int,
    channels: int = 3,
    size: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
) -> keras.Model:
    """Builds the network; arguments and result are those of `registry.build`."""
    import keras

    from models import attention, layers

    def branch(x: Any, change: Any, rate: float, part: str) -> Any:
        """`x` plus what a branch makes of it, which is dropped for some images."""
        drop = layers.stochastic_depth(rate, seed=seed, name=f"{part}_drop")
        change = change if drop is None else drop(change)
        return keras.layers.Add(name=f"{part}_add")([x, change])

    def patches(x: Any, width: int, kernel: int, stride: int, part: str) -> Any:
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{part}_pad")(x)
        x = keras.layers.Conv2D(
            width,
            kernel,
            strides=stride,
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal", seed=layers.layer_seed(seed, part)
            ),
            name=part,
        )(x)
        return attention.layer_norm(epsilon=1e-5, name=f"{part}_norm")(x)

    def attended(x: Any, stage: int, part: str) -> Any:
        keys, reduction = x, config.reductions[stage]
        if reduction > 1:
            name = f"{part}_reduce"
            keys = layers.conv(x.shape[-1], reduction, stride=reduction, seed=seed, name=name)(x)
            keys = attention.layer_norm(epsilon=1e-5, name=f"{name}_norm")(keys)
        return attention.MapAttention(config.heads[stage], seed=seed, name=part)([x, keys])

    def fed_forward(x: Any, part: str) -> Any:
        width = x.shape[-1]
        x = attention.dense(config.mlp_ratio * width, seed=seed, name=f"{part}_in")(x)
        name = f"{part}_depthwise"
        x = keras.layers.DepthwiseConv2D(
            3,
            padding="same",
            depthwise_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_in", "untruncated_normal", seed=layers.layer_seed(seed, name)
            ),
            name=name,
        )(x)
        x = layers.activation("gelu", name=f"{part}_act")(x)
        return attention.dense(width, seed=seed, name=f"{part}_out")(x)

    images, x = layers.image_input(
        size,
        channels,
        scaling=config.input_normalization,
        divisor=config.size_divisor,
        minimum=config.size_minimum,
    )
    stages, number = [], 0
    last = max(1, sum(config.stage_depths) - 1)
    for stage, (width, depth) in enumerate(
        zip(config.stage_widths, config.stage_depths, strict=True)
    ):
        part = f"stage{stage}"
        x = patches(x, width, 3 if stage else 7, 2 if stage else 4, f"{part}_patches")
        for index in range(1, depth + 1):
            block, rate = f"{part}_block{index}", config.stochastic_depth * number / last
            normed = attention.layer_norm(name=f"{block}_attention_norm")(x)
            name = f"{block}_attention"
            x = branch(x, attended(normed, stage, name), rate, name)
            normed = attention.layer_norm(name=f"{block}_mlp_norm")(x)
            x = branch(x, fed_forward(normed, f"{block}_mlp"), rate, f"{block}_mlp")
            number += 1
        # The deepest is read by the decoder alone, whose normalization takes constants away.
        x = attention.layer_norm(center=stage < 3, name=f"{part}_norm")(x)
        stages.append(x)

    decoder_width = config.decoder_width or _DECODER_WIDTHS[config.variant]
    decoded = []
    for stage in reversed(range(4)):
        linear = attention.dense(decoder_width, bias=False, seed=seed, name=f"decoder_stage{stage}")
        x = linear(stages[stage])
        decoded.append(layers.enlarge(2**stage, name=f"decoder_up{stage}")(x) if stage else x)
    x = keras.layers.Concatenate(name="decoder_concat")(decoded)
    x = layers.conv(decoder_width, 1, bias=False, seed=seed, name="decoder_conv")(x)
    x = layers.batch_normalization(epsilon=1e-5, name="decoder_norm")(x)
    x = layers.activation("relu", name="decoder_act")(x)
    drop = layers.dropout(config.dropout_rate, seed=seed, name="decoder_drop")
    x = x if drop is None else drop(x)
    x = layers.logits(num_classes, seed=seed)(x)
    x = layers.enlarge(4, name="logits_up", dtype="float32")(x)
    return keras.Model(images, x, name="segformer")
