"""How a camera was held, read from an image file's EXIF and undone, inside a TensorFlow graph.

The bytes are walked as JPEG (ISO/IEC 10918-1, annex B), PNG (ISO/IEC 15948) and EXIF 2.3 (CIPA
DC-008) lay them out, with TensorFlow's own operations, so that a bundle needs no code of ours.
Whatever is not well-formed counts as upright.
"""

from __future__ import annotations

import tensorflow as tf

_JPEG_EXIF = b"Exif\0\0"
_PNG_EXIF = b"eXIf"
_ORIENTATION = 0x0112
_ENTRY = 12  # bytes of a tag in an image file directory


def of_file(data: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of an image file.

    Args:
      data: the file, uint8 [N].

    Returns:
      [] int64: 1 to 8; 1, which is upright, where the file says nothing.
    """
    is_jpeg = tf.reduce_all(_at(data, tf.range(2, dtype=tf.int64)) == [0xFF, 0xD8])
    is_png = _is(data, tf.constant(1, tf.int64), b"PNG")
    start = tf.cond(is_jpeg, lambda: _in_jpeg(data), lambda: _no_exif())
    start = tf.cond(is_png, lambda: _in_png(data), lambda: start)
    return tf.cond(start >= 0, lambda: _in_exif(data, start), lambda: tf.constant(1, tf.int64))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image, [H, W, C] or [W, H, C] of any dtype, as it is meant to be seen: [H, W, C]."""

    def when(orientations: list[int], then: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
        chosen = tf.reduce_any(orientation == tf.constant(orientations, tf.int64))
        return tf.cond(chosen, lambda: then(otherwise), lambda: otherwise)

    image = when([5, 6, 7, 8], lambda x: tf.transpose(x, [1, 0, 2]), image)
    image = when([2, 3, 6, 7], lambda x: x[:, ::-1], image)
    return when([3, 4, 7, 8], lambda x: x[::-1], image)


def _no_exif() -> tf.Tensor:
    return tf.constant(-1, tf.int64)


def _in_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Where the EXIF data begin in a JPEG file, [] int64; -1 where there are none.

    A segment is FF, its marker, and its length, which counts itself but not the marker. They end
    with the one that begins the scan (DA).
    """

    def walk(position: tf.Tensor, found: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        first, marker = _at(data, position), _at(data, position + 1)
        is_exif = (marker == 0xE1) & _is(data, position + 4, _JPEG_EXIF)
        on = (first == 0xFF) & (marker != 0xDA) & (marker != 0xD9) & ~is_exif
        length = _number(data, position + 2, 2, little=False)
        step = tf.where(marker == 0xFF, tf.constant(1, tf.int64), 2 + length)  # FF may be repeated
        return position + step, tf.where(is_exif, position + 10, found), on

    return _walk(walk, 2, data)


def _in_png(data: tf.Tensor) -> tf.Tensor:
    """Where the EXIF data begin in a PNG file, [] int64; -1 where there are none.

    A chunk is the length of its data, four letters, the data, and four bytes of checksum.
    """

    def walk(position: tf.Tensor, found: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        length = _number(data, position, 4, little=False)
        is_exif = _is(data, position + 4, _PNG_EXIF)
        on = ~is_exif & ~_is(data, position + 4, b"IEND")
        return position + 12 + length, tf.where(is_exif, position + 8, found), on

    return _walk(walk, 8, data)


def _walk(step: object, start: int, data: tf.Tensor) -> tf.Tensor:
    end = tf.size(data, tf.int64)
    _, found, _ = tf.while_loop(
        lambda position, found, on: on & (position < end),
        step,
        (tf.constant(start, tf.int64), _no_exif(), tf.constant(True)),
    )
    return found


def _in_exif(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The orientation among the tags of the first directory; offsets count from `start`."""
    little = _at(data, start) == ord("I")
    directory = start + _number(data, start + 4, 4, little)
    room = tf.maximum(tf.size(data, tf.int64) - directory - 2, 0) // _ENTRY
    count = tf.minimum(_number(data, directory, 2, little), room)
    entries = directory + 2 + _ENTRY * tf.range(count)
    tags = _number(data, entries, 2, little)
    values = _number(data, entries + 8, 2, little)
    valid = (tags == _ORIENTATION) & (values >= 1) & (values <= 8)
    return tf.concat([tf.boolean_mask(values, valid), [1]], 0)[0]


def _number(data: tf.Tensor, position: tf.Tensor, size: int, little: tf.Tensor | bool) -> tf.Tensor:
    """Whole numbers of `size` bytes at positions of any shape, int64."""
    total = tf.zeros_like(position)
    for i in range(size):
        index = tf.where(little, tf.constant(size - 1 - i, tf.int64), tf.constant(i, tf.int64))
        total = total * 256 + _at(data, position + index)
    return total


def _at(data: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Bytes at positions of any shape, int64; 0 behind the end."""
    last = tf.size(data, tf.int64) - 1
    values = tf.gather(data, tf.clip_by_value(position, 0, last))
    return tf.where(position <= last, tf.cast(values, tf.int64), tf.zeros_like(position))


def _is(data: tf.Tensor, position: tf.Tensor, text: bytes) -> tf.Tensor:
    """Whether the bytes from a position on are those."""
    found = _at(data, position + tf.range(len(text), dtype=tf.int64))
    return tf.reduce_all(found == tf.constant(list(text), tf.int64))
