"""DeepLab v3+: a backbone, context from several dilations, and a small decoder.

After L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam: Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation, ECCV 2018 (arXiv:1802.02611), in the form of the
projects that this one replaces: ResNet50 up to the last block of its third stage, of which only the
3 x 3 convolution is kept. What differs from them: images are standardized by the network; there is
no bias where batch normalization follows (14,528 of their 11,852,610 parameters for two classes);
an EfficientNet can be the backbone as well, read at the ends of its stages 2 and 5. What differs
from the paper: convolutions are plain instead of separable.

Shapes for an image [B, H, W, C] and ResNet50, A = aspp_filters:

| part      | shape                                                                        |
|-----------|------------------------------------------------------------------------------|
| low level | [B, H / 4, W / 4, 64], then 1 x 1 to low_filters                             |
| deep      | [B, H / 16, W / 16, 256]                                                     |
| ASPP      | [B, H / 16, W / 16, A] from each of: the mean over the map, 1 x 1, and 3 x 3 |
|           | with each of the rates; side by side, then 1 x 1 to A                        |
| decoder   | [B, H / 4, W / 4, A + low_filters], then two 3 x 3 to A                      |
| logits    | [B, H, W, num_classes], 1 x 1 and enlarged four times                        |
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from models import backbones
from models.knobs import check, knob

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class DeepLabV3PlusConfig:
    """The knobs of `deeplab_v3_plus`."""

    backbone: str = knob("resnet50", "The network that encodes.", choices=backbones.BACKBONES)
    weights: str = knob("none", backbones.WEIGHTS_DOC)
    frozen: bool = knob(False, "Whether the backbone keeps its first weights and statistics.")
    width: float = knob(1.0, backbones.WIDTH_DOC)
    depth: float = knob(1.0, backbones.DEPTH_DOC)
    stochastic_depth: float = knob(
        0.2,
        "Share of the images that skip an EfficientNet's last block in training; less at earlier "
        "ones. A ResNet has none.",
        minimum=0,
        below=1,
    )
    aspp_filters: int = knob(256, "Filters of the branches, their union, the decoder.", minimum=1)
    aspp_rates: tuple[int, ...] = knob(
        (6, 12, 18), "Dilation of each 3 x 3 branch, in pixels of the deep map.", minimum=1
    )
    low_filters: int = knob(48, "Filters that the low level is brought down to.", minimum=1)
    dropout_rate: float = knob(
        0.0, "Share dropped after the union of the branches, in training.", minimum=0, below=1
    )

    def __post_init__(self) -> None:
        check(self)
        backbones.check_weights(self.weights, self.width, self.depth)
        if not self.aspp_rates:
            raise FlexsegError(
                "aspp_rates must have at least one dilation, such as 6; it is empty."
            )

    @property
    def size_divisor(self) -> int:
        """What an image's sides must be multiples of, in pixels: the deep map's stride."""
        return 16

    @property
    def size_minimum(self) -> int:
        """The least side of an image, in pixels."""
        return 16

    def tap_names(self) -> tuple[str, str]:
        """The backbone's layers of strides 4 and 16 from which the rest reads."""
        if self.backbone == "resnet50":
            low, deep = (backbones.stage_end("resnet50", stage, self.depth) for stage in (2, 4))
            return low.replace("_out", "_2_relu"), deep.replace("_out", "_2_relu")
        low, deep = (backbones.stage_end(self.backbone, stage, self.depth) for stage in (2, 5))
        return low, deep


def build(
    config: DeepLabV3PlusConfig,
    *,
    num_classes: int,
    channels: int = 3,
    size: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
) -> keras.Model:
    """Builds the network; arguments and result are those of `registry.build`.

    Raises:
      FlexsegError: the weights asked for cannot be had, or do not fit the channels.
    """
    import keras

    from models import layers

    def conv_unit(x: Any, filters: int, kernel: int, part: str, dilation: int = 1) -> Any:
        conv = layers.conv(
            filters, kernel, dilation=dilation, bias=False, seed=seed, name=f"{part}_conv"
        )
        x = layers.batch_normalization(name=f"{part}_norm")(conv(x))
        return layers.activation("relu", name=f"{part}_act")(x)

    images, x = layers.image_input(
        size, channels, scaling="none", divisor=config.size_divisor, minimum=config.size_minimum
    )
    low_tap, deep_tap = config.tap_names()
    block = "_".join(deep_tap.split("_")[: 2 if config.backbone == "resnet50" else 1])
    features = backbones.features(
        config.backbone,
        backbones.normalize(x, config.backbone),
        last=block,
        width=config.width,
        depth=config.depth,
        drop_rate=config.stochastic_depth,
        seed=seed,
    )
    deep, filters = features[deep_tap], config.aspp_filters
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True, name="aspp_pool")(deep)
    pooled = conv_unit(pooled, filters, 1, "aspp_pool")
    branches = [layers.Spread(name="aspp_pool_spread")([pooled, deep])]
    branches.append(conv_unit(deep, filters, 1, "aspp_point"))
    for number, rate in enumerate(config.aspp_rates, start=1):
        branches.append(conv_unit(deep, filters, 3, f"aspp_dilated{number}", rate))
    x = keras.layers.Concatenate(name="aspp_concat")(branches)
    x = conv_unit(x, filters, 1, "aspp_union")
    drop = layers.dropout(config.dropout_rate, seed=seed, name="aspp_drop")
    x = x if drop is None else drop(x)
    x = layers.enlarge(4, name="decoder_up")(x)
    low = conv_unit(features[low_tap], config.low_filters, 1, "low")
    x = keras.layers.Concatenate(name="decoder_concat")([x, low])
    x = conv_unit(x, filters, 3, "decoder1")
    x = conv_unit(x, filters, 3, "decoder2")
    x = layers.enlarge(4, name="logits_up", dtype="float32")(
        layers.logits(num_classes, seed=seed)(x)
    )
    model = keras.Model(images, x, name="deeplab_v3_plus")
    backbones.load(model, config.backbone, config.weights)
    if config.frozen:
        backbones.freeze(model, ["conv", "stem_", "block"])
    return model
