"""Online augmentation in the graph: every example differently in every epoch, and repeatably.

All randomness is a function of (seed, position in the endless stream of examples), so that a run
that is resumed sees what an unbroken one sees. Image and mask share one affine draw, resampled
once: the image linearly, the mask by nearest neighbour. Brightness and contrast touch the image
alone.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf


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
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    rotate90: bool = False
    rotation: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    @property
    def geometric(self) -> bool:
        return bool(
            self.flip_horizontal
            or self.flip_vertical
            or self.rotate90
            or self.rotation
            or self.scale
        )


def augment(
    image: tf.Tensor,
    mask: tf.Tensor,
    seed: int,
    position: tf.Tensor,
    augmentation: Augmentation,
    size: tuple[int, int] | None,
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

    Returns:
      (uint8 [h, w, C], uint8 [h, w])
    """
    draw = tf.random.stateless_uniform([10], tf.stack([tf.cast(seed, tf.int64), position]))
    if augmentation.geometric or size is not None:
        image, mask = _warp(image, mask, draw, augmentation, size)
    if augmentation.brightness or augmentation.contrast:
        pixels = tf.cast(image, tf.float32)
        mean = tf.reduce_mean(pixels)
        stretch = 1.0 + augmentation.contrast * (2.0 * draw[7] - 1.0)
        shift = 255.0 * augmentation.brightness * (2.0 * draw[8] - 1.0)
        pixels = (pixels - mean) * stretch + mean + shift
        image = tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)
    return image, mask


def _warp(
    image: tf.Tensor,
    mask: tf.Tensor,
    draw: tf.Tensor,
    augmentation: Augmentation,
    size: tuple[int, int] | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    source = tf.cast(tf.shape(mask), tf.float32)
    shape = tf.shape(mask) if size is None else tf.constant(size, tf.int32)
    target = tf.cast(shape, tf.float32)

    # The matrix takes a pixel of the result, counted from its centre, to one of the input.
    def coin(value: tf.Tensor, wanted: bool) -> tf.Tensor:
        return tf.where(value < 0.5, -1.0, 1.0) if wanted else tf.constant(1.0)

    mirror_x = coin(draw[0], augmentation.flip_horizontal)
    mirror_y = coin(draw[1], augmentation.flip_vertical)
    angle = (2.0 * draw[2] - 1.0) * augmentation.rotation * math.pi / 180.0
    if augmentation.rotate90:
        angle += tf.floor(draw[3] * 4.0) * (math.pi / 2.0)
    zoom = tf.pow(1.0 + augmentation.scale, 2.0 * draw[4] - 1.0)
    cos, sin = tf.cos(angle) * zoom, tf.sin(angle) * zoom
    # The window's centre lies anywhere that keeps it inside the input; larger windows are centred.
    spare = tf.maximum(source - target, 0.0)
    centre = (source - 1.0) / 2.0 + (draw[5:7] - 0.5) * spare
    # Whole pixels, so that a crop alone copies pixels instead of blending them.
    parity = tf.math.floormod(target - 1.0, 2.0) / 2.0
    centre = tf.round(centre - parity) + parity
    middle = (target - 1.0) / 2.0
    a, b = cos * mirror_x, -sin * mirror_y
    c, d = sin * mirror_x, cos * mirror_y
    x0 = centre[1] - a * middle[1] - b * middle[0]
    y0 = centre[0] - c * middle[1] - d * middle[0]
    zero = tf.constant(0.0)
    transform = tf.stack([a, b, x0, c, d, y0, zero, zero])[None]

    def resample(pixels: tf.Tensor, interpolation: str) -> tf.Tensor:
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pixels[None],
            transforms=transform,
            output_shape=shape,
            fill_value=0.0,
            interpolation=interpolation,
            fill_mode="REFLECT",
        )[0]

    warped = resample(tf.cast(image, tf.float32), "BILINEAR")
    image_out = tf.cast(tf.round(warped), tf.uint8)
    mask_out = resample(mask[..., None], "NEAREST")[..., 0]
    if size is not None:
        image_out = tf.ensure_shape(image_out, [*size, image.shape[-1]])
        mask_out = tf.ensure_shape(mask_out, size)
    return image_out, mask_out
