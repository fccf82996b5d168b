"""Swin-Unet: a U-Net of attention within shifted windows, without convolutions.

After H. Cao et al.: Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation, ECCV
Workshops 2022 (arXiv:2105.05537), with the blocks of Z. Liu et al.: Swin Transformer, ICCV 2021
(arXiv:2103.14030). What differs from them: images of any size, as windows are completed inside the
network, and what is added is masked; keys have no bias, which no output depends on; the last linear
layer has one.

Shapes for an image [B, H, W, C], P = patch, F = width, level i in 0 .. L - 1:

| part    | encoder                                   | decoder                              |
|---------|-------------------------------------------|--------------------------------------|
| level i | [B, H / (P 2^i), W / (P 2^i), F 2^i],     | the same shape; what came up beside  |
|         | depths[i] blocks                          | the skip, linear, as many blocks     |
| L - 1   | the deepest: blocks, no skip              |                                      |
| full    |                                           | [B, H, W, F]                         |
| logits  |                                           | [B, H, W, num_classes]               |

The image is cut into P x P patches, each linear to F. A block is windowed attention and a
feed-forward part, each behind a layer normalization and added to what it got; every second block
shifts its windows by half. Merging puts 2 x 2 pixels into one, normalizes, and is linear to half;
expanding is linear and puts channels into 2 x 2, and at the end P x P, pixels.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models.knobs import INPUT_NORMALIZATIONS, check, knob

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class SwinUNetConfig:
    """The knobs of `swin_unet`. Its tuples have one item for each level."""

    width: int = knob(96, "Channels of level 0; they double with every level.", minimum=1)
    patch: int = knob(4, "Side of the patches that become pixels of level 0.", minimum=1)
    depths: tuple[int, ...] = knob(
        (2, 2, 2, 2), "Blocks of each level, in the encoder and in the decoder.", minimum=1
    )
    heads: tuple[int, ...] = knob(
        (3, 6, 12, 24), "Heads of each level's attention; they divide its channels.", minimum=1
    )
    windows: tuple[int, ...] = knob(
        (7, 7, 7, 7), "Side of each level's windows, in pixels of the level.", minimum=1
    )
    shifted: bool = knob(True, "Whether every second block shifts its windows by half their side.")
    mlp_ratio: int = knob(4, "Width of the feed-forward parts over the level's own.", minimum=1)
    mlp_widths: tuple[int, ...] = knob(
        (), "Width of each level's feed-forward parts, instead of mlp_ratio.", minimum=1
    )
    stochastic_depth: float = knob(
        0.1,
        "Share of the images that skip the deepest blocks' branches in training; less at earlier "
        "blocks.",
        minimum=0,
        below=1,
    )
    dropout_rate: float = knob(
        0.0, "Share dropped after every linear layer of the blocks.", minimum=0, below=1
    )
    input_normalization: str = knob(
        "unit",
        'What the network does to the values 0..255: "unit" divides by 255, "none" leaves them.',
        choices=INPUT_NORMALIZATIONS,
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.depths:
            raise FlexsegError("depths must have at least one level; it is empty.")
        for name in ("heads", "windows", "mlp_widths"):
            values = getattr(self, name)
            if len(values) != self.levels and (values or name != "mlp_widths"):
                raise FlexsegError(
                    f"{name} must have one value for each of the {self.levels} levels of depths; "
                    f"it has {len(values)}."
                )
        for level, heads in enumerate(self.heads):
            if self.channels(level) % heads:
                raise FlexsegError(
                    f"heads must divide their level's channels; {heads} does not divide the "
                    f"{self.channels(level)} of level {level}."
                )

    @property
    def levels(self) -> int:
        """The resolutions."""
        return len(self.depths)

    def channels(self, level: int) -> int:
        """The channels of that level."""
        return self.width * 2**level

    def mlp_width(self, level: int) -> int:
        """The width of that level's feed-forward parts."""
        return self.mlp_widths[level] if self.mlp_widths else self.mlp_ratio * self.channels(level)

    @property
    def size_divisor(self) -> int:
        """What an image's sides must be multiples of, in pixels: those of a deepest pixel."""
        return self.patch * 2 ** (self.levels - 1)

    @property
    def size_minimum(self) -> int:
        """The least side of an image, in pixels."""
        return self.size_divisor


def build(
    config: SwinUNetConfig,
    *,
    num_classes: int,
    channels: int = 3,
    size: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
) -> keras.Model:
    """Builds the network; arguments and result are those of `registry.build`."""
    import keras

    from models import attention, layers

    def norm(x: Any, name: str) -> Any:
        return attention.layer_norm(epsilon=1e-5, name=name)(x)

    def linear(x: Any, width: int, name: str, *, bias: bool = True) -> Any:
        return attention.dense(width, bias=bias, seed=seed, name=name)(x)

    def dropped(x: Any, name: str) -> Any:
        drop = layers.dropout(config.dropout_rate, seed=seed, name=name)
        return x if drop is None else drop(x)

    def branch(x: Any, change: Any, rate: float, part: str) -> Any:
        change = dropped(change, f"{part}_drop")
        skip = layers.stochastic_depth(rate, seed=seed, name=f"{part}_skip")
        change = change if skip is None else skip(change)
        return keras.layers.Add(name=f"{part}_add")([x, change])

    def blocks(x: Any, level: int, part: str) -> Any:
        before, window = sum(config.depths[:level]), config.windows[level]
        last = max(1, sum(config.depths) - 1)
        for index in range(config.depths[level]):
            rate = config.stochastic_depth * (before + index) / last
            name = f"{part}_block{index + 1}_attention"
            shift = window // 2 if config.shifted and index % 2 else 0
            attend = attention.WindowAttention(
                config.heads[level], window, shift, seed=seed, name=name
            )
            x = branch(x, attend(norm(x, f"{name}_norm")), rate, name)
            name = f"{part}_block{index + 1}_mlp"
            y = linear(norm(x, f"{name}_norm"), config.mlp_width(level), f"{name}_in")
            y = dropped(layers.activation("gelu", name=f"{name}_act")(y), f"{name}_in_drop")
            x = branch(x, linear(y, x.shape[-1], f"{name}_out"), rate, name)
        return x

    def expand(x: Any, factor: int, width: int, part: str) -> Any:
        x = linear(x, factor**2 * width, f"{part}_linear", bias=False)
        x = attention.DepthToSpace(factor, name=part)(x)
        return norm(x, f"{part}_norm")

    images, x = layers.image_input(
        size,
        channels,
        scaling=config.input_normalization,
        divisor=config.size_divisor,
        minimum=config.size_minimum,
    )
    x = attention.SpaceToDepth(config.patch, name="patches")(x)
    x = norm(linear(x, config.width, "patches_linear"), "patches_norm")
    x = dropped(x, "patches_drop")
    skips = []
    for level in range(config.levels):
        if level:
            x = attention.SpaceToDepth(2, name=f"enc{level}_merge")(x)
            x = norm(x, f"enc{level}_merge_norm")
            x = linear(x, config.channels(level), f"enc{level}_merge_linear", bias=False)
        x = blocks(x, level, f"enc{level}")
        skips.append(x)
    x = norm(x, "bridge_norm")
    for level in reversed(range(config.levels - 1)):
        x = expand(x, 2, config.channels(level), f"dec{level}_expand")
        x = keras.layers.Concatenate(name=f"dec{level}_concat")([x, skips[level]])
        x = linear(x, config.channels(level), f"dec{level}_linear")
        x = blocks(x, level, f"dec{level}")
    if config.levels > 1:
        x = norm(x, "decoder_norm")
    x = expand(x, config.patch, config.width, "full")
    return keras.Model(images, layers.logits(num_classes, seed=seed)(x), name="swin_unet")
