"""A U-Net whose skips are sharpened before they meet the decoder.

After H. Zunair, A. Ben Hamza: Sharp U-Net: Depthwise Convolutional Network for Biomedical Image
Segmentation, Computers in Biology and Medicine 136, 2021 (arXiv:2107.12461): every channel of a
skip passes a fixed 3 x 3 Laplacian. What differs from the paper: kernel, dilation, depth, width and
normalization are free; values are divided by 255 unless `input_normalization` is "none".

The last of the older projects computed the convolutions of its decoder at every level but used
those of the top level only: each transposed convolution took what the one below had been joined
with. `decoder="top_level"` is that network, with its 5,613,154 parameters for two classes; the
paper's, which is the default, has 7,764,450.

Shapes for an image [B, H, W, C], B filters written F, level i in 0 .. L - 1:

| level                | encoder, skip and decoder       |
|----------------------|---------------------------------|
| i                    | [B, H / 2^i, W / 2^i, F 2^i]    |
| L - 1 (the "bridge") | [B, H / 2^(L-1), W / 2^(L-1), F 2^(L-1)], one block, no skip |
| logits               | [B, H, W, num_classes]          |

A block is two convolutions with their normalization and activation. Decoder levels begin with a
2 x 2 transposed convolution of stride 2 and put its output before the skip.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from models.knobs import ACTIVATIONS, INPUT_NORMALIZATIONS, NORMALIZATIONS, check, knob
from models.pyramid import Pyramid

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class SharpUNetConfig(Pyramid):
    """The knobs of `sharp_unet`."""

    base_filters: int = knob(32, "Filters of level 0; they double with every level.", minimum=1)
    levels: int = knob(
        5, "Resolutions from the image's own down to the bridge's; each halves it.", minimum=1
    )
    kernel: int = knob(3, "Side of the convolutions' kernels, in pixels.", minimum=1)
    dilation: int = knob(1, "Step between the taps of those kernels, in pixels.", minimum=1)
    decoder: str = knob(
        "every_level",
        'Where the decoder convolves: at "every_level", or at the "top_level" alone, which is '
        "lighter, and what an older project did.",
        choices=("every_level", "top_level"),
    )
    dropout_rate: float = knob(
        0.0, "Share dropped between a block's two convolutions, in training.", minimum=0, below=1
    )
    activation: str = knob(
        "relu", "Activation after every convolution but the last.", choices=ACTIVATIONS
    )
    normalization: str = knob(
        "none", "What normalizes before every activation.", choices=NORMALIZATIONS
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
        self.check_supervision(self.deep_supervision)


def build(
    config: SharpUNetConfig,
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
    from models.sharpen import Sharpen

    def conv_unit(x: Any, filters: int, part: str) -> Any:
        x = layers.conv(
            filters,
            config.kernel,
            dilation=config.dilation,
            bias=config.conv_bias,
            seed=seed,
            name=f"{part}_conv",
        )(x)
        norm = layers.normalization(config.normalization, filters, name=f"{part}_norm")
        x = x if norm is None else norm(x)
        return layers.activation(config.activation, name=f"{part}_act")(x)

    def block(x: Any, filters: int, part: str) -> Any:
        x = conv_unit(x, filters, f"{part}_1")
        drop = layers.dropout(config.dropout_rate, seed=seed, name=f"{part}_drop")
        x = x if drop is None else drop(x)
        return conv_unit(x, filters, f"{part}_2")

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
        x = block(x, config.filters(level), f"enc{level}")
        skips.append(x)
        x = keras.layers.MaxPooling2D(2, name=f"enc{level}_pool")(x)
    x = block(x, config.filters(bridge), "bridge")
    decoded: list[tuple[Any, int]] = []
    for level in reversed(range(bridge)):
        x = layers.upsample(config.filters(level), seed=seed, name=f"dec{level}_up")(x)
        skip = Sharpen(name=f"skip{level}_sharpen")(skips[level])
        x = keras.layers.Concatenate(name=f"dec{level}_concat")([x, skip])
        if config.decoder == "every_level" or level == 0:
            x = block(x, config.filters(level), f"dec{level}")
        decoded.insert(0, (x, 2**level))
    if not config.deep_supervision:
        outputs = layers.logits(num_classes, seed=seed)(x)
    else:
        outputs = layers.supervised_logits(decoded, num_classes, seed=seed)
    return keras.Model(images, outputs, name="sharp_unet")
