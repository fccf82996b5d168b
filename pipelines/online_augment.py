"""Online augmentation in the graph: every example differently in every epoch, and repeatably.

All randomness is a function of (seed, position in the endless stream of examples), so that a run
that is resumed sees what an unbroken one sees. Image and mask share one geometric draw, resampled
once (see `online_warps`). What changes the look (`online_colors`) touches the image alone.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import online_colors, online_warps

# Which draws are whose, so that switching one part on changes no draw of another.
_MORE_PLACES, _LOOKS, _NOISE, _MIXING = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges to draw from; zero or False switches a part off.

    Attributes:
      flip_horizontal: mirror left and right in half of the cases.
      flip_vertical: mirror top and bottom in half of the cases.
      rotate90: turn by a random multiple of 90 degrees.
      rotation: turn by up to this many degrees either way.
      scale: enlarge or reduce by up to this share; 0.25 is from 1/1.25 to 1.25.
      brightness: add up to this share of the full range, either way.
      contrast: stretch about the image's mean by up to this share, either way.
      shear: slant by up to this many pixels sideways for each pixel down, either way.
      elastic: move pixels smoothly by up to this share of the shorter side, along x and along y.
      gamma: 255 (x / 255)^g with g from 1 / (1 + gamma) to 1 + gamma.
      hue: turn hue by up to this share of the circle, either way.
      saturation: multiply saturation by 1 - saturation to 1 + saturation.
      blur: smooth by a Gaussian of up to this many pixels.
      noise: add normal noise of a deviation of up to this share of the full range.
      cutout: fill a box of up to this share of each side with the image's mean; the mask stays, as
        in DeVries and Taylor (2017): what is hidden is to be told from what is around it.
      cutmix: in this share of the examples a box comes, with its mask, from another example of the
        batch (Yun et al., 2019): half the sum of two class ids would be no class, but each pixel of
        a pasted box has its own.
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    rotate90: bool = False
    rotation: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    gamma: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0
    cutmix: float = 0.0

    @property
    def geometric(self) -> bool:
        return bool(
            self.flip_horizontal
            or self.flip_vertical
            or self.rotate90
            or self.rotation
            or self.scale
            or self.shear
            or self.elastic
        )

    @property
    def looks(self) -> bool:
        return bool(
            self.brightness
            or self.contrast
            or self.gamma
            or self.hue
            or self.saturation
            or self.blur
            or self.noise
            or self.cutout
        )

    def check(self, channels: int, batch_size: int) -> None:
        """Holds the parts to what they can be applied to.

        Raises:
          FlexsegError: where a part needs colours, or a second example, and there is none.
        """
        for name in ("hue", "saturation"):
            if getattr(self, name) and channels != 3:
                raise FlexsegError(
                    f"augment.{name}={getattr(self, name)} needs images of 3 channels; these have "
                    f"{channels}. Set augment.{name}=0."
                )
        if self.cutmix and batch_size < 2:
            raise FlexsegError(
                f"augment.cutmix={self.cutmix} needs two examples or more in a batch (of each "
                f"worker, of several); there is {batch_size}. Set augment.cutmix=0 or enlarge "
                "data.batch_size."
            )


def augment(
    image: tf.Tensor,
    mask: tf.Tensor,
    seed: int,
    position: tf.Tensor,
    augmentation: Augmentation,
    size: tuple[int, int] | None,
    focus: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Augments one example, and crops it to `size` at a random place.

    Args:
      image: uint8 [H, W, C].
      mask: uint8 [H, W], class ids.
      seed: the run's seed.
      position: int64 scalar, the example's place in the stream.
      augmentation: what to draw from.
      size: (height, width) of the result; None keeps that of the input. What lies outside the
        input is filled by reflection, in image and mask alike.
      focus: (y, x) of a pixel that the crop must show, int64 [2], negative for none.

    Returns:
      (uint8 [h, w, C], uint8 [h, w])
    """
    key = tf.stack([tf.cast(seed, tf.int64), position])
    draw = tf.random.stateless_uniform([10], key)
    if augmentation.geometric or size is not None:
        count = online_warps.draws_needed(augmentation)
        more = tf.random.stateless_uniform([count], _own(key, _MORE_PLACES))
        shape = tf.shape(mask) if size is None else tf.constant(size, tf.int32)
        window = online_warps.draw_window(tf.shape(mask), shape, augmentation, draw, more, focus)
        channels = image.shape[-1]
        take = online_warps.resample if augmentation.geometric else online_warps.crop
        image, mask = take(image, mask, window)
        if size is not None:
            image, mask = tf.ensure_shape(image, [*size, channels]), tf.ensure_shape(mask, size)
    if augmentation.looks:
        image = _looks(image, key, augmentation, draw)
    return image, mask


def mix(
    images: tf.Tensor,
    masks: tf.Tensor,
    partners: tuple[tf.Tensor, tf.Tensor],
    seed: int,
    positions: tf.Tensor,
    augmentation: Augmentation,
) -> tuple[tf.Tensor, tf.Tensor]:
    """CutMix: a box of some examples comes, with its mask, from a partner.

    The box covers a share of the picture that is uniform in [0, 1), less what borders cut off.

    Args:
      images: uint8 [B, H, W, C].
      masks: uint8 [B, H, W].
      partners: images and masks of the partners, of the same shapes.
      seed: the run's seed.
      positions: int64 [B], places in the stream.
      augmentation: `cutmix` is the share of the examples that are mixed.
    """
    keys = tf.stack([tf.fill(tf.shape(positions), tf.cast(seed, tf.int64)), positions], 1)

    def inside(key: tf.Tensor) -> tf.Tensor:
        draw = tf.random.stateless_uniform([4], _own(key, _MIXING))
        wanted = tf.cast(draw[0] < augmentation.cutmix, tf.float32)
        share = tf.sqrt(draw[1]) * wanted
        return online_colors.box(tf.shape(masks)[1:], share, draw[2:])

    boxes = tf.map_fn(inside, keys, fn_output_signature=tf.bool)
    boxes = tf.ensure_shape(boxes, masks.shape)
    return tf.where(boxes[..., None], partners[0], images), tf.where(boxes, partners[1], masks)


def _looks(
    image: tf.Tensor, key: tf.Tensor, augmentation: Augmentation, draw: tf.Tensor
) -> tf.Tensor:
    """Applies what touches the image alone."""
    more = tf.random.stateless_uniform([8], _own(key, _LOOKS))

    def either_way(value: tf.Tensor) -> tf.Tensor:
        return 2.0 * value - 1.0

    if augmentation.gamma:
        pixels = online_colors.gamma(image, tf.pow(1.0 + augmentation.gamma, either_way(more[0])))
    else:
        pixels = tf.cast(image, tf.float32)
    if augmentation.brightness or augmentation.contrast:
        pixels = online_colors.stretch(
            pixels,
            1.0 + augmentation.contrast * either_way(draw[7]),
            255.0 * augmentation.brightness * either_way(draw[8]),
        )
    if augmentation.hue or augmentation.saturation:
        pixels = online_colors.turn_hue(
            pixels,
            augmentation.hue * either_way(more[1]),
            1.0 + augmentation.saturation * either_way(more[2]),
        )
    if augmentation.blur:
        pixels = online_colors.blur(pixels, augmentation.blur * more[3], augmentation.blur)
    if augmentation.noise:
        sigma = 255.0 * augmentation.noise * more[4]
        pixels = online_colors.noise(pixels, sigma, _own(key, _NOISE))
    if augmentation.cutout:
        pixels = online_colors.cut_out(pixels, augmentation.cutout * more[5], more[6:])
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)


def _own(key: tf.Tensor, number: int) -> tf.Tensor:
    """A key whose draws have nothing to do with those of the given one."""
    return tf.random.experimental.stateless_fold_in(key, number)
