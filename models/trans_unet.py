"""TransUNet: a ResNet, a vision transformer on its deepest map, and the decoder of a U-Net.

After J. Chen et al.: TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation,
2021 (arXiv:2102.04306), in its hybrid form R50-ViT-B/16, with the transformer of A. Dosovitskiy et
al.: An Image is Worth 16x16 Words, ICLR 2021 (arXiv:2010.11929). What differs from the paper:
images of any size that fits, as positions are learned on a grid and stretched to the map;
the ResNet's kernels are not standardized, and its stem's maximum is padded on both sides; keys have
no bias, which no output depends on; nothing is pretrained.

Shapes for an image [B, H, W, C] and the defaults:

| part        | shape                                                                       |
|-------------|-----------------------------------------------------------------------------|
| ResNet      | [B, H / 2, W / 2, 64], [B, H / 4, W / 4, 256], [B, H / 8, W / 8, 512]: skips |
|             | [B, H / 16, W / 16, 1024]                                                   |
| transformer | [B, H / 16, W / 16, 768], 12 blocks of attention and a feed-forward part    |
| bridge      | [B, H / 16, W / 16, 512]                                                    |
| decoder     | strides 8, 4, 2, 1 with 256, 128, 64, 16 channels: enlarged bilinearly,     |
|             | beside the skip (stride 1 has none), two 3 x 3 convolutions                 |
| logits      | [B, H, W, num_classes], 3 x 3                                               |
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models.knobs import INPUT_NORMALIZATIONS, NORMALIZATIONS, check, knob

if TYPE_CHECKING:
    import keras

_LEVELS = 4  # of the decoder, and halvings of the encoder


@dataclasses.dataclass(frozen=True)
class TransUNetConfig:
    """The knobs of `trans_unet`."""

    blocks: tuple[int, ...] = knob(
        (3, 4, 9), "Residual blocks of the ResNet's three stages, strides 4, 8 and 16.", minimum=1
    )
    backbone_width: float = knob(1.0, "Factor of the ResNet's channels.")
    backbone_normalization: str = knob(
        "group", "What normalizes in the ResNet.", choices=NORMALIZATIONS
    )
    embed_width: int = knob(768, "Channels of the transformer.", minimum=1)
    layers: int = knob(12, "Blocks of the transformer.", minimum=0)
    heads: int = knob(12, "Heads of its attention; they divide embed_width.", minimum=1)
    mlp_width: int = knob(3072, "Width of its feed-forward parts.", minimum=1)
    dropout_rate: float = knob(
        0.1,
        "Share dropped after the positions, and after every linear layer of the feed-forward "
        "parts, in training.",
        minimum=0,
        below=1,
    )
    position_grid: int = knob(
        14, "Side of the learned grid of positions; 14 is that of 224 pixels.", minimum=1
    )
    bridge_filters: int = knob(512, "Filters between the transformer and the decoder.", minimum=1)
    decoder_filters: tuple[int, ...] = knob(
        (256, 128, 64, 16), "Filters of the 4 decoder levels, deepest first.", minimum=1
    )
    normalization: str = knob(
        "batch", "What normalizes in the bridge and the decoder.", choices=NORMALIZATIONS
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
        for name, count in (("blocks", 3), ("decoder_filters", _LEVELS)):
            if len(getattr(self, name)) != count:
                raise FlexsegError(
                    f"{name} must have {count} values; it has {len(getattr(self, name))}."
                )
        if self.embed_width % self.heads:
            raise FlexsegError(
                f"heads must divide embed_width; {self.heads} does not divide {self.embed_width}."
            )
        if not self.backbone_width > 0:
            raise FlexsegError(f"backbone_width must be above 0, not {self.backbone_width}.")

    @property
    def size_divisor(self) -> int:
        """What an image's sides must be multiples of, in pixels: the deepest map's stride."""
        return 2**_LEVELS

    @property
    def size_minimum(self) -> int:
        """The least side of an image, in pixels.

        Instance normalization makes a map of one pixel constant, so it needs two.
        """
        instance = "instance" in (self.normalization, self.backbone_normalization)
        return self.size_divisor * (2 if instance else 1)


def build(
    config: TransUNetConfig,
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

    from models import attention, backbones, layers

    def linear(x: Any, width: int, name: str) -> Any:
        return attention.dense(width, seed=seed, name=name)(x)

    def dropped(x: Any, name: str) -> Any:
        drop = layers.dropout(config.dropout_rate, seed=seed, name=name)
        return x if drop is None else drop(x)

    def transformer_block(x: Any, part: str) -> Any:
        y = attention.layer_norm(name=f"{part}_attention_norm")(x)
        y = attention.MapAttention(config.heads, seed=seed, name=f"{part}_attention")([y, y])
        x = keras.layers.Add(name=f"{part}_attention_add")([x, y])
        y = attention.layer_norm(name=f"{part}_mlp_norm")(x)
        y = linear(y, config.mlp_width, f"{part}_mlp_in")
        y = dropped(layers.activation("gelu", name=f"{part}_mlp_act")(y), f"{part}_mlp_in_drop")
        y = dropped(linear(y, config.embed_width, f"{part}_mlp_out"), f"{part}_mlp_drop")
        return keras.layers.Add(name=f"{part}_mlp_add")([x, y])

    def conv_unit(x: Any, filters: int, part: str) -> Any:
        bias = config.normalization in ("none", "group")
        x = layers.conv(filters, 3, bias=bias, seed=seed, name=f"{part}_conv")(x)
        norm = layers.normalization(
            config.normalization, filters, epsilon=1e-5, name=f"{part}_norm"
        )
        x = x if norm is None else norm(x)
        return layers.activation("relu", name=f"{part}_act")(x)

    images, x = layers.image_input(
        size,
        channels,
        scaling=config.input_normalization,
        divisor=config.size_divisor,
        minimum=config.size_minimum,
    )
    features = backbones.resnet(
        x,
        blocks=config.blocks,
        width=config.backbone_width,
        normalization=config.backbone_normalization,
        seed=seed,
    )
    ends = [f"conv{stage}_block{count}_out" for stage, count in enumerate(config.blocks, start=2)]
    skips = [None, *(features[name] for name in ("conv1_relu", *ends[:2]))]
    x = linear(features[ends[2]], config.embed_width, "embedding")
    x = attention.Positions(config.position_grid, seed=seed, name="positions")(x)
    x = dropped(x, "positions_drop")
    for index in range(1, config.layers + 1):
        x = transformer_block(x, f"transformer{index}")
    x = attention.layer_norm(name="transformer_norm")(x)
    x = conv_unit(x, config.bridge_filters, "bridge")
    decoded: list[tuple[Any, int]] = []
    for level, filters in zip(reversed(range(_LEVELS)), config.decoder_filters, strict=True):
        x = layers.enlarge(2, name=f"dec{level}_up")(x)
        if skips[level] is not None:
            x = keras.layers.Concatenate(name=f"dec{level}_concat")([x, skips[level]])
        x = conv_unit(conv_unit(x, filters, f"dec{level}_1"), filters, f"dec{level}_2")
        decoded.insert(0, (x, 2**level))
    outputs = layers.supervised_logits(
        decoded if config.deep_supervision else decoded[:1], num_classes, kernel=3, seed=seed
    )
    return keras.Model(
        images, outputs if config.deep_supervision else outputs[0], name="trans_unet"
    )
