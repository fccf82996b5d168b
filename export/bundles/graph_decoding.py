"""Image files to pixels inside a TensorFlow graph, to the byte as `pipelines.readers` reads them.

TensorFlow decodes PNG, JPEG, BMP and GIF (its first frame). JPEG is decoded by the accurate inverse
transform: TensorFlow's default, the fast one, gives other gray values than those learnt from.
"""

from __future__ import annotations

import tensorflow as tf

from export.bundles import graph_intensity, graph_orientation
from pipelines.intensity import Intensity

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_DEPTH_AT = 24  # of a PNG file: bits per sample


def decode(data: tf.Tensor, channels: int, intensity: Intensity) -> tf.Tensor:
    """Decodes an image file, turned upright by its EXIF orientation; transparency is dropped.

    Args:
      data: the file, string scalar.
      channels: 1 or 3; a gray image is repeated, one with colours never reduced to gray.
      intensity: how values become 8-bit; "none" takes files of 8 bits alone.

    Returns:
      uint8 [H, W, channels].

    Raises:
      InvalidArgumentError: when run, where the file is none that TensorFlow decodes or is cut off,
        has colours where a gray image is wanted, or 16 bits where `intensity` is "none".
    """
    # Bytes are looked at one by one: on a GPU every look would be a journey.
    with tf.device("/cpu:0"):
        octets = tf.io.decode_raw(tf.strings.join([data, b"\0" * 32]), tf.uint8)
        is_deep = _begins(octets, _PNG) & (octets[_DEPTH_AT] == 16)
        if intensity.kind == "none":
            checked = _require(
                ~is_deep,
                "The image has 16 bits, and the network was trained on images of 8 bits; nothing "
                "says how the ones become the others. Send an image of 8 bits.",
            )
            with tf.control_dependencies([checked]):
                pixels = _decode_8_bits(data, octets)
        else:
            pixels = tf.cond(
                is_deep,
                lambda: tf.cast(tf.io.decode_png(data, dtype=tf.uint16), tf.int32),
                lambda: tf.cast(_decode_8_bits(data, octets), tf.int32),
            )
        found = tf.shape(pixels)[-1]
        pixels = pixels[..., : found - 1 + found % 2]  # two and four have alpha
        if intensity.kind != "none":
            pixels = graph_intensity.to_uint8(pixels, intensity)
        pixels = _with_channels(pixels, channels)
        return graph_orientation.upright(pixels, graph_orientation.of_file(octets))


def _decode_8_bits(data: tf.Tensor, octets: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 1 to 4], as many channels as the file has."""
    return tf.cond(
        _begins(octets, _JPEG),
        lambda: tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, expand_animations=False),
    )


def _with_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    if channels == 1:
        gray = pixels[..., :1]
        checked = _require(
            tf.reduce_all(pixels == gray),
            "The image has colours; the network was trained on gray images. Send a gray image.",
        )
        with tf.control_dependencies([checked]):
            pixels = tf.identity(gray)
    else:
        pixels = tf.broadcast_to(pixels, tf.concat([tf.shape(pixels)[:2], [channels]], 0))
    return tf.ensure_shape(pixels, [None, None, channels])


def _begins(octets: tf.Tensor, signature: bytes) -> tf.Tensor:
    return tf.reduce_all(octets[: len(signature)] == tf.constant(list(signature), tf.uint8))


def _require(condition: tf.Tensor, message: str) -> tf.Operation:
    return tf.debugging.Assert(condition, [message])
