"""A U-Net whose encoder is an EfficientNet.

The encoder is that of M. Tan, Q. Le: EfficientNet, ICML 2019 (arXiv:1905.11946), B0 to B7; the
decoder after O. Ronneberger et al.: U-Net, MICCAI 2015. Two decoders are known by the names of
networks that this project replaces; each is a set of knobs over one recipe:

- `efficient_unet`: skips from the ends of the encoder's stages; doubling by repetition; residual
  blocks (two convolutions of 3 x 3 beside one of 1 x 1), one of them below the lowest skip.
- `efficientnet_b7_unet`: B7; skips from within the first block of each stage, after its depthwise
  convolution; transposed convolutions; blocks of two convolutions with 512, 256, 128, 64, 32
  filters; nothing between encoder and decoder.

What differs from the originals: logits for any number of classes; convolutions have no bias where
batch normalization follows; skips of `efficient_unet` are taken after the sum with the shortcut
instead of before it, and from the last block of each stage, which B0's block names only were for
B0; the image's own values come in standardized, also as the uppermost skip; no part is frozen and
no weights are downloaded unless asked for.

Shapes for an image [B, H, W, C] and B0, skips of the decoder's level i and its output:

| level  | stride | skip                                  | output of the decoder         |
|--------|--------|---------------------------------------|-------------------------------|
| 0      | 1      | [B, H, W, C], the standardized image  | [B, H, W, 16]                 |
| 1      | 2      | [B, H / 2, W / 2, 16], stage 1        | [B, H / 2, W / 2, 16]         |
| 2      | 4      | [B, H / 4, W / 4, 24], stage 2        | [B, H / 4, W / 4, 24]         |
| 3      | 8      | [B, H / 8, W / 8, 40], stage 3        | [B, H / 8, W / 8, 40]         |
| 4      | 16     | [B, H / 16, W / 16, 112], stage 5     | [B, H / 16, W / 16, 112]      |
| bridge | 32     | [B, H / 32, W / 32, 320], stage 7     | the same after a block        |
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models import backbones
from models.knobs import check, knob

if TYPE_CHECKING:
    import keras

_LEVELS = 5


@dataclasses.dataclass(frozen=True)
class EfficientUNetConfig:
    """The knobs of `efficient_unet`."""

    variant: str = knob(
        "b0", "Which EfficientNet encodes, from b0 to b7.", choices=[f"b{i}" for i in range(8)]
    )
    weights: str = knob("none", backbones.WEIGHTS_DOC)
    frozen_stages: int = knob(
        0,
        "Stages of the encoder, of 7, that keep their first weights, with the stem; 0 trains all.",
        minimum=0,
        below=8,
    )
    width: float = knob(1.0, backbones.WIDTH_DOC)
    depth: float = knob(1.0, backbones.DEPTH_DOC)
    stochastic_depth: float = knob(
        0.2,
        "Share of the images that skip the encoder's last block in training; less at earlier ones.",
        minimum=0,
        below=1,
    )
    taps: str = knob(
        "stage_ends",
        'Where the skips begin: "stage_ends" of stages 1, 2, 3, 5, 7, or "depthwise" of the first '
        "block of stages 1, 2, 3, 4, 7.",
        choices=("stage_ends", "depthwise"),
    )
    upsampling: str = knob(
        "nearest",
        'How the decoder doubles the size: "nearest" repeats pixels, "transposed" convolves.',
        choices=("nearest", "transposed"),
    )
    decoder_block: str = knob(
        "residual",
        'The decoder\'s block: two convolutions; "residual" adds a 1 x 1 one beside them.',
        choices=("residual", "plain"),
    )
    bridge_block: bool = knob(True, "Whether such a block also works on the deepest features.")
    decoder_filters: tuple[int, ...] = knob(
        (), "Filters of the 5 decoder levels, deepest first, instead of the skips' own.", minimum=1
    )
    dropout_rate: float = knob(
        0.0, "Share dropped between a decoder block's two convolutions.", minimum=0, below=1
    )
    deep_supervision: bool = knob(
        False,
        "Whether logits come from every decoder level; the result is a list of them, the main ones "
        "first.",
    )

    def __post_init__(self) -> None:
        check(self)
        backbones.check_weights(self.weights, self.width, self.depth)
        if len(self.decoder_filters) not in (0, _LEVELS):
            raise FlexsegError(
                f"decoder_filters must have one value for each of the {_LEVELS} decoder levels, or "
                f"none at all; it has {len(self.decoder_filters)}."
            )

    @property
    def backbone(self) -> str:
        """The encoder's name in `backbones`."""
        return f"efficientnet_{self.variant}"

    @property
    def size_divisor(self) -> int:
        """What an image's sides must be multiples of, in pixels: the encoder halves five times."""
        return 2**_LEVELS

    @property
    def size_minimum(self) -> int:
        """The least side of an image, in pixels."""
        return self.size_divisor

    def tap_names(self) -> list[str]:
        """The encoder's layers from which the decoder reads, strides 2, 4, 8, 16 and 32."""
        if self.taps == "depthwise":
            return [f"block{stage}a_activation" for stage in (1, 2, 3, 4, 7)]
        return [backbones.stage_end(self.backbone, s, self.depth) for s in (1, 2, 3, 5, 7)]


def _again(name: str, default: Any) -> Any:
    """The knob of that name of `EfficientUNetConfig` with another default."""
    (field,) = (f for f in dataclasses.fields(EfficientUNetConfig) if f.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


@dataclasses.dataclass(frozen=True)
class EfficientNetB7UNetConfig(EfficientUNetConfig):
    """The knobs of `efficient_unet` with the defaults that make it `efficientnet_b7_unet`."""

    variant: str = _again("variant", "b7")
    taps: str = _again("taps", "depthwise")
    upsampling: str = _again("upsampling", "transposed")
    decoder_block: str = _again("decoder_block", "plain")
    bridge_block: bool = _again("bridge_block", False)
    decoder_filters: tuple[int, ...] = _again("decoder_filters", (512, 256, 128, 64, 32))


def build(
    config: EfficientUNetConfig,
    *,
    num_classes: int,
    channels: int = 3,
    size: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
) -> keras.Model:
    """Builds the network; arguments and result are those of `registry.build`.

    With deep_supervision the model's output is a list of tensors of that shape.

    Raises:
      FlexsegError: the weights asked for cannot be had, or do not fit the channels.
    """
    import keras

    from models import layers

    def conv_unit(x: Any, filters: int, part: str, number: int) -> Any:
        x = layers.conv(filters, 3, bias=False, seed=seed, name=f"{part}_conv{number}")(x)
        x = layers.batch_normalization(name=f"{part}_norm{number}")(x)
        return layers.activation("relu", name=f"{part}_act{number}")(x)

    def block(x: Any, filters: int, part: str) -> Any:
        block_input = x
        x = conv_unit(x, filters, part, 1)
        drop = layers.dropout(config.dropout_rate, seed=seed, name=f"{part}_drop")
        x = x if drop is None else drop(x)
        x = conv_unit(x, filters, part, 2)
        if config.decoder_block == "plain":
            return x
        shortcut = layers.conv(filters, 1, seed=seed, name=f"{part}_shortcut_conv")(block_input)
        return keras.layers.Add(name=f"{part}_add")([x, shortcut])

    def double(x: Any, filters: int, part: str) -> Any:
        if config.upsampling == "transposed":
            return layers.upsample(filters, seed=seed, name=f"{part}_up")(x)
        return keras.layers.UpSampling2D(2, name=f"{part}_up")(x)

    images, x = layers.image_input(
        size, channels, scaling="none", divisor=config.size_divisor, minimum=config.size_minimum
    )
    image = backbones.normalize(x, config.backbone)
    taps = config.tap_names()
    features = backbones.features(
        config.backbone,
        image,
        last=taps[-1].partition("_")[0],
        width=config.width,
        depth=config.depth,
        drop_rate=config.stochastic_depth,
        seed=seed,
    )
    *skips, x = [image, *(features[name] for name in taps)]
    if config.bridge_block:
        x = block(x, x.shape[-1], "bridge")
    # The image has too few channels to say how many its level should have.
    filters = [skip.shape[-1] for skip in (skips[1], *skips[1:])]
    if config.decoder_filters:
        filters = list(reversed(config.decoder_filters))
    decoded: list[tuple[Any, int]] = []
    for level in reversed(range(_LEVELS)):
        x = double(x, filters[level], f"dec{level}")
        x = keras.layers.Concatenate(name=f"dec{level}_concat")([x, skips[level]])
        x = block(x, filters[level], f"dec{level}")
        decoded.insert(0, (x, 2**level))
    outputs = layers.supervised_logits(
        decoded if config.deep_supervision else decoded[:1], num_classes, seed=seed
    )
    model = keras.Model(
        images, outputs if config.deep_supervision else outputs[0], name="efficient_unet"
    )
    backbones.load(model, config.backbone, config.weights)
    if config.frozen_stages:
        stages = [f"block{stage}" for stage in range(1, config.frozen_stages + 1)]
        backbones.freeze(model, ["stem_", *stages])
    return model
