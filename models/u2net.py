"""U2-Net: a U-Net whose blocks are U-Nets.

After X. Qin et al.: U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection,
Pattern Recognition 106, 2020 (arXiv:2005.09007). `plan` chooses the widths: "u2net" and "u2netp"
are the paper's two networks, "doubling" that of the projects before this one (their 49,000,610
parameters for two classes have normalization "none"). What differs from the paper: a convolution
whose normalization takes the mean away has no bias; images whose sides do not halve without a
remainder are refused instead of rounded up. What differs from the older projects: side outputs are
fused as logits, as in the paper, not after a sigmoid.

Shapes for an image [B, H, W, C] and R levels of residual U-blocks above the two dilated ones:

| level   | encoder and decoder, with the widths of `plan`                  | depth of the block |
|---------|-----------------------------------------------------------------|--------------------|
| i < R   | [B, H / 2^i, W / 2^i, out_i], residual U-block                  | R + 1 - i halvings |
| R       | [B, H / 2^R, W / 2^R, out_R], dilated block                     | dilations to 8     |
| R + 1   | [B, H / 2^(R+1), W / 2^(R+1), out_(R+1)], dilated, encoder only | dilations to 8     |
| sides   | [B, H, W, num_classes] from each decoder level and the deepest  | 3 x 3, enlarged    |
| logits  | [B, H, W, num_classes], a 1 x 1 convolution of all sides        |                    |

A residual U-block (RSU) is a convolution to its `out` channels, plus what a small U-Net of
`middle` channels makes of that; at its bottom is one convolution of dilation 2. A dilated block
(RSU-4F) is the same without halving: its convolutions have dilations 1, 2, 4, 8, and 4, 2 and 1 on
the way back. Both U-Nets halve by maximum and double bilinearly.
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
class Widths:
    """Channels of a network's blocks as (middle, out), from the image's resolution down.

    Attributes:
      encoder: of every level; the last two are dilated blocks.
      decoder: of every level but the deepest; the last is a dilated block.
    """

    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]


_PAPER = {
    "u2net": Widths(
        encoder=((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
        decoder=((16, 64), (32, 64), (64, 128), (128, 256), (256, 512)),
    ),
    "u2netp": Widths(encoder=((16, 64),) * 6, decoder=((16, 64),) * 5),
}
_DOUBLING = {"base_filters": 16, "levels": 6}


@dataclasses.dataclass(frozen=True)
class U2NetConfig(Pyramid):
    """The knobs of `u2net`."""

    plan: str = knob(
        "doubling",
        'Widths: "u2net" (44 million parameters) and "u2netp" (1.1 million) are the paper\'s; '
        '"doubling" starts from base_filters and doubles with every level.',
        choices=("doubling", *_PAPER),
    )
    base_filters: int = knob(
        _DOUBLING["base_filters"],
        'Channels of the blocks of level 0 under plan "doubling"; a quarter of them inside.',
        minimum=4,
    )
    levels: int = knob(
        _DOUBLING["levels"],
        'Levels of residual U-blocks under plan "doubling"; two of dilated blocks follow.',
        minimum=1,
    )
    activation: str = knob(
        "relu",
        "Activation after every convolution but the sides' and the last.",
        choices=ACTIVATIONS,
    )
    normalization: str = knob(
        "batch", "What normalizes before every activation.", choices=NORMALIZATIONS
    )
    deep_supervision: bool = knob(
        False,
        "Whether the side outputs are given as well; the result is a list of logits, the fused "
        "ones first.",
    )
    input_normalization: str = knob(
        "unit",
        'What the network does to the values 0..255: "unit" divides by 255, "none" leaves them.',
        choices=INPUT_NORMALIZATIONS,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.plan == "doubling":
            return
        for name, default in _DOUBLING.items():
            if getattr(self, name) != default:
                raise FlexsegError(
                    f'{name} has no say under plan "{self.plan}", whose widths are the paper\'s; '
                    f'take plan "doubling", or leave {name} out.'
                )

    @property
    def widths(self) -> Widths:
        """The channels of every block."""
        if self.plan in _PAPER:
            return _PAPER[self.plan]
        outs = [self.base_filters * 2**level for level in range(self.levels)]
        blocks = tuple((out // 4, out) for out in outs)
        dilated = ((outs[-1] // 2, outs[-1]),)
        return Widths(encoder=blocks + 2 * dilated, decoder=blocks + dilated)

    @property
    def size_divisor(self) -> int:
        """What an image's sides must be multiples of, in pixels.

        The network itself and the block of every level reach down to the same resolution.
        """
        return 2 ** (len(self.widths.encoder) - 1)


def build(
    config: U2NetConfig,
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

    def conv_unit(x: Any, filters: int, part: str, dilation: int = 1) -> Any:
        x = layers.conv(
            filters,
            3,
            dilation=dilation,
            bias=config.conv_bias,
            seed=seed,
            name=f"{part}_conv",
        )(x)
        norm = layers.normalization(config.normalization, filters, name=f"{part}_norm")
        x = x if norm is None else norm(x)
        return layers.activation(config.activation, name=f"{part}_act")(x)

    def concat(x: Any, skip: Any, name: str) -> Any:
        return keras.layers.Concatenate(name=name)([x, skip])

    def u_block(x: Any, middle: int, out: int, halvings: int, part: str) -> Any:
        x = entry = conv_unit(x, out, f"{part}_in")
        skips = []
        for depth in range(halvings + 1):
            if depth:
                x = keras.layers.MaxPooling2D(2, name=f"{part}_down{depth}_pool")(x)
            x = conv_unit(x, middle, f"{part}_down{depth}")
            skips.append(x)
        x = conv_unit(x, middle, f"{part}_bottom", dilation=2)
        for depth in reversed(range(halvings + 1)):
            x = concat(x, skips[depth], f"{part}_up{depth}_concat")
            x = conv_unit(x, middle if depth else out, f"{part}_up{depth}")
            if depth:
                x = layers.enlarge(2, name=f"{part}_up{depth}_enlarge")(x)
        return keras.layers.Add(name=f"{part}_add")([x, entry])

    def dilated_block(x: Any, middle: int, out: int, part: str) -> Any:
        x = entry = conv_unit(x, out, f"{part}_in")
        skips = []
        for depth in range(3):
            x = conv_unit(x, middle, f"{part}_down{depth}", dilation=2**depth)
            skips.append(x)
        x = conv_unit(x, middle, f"{part}_bottom", dilation=8)
        for depth in reversed(range(3)):
            x = concat(x, skips[depth], f"{part}_up{depth}_concat")
            x = conv_unit(x, middle if depth else out, f"{part}_up{depth}", dilation=2**depth)
        return keras.layers.Add(name=f"{part}_add")([x, entry])

    widths = config.widths
    deepest = len(widths.encoder) - 1

    def block(x: Any, level: int, middle: int, out: int, part: str) -> Any:
        if level >= deepest - 1:
            return dilated_block(x, middle, out, part)
        return u_block(x, middle, out, deepest - level, part)

    images, x = layers.image_input(
        size,
        channels,
        scaling=config.input_normalization,
        divisor=config.size_divisor,
        minimum=config.size_minimum,
    )
    maps = []
    for level, (middle, out) in enumerate(widths.encoder):
        if level:
            x = keras.layers.MaxPooling2D(2, name=f"enc{level}_pool")(x)
        x = block(x, level, middle, out, f"enc{level}")
        maps.append(x)
    for level in reversed(range(deepest)):
        x = layers.enlarge(2, name=f"dec{level}_enlarge")(x)
        x = concat(x, maps[level], f"dec{level}_concat")
        maps[level] = x = block(x, level, *widths.decoder[level], f"dec{level}")

    sides = []
    for level, x in enumerate(maps):
        x = layers.logits(num_classes, kernel=3, seed=seed, name=f"side{level}_logits")(x)
        if level:
            x = layers.enlarge(2**level, name=f"side{level}_enlarge", dtype="float32")(x)
        sides.append(x)
    fused = keras.layers.Concatenate(name="sides", dtype="float32")(sides)
    fused = layers.logits(num_classes, seed=seed)(fused)
    return keras.Model(images, [fused, *sides] if config.deep_supervision else fused, name="u2net")
