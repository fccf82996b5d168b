"""A U-Net whose depth, width, kernels, dilations and dropout are free, level by level.

After O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image
Segmentation, MICCAI 2015 (arXiv:1505.04597). What differs from the paper: convolutions keep the
size, so logits have the size of the image and skips are not cropped; kernels and dilations may be
wider in the upper levels; dropout grows with depth; normalization is optional.

Shapes for an image [B, H, W, C], B filters written F, level i in 0 .. L - 1:

| level                | encoder, skip and decoder       |
|----------------------|---------------------------------|
| 0                    | [B, H, W, F]                    |
| i                    | [B, H / 2^i, W / 2^i, F 2^i]    |
| L - 1 (the "bridge") | [B, H / 2^(L-1), W / 2^(L-1), F 2^(L-1)], one block, no skip |
| logits               | [B, H, W, num_classes]          |

A block is conv, dropout, conv, each conv with its activation and normalization. Encoder levels end
in a 2 x 2 maximum; decoder levels begin with a 2 x 2 transposed convolution of stride 2 and put its
output before the skip.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models.knobs import ACTIVATIONS, INPUT_NORMALIZATIONS, NORMALIZATIONS, check, knob
from models.pyramid import Pyramid

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class FlexUNetConfig(Pyramid):
    """The knobs of `flex_unet`. Tuples that override a schedule have one item per level."""

    base_filters: int = knob(16, "Filters of level 0; they double with every level.", minimum=1)
    levels: int = knob(
        5, "Resolutions from the image's own down to the bridge's; each halves it.", minimum=1
    )
    base_kernel: int = knob(
        3, "Kernel side k of level 0, in pixels; level i has max(3, k - 2 i).", minimum=1
    )
    kernels: tuple[int, ...] = knob(
        (), "Kernel side of each level, in pixels, instead of base_kernel.", minimum=1
    )
    base_dilation: int = knob(
        1, "Dilation d of level 0, in pixels; level i has max(1, d - i).", minimum=1
    )
    dilations: tuple[int, ...] = knob(
        (), "Dilation of each level, in pixels, instead of base_dilation.", minimum=1
    )
    dropout_rate: float = knob(
        0.05, "Dropout r that grows with depth: level i drops the share r i.", minimum=0, below=1
    )
    dropouts: tuple[float, ...] = knob(
        (), "Share dropped at each level, instead of dropout_rate.", minimum=0, below=1
    )
    activation: str = knob(
        "relu", "Activation after every convolution but the last.", choices=ACTIVATIONS
    )
    normalization: str = knob(
        "batch", "What normalizes after every convolution but the last.", choices=NORMALIZATIONS
    )
    normalization_position: str = knob(
        "before_activation",
        "Whether the normalization stands before the activation, as is usual, or after it.",
        choices=("before_activation", "after_activation"),
    )
    input_normalization: str = knob(
        "unit",
        'What the network does to the values 0..255: "unit" divides by 255, "none" leaves them.',
        choices=INPUT_NORMALIZATIONS,
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("kernels", "dilations", "dropouts"):
            count = len(getattr(self, name))
            if count not in (0, self.levels):
                raise FlexsegError(
                    f"{name} must have one value for each of the {self.levels} levels, or none "
                    f"at all; it has {count}."
                )
        deepest = self.dropout(self.levels - 1)
        if not deepest < 1:
            raise FlexsegError(
                f"dropout_rate {self.dropout_rate} grows to {deepest:g} at level "
                f"{self.levels - 1}; it must stay below 1. Lower it, or give dropouts."
            )

    def kernel(self, level: int) -> int:
        """The side of that level's kernels, in pixels."""
        return self.kernels[level] if self.kernels else max(3, self.base_kernel - 2 * level)

    def dilation(self, level: int) -> int:
        """The step between that level's kernel taps, in pixels."""
        return self.dilations[level] if self.dilations else max(1, self.base_dilation - level)

    def dropout(self, level: int) -> float:
        """The share of values dropped between that level's two convolutions, in training."""
        return self.dropouts[level] if self.dropouts else self.dropout_rate * level

    @property
    def conv_bias(self) -> bool:
        """Whether convolutions have a bias: not where the next step takes it away again."""
        return super().conv_bias or self.normalization_position != "before_activation"


def build(
    config: FlexUNetConfig,
    *,
    num_classes: int,
    channels: int = 3,
    size: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
) -> keras.Model:
    """Builds the network; arguments and result are those of `registry.build`."""
    import keras

    from models import layers

    def conv_unit(x: Any, level: int, part: str, number: int) -> Any:
        filters = config.filters(level)
        x = layers.conv(
            filters,
            config.kernel(level),
            dilation=config.dilation(level),
            bias=config.conv_bias,
            seed=seed,
            name=f"{part}_conv{number}",
        )(x)
        steps = [
            layers.normalization(config.normalization, filters, name=f"{part}_norm{number}"),
            layers.activation(config.activation, name=f"{part}_act{number}"),
        ]
        if config.normalization_position == "after_activation":
            steps.reverse()
        for step in steps:
            x = x if step is None else step(x)
        return x

    def block(x: Any, level: int, part: str) -> Any:
        x = conv_unit(x, level, part, 1)
        drop = layers.dropout(config.dropout(level), seed=seed, name=f"{part}_drop")
        x = x if drop is None else drop(x)
        return conv_unit(x, level, part, 2)

    images, x = layers.image_input(
        size,
        channels,
        scaling=config.input_normalization,
        divisor=config.size_divisor,
        minimum=config.size_minimum,
    )
    bridge = config.levels - 1
    skips = []
    for level in range(bridge):
        x = block(x, level, f"enc{level}")
        skips.append(x)
        x = keras.layers.MaxPooling2D(2, name=f"enc{level}_pool")(x)
    x = block(x, bridge, "bridge")
    for level in reversed(range(bridge)):
        x = layers.upsample(config.filters(level), seed=seed, name=f"dec{level}_up")(x)
        x = keras.layers.Concatenate(name=f"dec{level}_concat")([x, skips[level]])
        x = block(x, level, f"dec{level}")
    return keras.Model(images, layers.logits(num_classes, seed=seed)(x), name="flex_unet")
