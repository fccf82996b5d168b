"""A U-Net of blocks that see three sizes at once, and of skips that are convolved on their way.

After N. Ibtehaz, M. S. Rahman: MultiResUNet: Rethinking the U-Net Architecture for Multimodal
Biomedical Image Segmentation, Neural Networks 121, 2020 (arXiv:1902.04049), as the projects before
this one built it: the 8,174,775 parameters for two classes are theirs (16 filters, 6 levels). What
differs from the paper: normalizations have a scale; a unit of a res path has no activation before
its sum; paths are L - i units long instead of 4, 3, 2, 1; the logits are not normalized.

Shapes for an image [B, H, W, C], level i in 0 .. L - 1, W_i = alpha base_filters 2^i and
M_i = int(0.167 W_i) + int(0.333 W_i) + int(0.5 W_i):

| level                | encoder                      | skip, past its res path and before the  |
|                      | and decoder                  | decoder's block: as wide as the upsampled |
|----------------------|------------------------------|-------------------------------------------|
| i                    | [B, H / 2^i, W / 2^i, M_i]   | [B, H / 2^i, W / 2^i, base_filters 2^i]   |
| L - 1 (the "bridge") | [B, H / 2^(L-1), W / 2^(L-1), M_(L-1)] | none                            |
| logits               | [B, H, W, num_classes]       |                                           |

A block chains three 3 x 3 convolutions, so that they see 3, 5 and 7 pixels, puts their results side
by side, adds a 1 x 1 convolution of its input, and is normalized once more after its activation. A
unit of a res path is a 3 x 3 convolution plus a 1 x 1 convolution, activation, normalization.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models.knobs import ACTIVATIONS, INPUT_NORMALIZATIONS, NORMALIZATIONS, check, knob
from models.pyramid import Pyramid

if TYPE_CHECKING:
    import keras

_SHARES = (0.167, 0.333, 0.5)  # of a block's width, for its three convolutions


@dataclasses.dataclass(frozen=True)
class MultiResUNetConfig(Pyramid):
    """The knobs of `multires_unet`."""

    base_filters: int = knob(
        16,
        "Filters of the U-Net's level 0 that a block stands for; they double with every level.",
        minimum=1,
    )
    levels: int = knob(
        6, "Resolutions from the image's own down to the bridge's; each halves it.", minimum=1
    )
    alpha: float = knob(1.67, "A block's width over the filters that it stands for.", minimum=0)
    paths: tuple[int, ...] = knob(
        (),
        "Units of each level's res path from level 0 on, without the bridge, instead of levels, "
        "levels - 1, and so on; 0 for a plain skip.",
        minimum=0,
    )
    activation: str = knob(
        "relu", "Activation of the convolutions, blocks and res paths.", choices=ACTIVATIONS
    )
    normalization: str = knob(
        "batch",
        "What normalizes after convolutions, and after the activation of blocks and res paths.",
        choices=NORMALIZATIONS,
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
        if min(self.widths(0)) < 1:
            raise FlexsegError(
                f"base_filters {self.base_filters} and alpha {self.alpha:g} leave a block's first "
                "convolution without a filter; their product must be at least 6."
            )
        if len(self.paths) not in (0, self.levels - 1):
            raise FlexsegError(
                f"paths must have one value for each of the {self.levels - 1} levels above the "
                f"bridge, or none at all; it has {len(self.paths)}."
            )
        self.check_supervision(self.deep_supervision)

    def widths(self, level: int) -> tuple[int, ...]:
        """The channels of the three convolutions of that level's blocks."""
        width = self.filters(level) * self.alpha
        return tuple(int(width * share) for share in _SHARES)

    def path(self, level: int) -> int:
        """The units of that level's res path."""
        return self.paths[level] if self.paths else self.levels - level


def build(
    config: MultiResUNetConfig,
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
        layer = layers.normalization(config.normalization, x.shape[-1], name=name)
        return x if layer is None else layer(x)

    def act(x: Any, name: str) -> Any:
        return layers.activation(config.activation, name=name)(x)

    def conv(x: Any, filters: int, kernel: int, part: str) -> Any:
        bias = config.conv_bias
        x = layers.conv(filters, kernel, bias=bias, seed=seed, name=f"{part}_conv")(x)
        return norm(x, f"{part}_norm")

    def joined(x: Any, shortcut: Any, part: str) -> Any:
        x = keras.layers.Add(name=f"{part}_add")([x, shortcut])
        return norm(act(x, f"{part}_act"), f"{part}_norm")

    def block(x: Any, level: int, part: str) -> Any:
        widths = config.widths(level)
        shortcut = conv(x, sum(widths), 1, f"{part}_shortcut")
        parts = []
        for number, filters in enumerate(widths, 1):
            x = act(conv(x, filters, 3, f"{part}_{number}"), f"{part}_{number}_act")
            parts.append(x)
        x = keras.layers.Concatenate(name=f"{part}_widths")(parts)
        return joined(norm(x, f"{part}_widths_norm"), shortcut, part)

    def res_path(x: Any, level: int) -> Any:
        for number in range(1, config.path(level) + 1):
            part = f"path{level}_{number}"
            shortcut = conv(x, config.filters(level), 1, f"{part}_shortcut")
            x = joined(conv(x, config.filters(level), 3, f"{part}_main"), shortcut, part)
        return x

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
        skips.append(res_path(x, level))
        x = keras.layers.MaxPooling2D(2, name=f"enc{level}_pool")(x)
    x = block(x, bridge, "bridge")
    decoded: list[tuple[Any, int]] = []
    for level in reversed(range(bridge)):
        x = layers.upsample(config.filters(level), seed=seed, name=f"dec{level}_up")(x)
        x = keras.layers.Concatenate(name=f"dec{level}_concat")([x, skips[level]])
        x = block(x, level, f"dec{level}")
        decoded.insert(0, (x, 2**level))
    if not config.deep_supervision:
        outputs = layers.logits(num_classes, seed=seed)(x)
    else:
        outputs = layers.supervised_logits(decoded, num_classes, seed=seed)
    return keras.Model(images, outputs, name="multires_unet")
