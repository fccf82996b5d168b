"""UNet 3+: every decoder level sees every level of the encoder and all deeper ones of the decoder.

After H. Huang et al.: UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation, ICASSP
2020 (arXiv:2004.08790). Its network has base_filters 64; 16 is what the projects before this one
took. What differs from both: a convolution whose normalization takes the mean away has no bias,
which leaves out 1,632 of the older network's 1,693,537 parameters for one class (with its setting
of six levels, which widened five to 96 channels each and added none, it had 1,753,905); weights are
decayed by the trainer, not by a penalty of the network's own. What differs from the paper besides:
levels are free; the classification-guided module, there a yes or no for the whole image that has a
loss of its own, is here a degree of belief for each class but the first, learned from the loss of
the logits.

Shapes for an image [B, H, W, C], B filters written F, level i in 0 .. L - 1:

| level                | encoder                      | decoder                      |
|----------------------|------------------------------|------------------------------|
| i                    | [B, H / 2^i, W / 2^i, F 2^i] | [B, H / 2^i, W / 2^i, F L]   |
| L - 1 (the "bridge") | [B, H / 2^(L-1), W / 2^(L-1), F 2^(L-1)] | the same map     |
| logits               |                              | [B, H, W, num_classes]       |

Decoder level i joins L maps of F channels, each after a convolution of its own: encoder levels
0 .. i - 1, shrunk by maximum; encoder level i; decoder levels i + 1 .. L - 1, enlarged bilinearly.
Logits come from 3 x 3 convolutions. With `deep_supervision` they come from all L decoder levels.

With `classification_guided`, a 1 x 1 convolution of the bridge gives each class k but the first (a
single class counts, too) a value at each place, whose maximum c_k says whether the class is in the
image at all. log(sigmoid(c_k)), which is never positive, is added to all its logits: its odds
against the background are multiplied by the probability that it is there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models.knobs import ACTIVATIONS, INPUT_NORMALIZATIONS, NORMALIZATIONS, check, knob
from models.pyramid import Pyramid

if TYPE_CHECKING:
    import keras

_GUIDE_DROPOUT = 0.5  # of the bridge, before the classes are judged; the paper's


@dataclasses.dataclass(frozen=True)
class UNet3PlusConfig(Pyramid):
    """The knobs of `unet3_plus`."""

    base_filters: int = knob(
        16,
        "Filters of level 0, which double with every level of the encoder; and of each map that a "
        "decoder level joins. The paper has 64.",
        minimum=1,
    )
    levels: int = knob(
        5, "Resolutions from the image's own down to the bridge's; each halves it.", minimum=1
    )
    dropout_rate: float = knob(
        0.0,
        "Share dropped after every convolution, in training; twice as much after an encoder "
        "level's second.",
        minimum=0,
        below=0.5,
    )
    activation: str = knob(
        "relu", "Activation after every convolution but the last.", choices=ACTIVATIONS
    )
    normalization: str = knob(
        "batch", "What normalizes before every activation.", choices=NORMALIZATIONS
    )
    deep_supervision: bool = knob(
        False,
        "Whether logits come from every decoder level and the bridge; the result is a list of "
        "them, the main ones first.",
    )
    classification_guided: bool = knob(
        False,
        "Whether the network also judges which classes are in the image at all, and lowers the "
        "logits of those that it thinks are not.",
    )
    input_normalization: str = knob(
        "unit",
        'What the network does to the values 0..255: "unit" divides by 255, "none" leaves them.',
        choices=INPUT_NORMALIZATIONS,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.deep_supervision and self.levels < 2:
            raise FlexsegError(
                f"deep_supervision needs levels of at least 2, not {self.levels}: with one there "
                "are no other logits."
            )


def build(
    config: UNet3PlusConfig,
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
    from models.class_guide import ClassGuide

    def conv_unit(x: Any, filters: int, part: str, rate: float = config.dropout_rate) -> Any:
        x = layers.conv(filters, 3, bias=config.conv_bias, seed=seed, name=f"{part}_conv")(x)
        for step in (
            layers.dropout(rate, seed=seed, name=f"{part}_drop"),
            layers.normalization(config.normalization, filters, name=f"{part}_norm"),
            layers.activation(config.activation, name=f"{part}_act"),
        ):
            x = x if step is None else step(x)
        return x

    def brought(x: Any, source: int, target: int, part: str) -> Any:
        """A map of level `source` at the size of level `target`, in base_filters channels."""
        if source < target:
            x = keras.layers.MaxPooling2D(2 ** (target - source), name=f"{part}_pool")(x)
        elif source > target:
            x = layers.enlarge(2 ** (source - target), name=f"{part}_up")(x)
        return conv_unit(x, config.base_filters, part)

    images, x = layers.image_input(
        size,
        channels,
        scaling=config.input_normalization,
        divisor=config.size_divisor,
        minimum=config.size_minimum,
    )
    maps = []
    for level in range(config.levels):
        if level:
            x = keras.layers.MaxPooling2D(2, name=f"enc{level}_pool")(x)
        x = conv_unit(x, config.filters(level), f"enc{level}_1")
        x = conv_unit(x, config.filters(level), f"enc{level}_2", 2 * config.dropout_rate)
        maps.append(x)
    for level in reversed(range(config.levels - 1)):
        # From below, the decoder's maps take the places of the encoder's.
        joined = [
            brought(maps[source], source, level, f"dec{level}_from{source}")
            for source in range(config.levels)
        ]
        x = keras.layers.Concatenate(name=f"dec{level}_concat")(joined)
        maps[level] = conv_unit(x, config.base_filters * config.levels, f"dec{level}")

    guide = None
    if config.classification_guided:
        drop_seed = layers.layer_seed(seed, "presence_drop")
        x = layers.Dropout(_GUIDE_DROPOUT, seed=drop_seed, name="presence_drop")(maps[-1])
        judged = max(1, num_classes - 1)
        x = layers.logits(judged, seed=seed, name="presence_places")(x)
        guide = keras.layers.GlobalMaxPooling2D(name="presence", dtype="float32")(x)
    outputs = []
    for level in range(config.levels if config.deep_supervision else 1):
        name = f"logits_{level}" if level else "logits"
        unguided = f"{name}_unguided" if guide is not None else name
        x = layers.logits(num_classes, kernel=3, seed=seed, name=unguided)(maps[level])
        if level:
            x = layers.enlarge(2**level, name=f"{name}_up", dtype="float32")(x)
        outputs.append(x if guide is None else ClassGuide(name=name, dtype="float32")([x, guide]))
    return keras.Model(
        images, outputs if config.deep_supervision else outputs[0], name="unet3_plus"
    )
