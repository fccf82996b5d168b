"""The architectures by name, and the one function that builds any of them.

Importing this module imports neither Keras nor TensorFlow: an architecture's file holds its config
at the top and loads Keras inside its build function. To add one, write its file and its line in the
table below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from flexseg_errors import FlexsegError, nearest
from models import (
    attention_unet,
    deeplab_v3_plus,
    efficient_unet,
    flex_unet,
    multires_unet,
    residual_unet,
    segformer,
    sharp_unet,
    swin_unet,
    trans_unet,
    u2net,
    unet3_plus,
)
from models.knobs import knob
from models.sizes import check_size, nearest_valid_sizes

if TYPE_CHECKING:
    import keras

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "NetworkConfig",
    "build",
    "check_size",
    "configure",
    "find",
    "knob",
    "nearest_valid_sizes",
    "size_divisor",
]


class NetworkConfig(Protocol):
    """What every architecture's config has beside its knobs."""

    @property
    def size_divisor(self) -> int:
        """What an image's sides must be multiples of, in pixels."""

    @property
    def size_minimum(self) -> int:
        """The least side of an image, in pixels."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One family of networks.

    Attributes:
      name: what it is called in experiments.
      config: the frozen dataclass of its knobs; each field's metadata holds its "doc".
      build: from a config to a model, with the keywords num_classes, channels, size and seed.
      summary: one line for lists.
    """

    name: str
    config: type[Any]
    build: Callable[..., keras.Model]
    summary: str


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="flex_unet",
            config=flex_unet.FlexUNetConfig,
            build=flex_unet.build,
            summary="U-Net with free depth, width, kernels, dilations and dropout per level",
        ),
        Architecture(
            name="residual_unet",
            config=residual_unet.ResidualUNetConfig,
            build=residual_unet.build,
            summary="nnU-Net's ResEnc: a deep residual encoder, with deep supervision by knob",
        ),
        Architecture(
            name="efficient_unet",
            config=efficient_unet.EfficientUNetConfig,
            build=efficient_unet.build,
            summary="U-Net over an EfficientNet, B0 to B7, with ImageNet's weights by knob",
        ),
        Architecture(
            name="efficientnet_b7_unet",
            config=efficient_unet.EfficientNetB7UNetConfig,
            build=efficient_unet.build,
            summary="efficient_unet with B7 and a wide, plain decoder",
        ),
        Architecture(
            name="deeplab_v3_plus",
            config=deeplab_v3_plus.DeepLabV3PlusConfig,
            build=deeplab_v3_plus.build,
            summary="Dilated context over a ResNet50 or EfficientNet, and a small decoder",
        ),
        Architecture(
            name="segformer",
            config=segformer.SegFormerConfig,
            build=segformer.build,
            summary="Attention at four resolutions and a linear decoder, B0 to B2",
        ),
        Architecture(
            name="swin_unet",
            config=swin_unet.SwinUNetConfig,
            build=swin_unet.build,
            summary="U-Net of attention within shifted windows, without convolutions",
        ),
        Architecture(
            name="trans_unet",
            config=trans_unet.TransUNetConfig,
            build=trans_unet.build,
            summary="U-Net over a ResNet with a vision transformer at the bridge",
        ),
        Architecture(
            name="attention_unet",
            config=attention_unet.AttentionUNetConfig,
            build=attention_unet.build,
            summary="U-Net whose skips pass attention gates",
        ),
        Architecture(
            name="multires_unet",
            config=multires_unet.MultiResUNetConfig,
            build=multires_unet.build,
            summary="U-Net of blocks that see three sizes at once, with convolved skips",
        ),
        Architecture(
            name="sharp_unet",
            config=sharp_unet.SharpUNetConfig,
            build=sharp_unet.build,
            summary="U-Net whose skips are sharpened by a fixed Laplacian",
        ),
        Architecture(
            name="u2net",
            config=u2net.U2NetConfig,
            build=u2net.build,
            summary="U-Net whose blocks are U-Nets, with side outputs by knob",
        ),
        Architecture(
            name="unet3_plus",
            config=unet3_plus.UNet3PlusConfig,
            build=unet3_plus.build,
            summary="UNet 3+: full-scale skips, deep supervision and class guidance by knob",
        ),
    )
}


def find(name: str) -> Architecture:
    """Returns the architecture of that name.

    Raises:
      FlexsegError: there is none; names the known ones and the nearest.
    """
    if name not in ARCHITECTURES:
        raise FlexsegError(
            f'The architecture "{name}" is unknown; known are {", ".join(ARCHITECTURES)}.'
            f"{nearest(name, ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def configure(name: str, config: NetworkConfig | None = None, **knobs: Any) -> NetworkConfig:
    """Makes an architecture's config from knobs by name, as a file or a flag gives them.

    Args:
      name: the architecture.
      config: what to start from; the defaults where None.
      **knobs: the fields to set. Lists, which is how YAML writes tuples, become tuples.

    Raises:
      FlexsegError: an unknown architecture or knob (names the nearest), a config of another
        architecture, or a value that does not fit.
    """
    expected = find(name).config
    if config is None:
        config = expected()
    elif not isinstance(config, expected):
        raise FlexsegError(
            f'"{name}" is configured by {expected.__name__}, not by {type(config).__name__}.'
        )
    known = [field.name for field in dataclasses.fields(expected)]
    for key in knobs:
        if key not in known:
            raise FlexsegError(
                f'"{name}" has no knob "{key}"; it has {", ".join(known)}.{nearest(key, known)}'
            )
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in knobs.items()}
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def size_divisor(name: str, config: NetworkConfig | None = None) -> int:
    """What both sides of an image must be multiples of, in pixels, for this network."""
    return configure(name, config).size_divisor


def build(
    name: str,
    *,
    config: NetworkConfig | None = None,
    num_classes: int,
    channels: int = 3,
    size: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
    **knobs: Any,
) -> keras.Model:
    """Builds a network from images to logits.

    Keras' global dtype policy governs the layers; the logits are float32 under any policy.

    Args:
      name: the architecture, a key of `ARCHITECTURES`.
      config: its knobs as a config object; the defaults where None.
      num_classes: how many logits each pixel gets, for a softmax; 1 for a single sigmoid logit.
      channels: of the images.
      size: (height, width) of the images in pixels, None where it varies.
      seed: what every initial weight and dropout mask is derived from: the same seed, config and
        backend give the same network.
      **knobs: fields of the config by name, over those of `config`.

    Returns:
      A model from images [B, H, W, channels], uint8 or float, values 0..255, to logits
      [B, H, W, num_classes] float32.

    Raises:
      FlexsegError: an unknown architecture or knob, a value that does not fit, or a size that the
        network cannot take.
    """
    config = configure(name, config, **knobs)
    for what, value in (("num_classes", num_classes), ("channels", channels)):
        if value < 1:
            raise FlexsegError(f"{what} must be at least 1, not {value}.")
    check_size(size, config.size_divisor, config.size_minimum)
    return find(name).build(
        config, num_classes=num_classes, channels=channels, size=size, seed=seed
    )
