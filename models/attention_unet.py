"""A U-Net whose skips pass attention gates.

After O. Oktay et al.: Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018
(arXiv:1804.03999), as the projects before this one built it. What differs from the paper: two
dimensions instead of three; the gate is computed at the skip's resolution from the decoder map that
was enlarged already, not at half of it; there is one coefficient for each pixel and channel, unless
`gate` is "pixel", which is the paper's. What differs from the older projects: a convolution whose
normalization takes the mean away has no bias. That leaves out 4,000 of their 8,229,073 parameters
(16 filters, 6 levels, one class).

Shapes for an image [B, H, W, C], B filters written F, level i in 0 .. L - 1:

| level                | encoder, skip and decoder                                        |
|----------------------|------------------------------------------------------------------|
| i                    | [B, H / 2^i, W / 2^i, F 2^i]                                     |
| enlarged             | [B, H / 2^i, W / 2^i, F 2^(i+1)], bilinear, before the gated skip |
| L - 1 (the "bridge") | [B, H / 2^(L-1), W / 2^(L-1), F 2^(L-1)], one block, no skip     |
| logits               | [B, H, W, num_classes]                                           |

A block is two convolutions with their normalization and activation, and dropout after the second
convolution. A gate is multiplied into its skip s; with the decoder's map g it is
sigmoid(psi(act(norm(conv(g)) + norm(drop(conv(s)))))), each convolution 1 x 1.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from models.knobs import ACTIVATIONS, INPUT_NORMALIZATIONS, NORMALIZATIONS, check, knob
from models.pyramid import Pyramid

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class AttentionUNetConfig(Pyramid):
    """The knobs of `attention_unet`."""

    base_filters: int = knob(16, "Filters of level 0; they double with every level.", minimum=1)
    levels: int = knob(
        6, "Resolutions from the image's own down to the bridge's; each halves it.", minimum=1
    )
    kernel: int = knob(3, "Side of the blocks' kernels, in pixels.", minimum=1)
    gate: str = knob(
        "channel",
        'What a gate weighs: every "channel" of every pixel, or every "pixel" with all its '
        "channels alike, as in the paper.",
        choices=("channel", "pixel"),
    )
    dropout_rate: float = knob(
        0.1, "Share dropped in every block and gate, in training.", minimum=0, below=1
    )
    activation: str = knob(
        "relu", "Activation of the blocks and inside the gates.", choices=ACTIVATIONS
    )
    normalization: str = knob(
        "batch", "What normalizes before every activation.", choices=NORMALIZATIONS
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
    config: AttentionUNetConfig,
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

    def conv(x: Any, filters: int, kernel: int, part: str, drop: bool = False) -> Any:
        """Convolution, dropout by choice, normalization."""
        bias = config.conv_bias
        x = layers.conv(filters, kernel, bias=bias, seed=seed, name=f"{part}_conv")(x)
        rate = config.dropout_rate if drop else 0.0
        steps = [
            layers.dropout(rate, seed=seed, name=f"{part}_drop"),
            layers.normalization(config.normalization, filters, name=f"{part}_norm"),
        ]
        for step in steps:
            x = x if step is None else step(x)
        return x

    def act(x: Any, name: str) -> Any:
        return layers.activation(config.activation, name=name)(x)

    def block(x: Any, filters: int, part: str) -> Any:
        x = act(conv(x, filters, config.kernel, f"{part}_1"), f"{part}_1_act")
        return act(conv(x, filters, config.kernel, f"{part}_2", drop=True), f"{part}_2_act")

    def gate(skip: Any, decoded: Any, filters: int, part: str) -> Any:
        both = [
            conv(decoded, filters, 1, f"{part}_decoder"),
            conv(skip, filters, 1, f"{part}_skip", drop=True),
        ]
        x = act(keras.layers.Add(name=f"{part}_add")(both), f"{part}_act")
        weights = filters if config.gate == "channel" else 1
        x = layers.conv(weights, 1, seed=seed, name=f"{part}_weights_conv")(x)
        x = keras.layers.Activation("sigmoid", name=f"{part}_weights")(x)
        return keras.layers.Multiply(name=f"{part}_apply")([skip, x])

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
        x = layers.enlarge(2, name=f"dec{level}_up")(x)
        skip = gate(skips[level], x, config.filters(level), f"gate{level}")
        x = keras.layers.Concatenate(name=f"dec{level}_concat")([x, skip])
        x = block(x, config.filters(level), f"dec{level}")
        decoded.insert(0, (x, 2**level))
    if not config.deep_supervision:
        outputs = layers.logits(num_classes, seed=seed)(x)
    else:
        outputs = layers.supervised_logits(decoded, num_classes, seed=seed)
    return keras.Model(images, outputs, name="attention_unet")
