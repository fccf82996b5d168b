"""What online augmentation does to the look of pixels, not to their place; never to masks.

Pixels are float32 [H, W, C], 0..255; strengths are drawn by the caller.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

# RGB to luma and two axes of chroma (YIQ, FCC NTSC); hue is the angle between these.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def gamma(image: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """255 (x / 255)^exponent, of an image uint8."""
    table = 255.0 * (tf.range(256, dtype=tf.float32) / 255.0) ** exponent
    return tf.gather(table, tf.cast(image, tf.int32))


def stretch(pixels: tf.Tensor, contrast: tf.Tensor, brightness: tf.Tensor) -> tf.Tensor:
    """(x - mean) contrast + mean + brightness, with the mean of all channels together."""
    mean = tf.reduce_mean(pixels)
    return (pixels - mean) * contrast + mean + brightness


def turn_hue(pixels: tf.Tensor, turn: tf.Tensor, saturation: tf.Tensor) -> tf.Tensor:
    """Turns hue by `turn` of the circle and multiplies saturation; luma and grays stay."""
    cos = tf.cos(2.0 * math.pi * turn) * saturation
    sin = tf.sin(2.0 * math.pi * turn) * saturation
    zero, one = tf.constant(0.0), tf.constant(1.0)
    middle = tf.stack(
        [
            tf.stack([one, zero, zero]),
            tf.stack([zero, cos, -sin]),
            tf.stack([zero, sin, cos]),
        ]
    )
    there, back = (tf.constant(m, tf.float32) for m in (_YIQ, np.linalg.inv(_YIQ)))
    return tf.linalg.matvec(back @ middle @ there, pixels)


def blur(pixels: tf.Tensor, sigma: tf.Tensor, largest: float) -> tf.Tensor:
    """Smooths by a Gaussian of `sigma` pixels, at most `largest`, the image reflected at edges."""
    radius = math.ceil(3.0 * largest)
    away = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernel = tf.exp(-0.5 * (away / tf.maximum(sigma, 1e-3)) ** 2)
    kernel /= tf.reduce_sum(kernel)
    channels = pixels.shape[-1]
    kernel = tf.tile(kernel[:, None, None, None], [1, 1, channels, 1])
    for axis in (0, 1):
        pixels = _reflect(pixels, radius, axis)
        turned = kernel if axis == 0 else tf.transpose(kernel, [1, 0, 2, 3])
        pixels = tf.nn.depthwise_conv2d(pixels[None], turned, [1, 1, 1, 1], "VALID")[0]
    return pixels


def noise(pixels: tf.Tensor, sigma: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Adds normally distributed noise of `sigma` intensities, to each value its own."""
    return pixels + sigma * tf.random.stateless_normal(tf.shape(pixels), key)


def cut_out(pixels: tf.Tensor, share: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Fills a box with the mean of each channel.

    Args:
      pixels: the image.
      share: of each side that the box has.
      place: (y, x) of its middle as shares of the sides; it is cut off at the borders.
    """
    inside = box(tf.shape(pixels)[:2], share, place)
    mean = tf.reduce_mean(pixels, [0, 1])
    return tf.where(inside[..., None], mean, pixels)


def box(shape: tf.Tensor, share: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The pixels of a box: bool [H, W]; see `cut_out`."""
    extent = tf.cast(shape, tf.float32)
    half = share * extent / 2.0
    y, x = (
        tf.abs(tf.range(extent[axis]) + 0.5 - place[axis] * extent[axis]) < half[axis]
        for axis in (0, 1)
    )
    return y[:, None] & x[None]


def _reflect(pixels: tf.Tensor, radius: int, axis: int) -> tf.Tensor:
    """Lengthens a side by its reflection at both ends, however often that takes."""
    length = tf.shape(pixels)[axis]
    place = tf.math.floormod(tf.range(-radius, length + radius), 2 * length)
    return tf.gather(pixels, tf.minimum(place, 2 * length - 1 - place), axis=axis)
