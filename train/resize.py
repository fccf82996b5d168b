"""Resizing as a run's preparation does it: whole in a graph, or some rows at a time outside it.

The rows come out as those of the whole, to float rounding: NumPy does what TensorFlow's kernels do,
in float32 and in their order, so that gray values that are rounded afterwards are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

Size = tuple[int, int]


def resize(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes [..., H, W, C] of any real dtype to float32, as `preparation.resize_image` does.

    Mean over areas where both sides shrink, else linear, pixel centres aligned. TensorFlow's
    kernels read whole numbers as they are: to cast an image beforehand would take longer than to
    resize it.
    """
    shape = tf.shape(image)[-3:-1]

    def area() -> tf.Tensor:
        return tf.image.resize(image, size, method="area")

    def linear() -> tf.Tensor:
        return tf.image.resize(image, size, method="bilinear")

    def changed() -> tf.Tensor:
        return tf.cond(tf.reduce_all(size <= shape), area, linear)

    def same() -> tf.Tensor:
        return tf.cast(image, tf.float32)

    return tf.cond(tf.reduce_all(size == shape), same, changed)


def resize_array(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """`resize` outside a graph: [H, W, C] of any real dtype to float32 [height, width, C]."""
    resized: np.ndarray = resize(tf.constant(values), tf.constant(size, tf.int32)).numpy()
    return resized


@dataclasses.dataclass(frozen=True)
class _Line:
    """One axis: which source pixels each pixel of the result is made of, and their parts.

    Attributes:
      pixels: [n, taps] indices, rising.
      parts: [n, taps] float32; for linear the part of the second of two is what counts.
    """

    pixels: np.ndarray
    parts: np.ndarray


@dataclasses.dataclass(frozen=True)
class RowResizer:
    """Makes some rows of a resized image from the rows of the image that they depend on.

    Attributes:
      source: (height, width) of the image, in pixels.
      target: of the resized image.
    """

    source: Size
    target: Size

    def __post_init__(self) -> None:
        line = _area if self.shrinks else _linear
        lines = [line(*ends) for ends in zip(self.source, self.target, strict=True)]
        object.__setattr__(self, "_lines", lines)

    @property
    def shrinks(self) -> bool:
        """Whether no side grows: then means over areas are taken."""
        return self.target[0] <= self.source[0] and self.target[1] <= self.source[1]

    def needed(self, start: int, stop: int) -> tuple[int, int]:
        """The rows of the image, from the first to behind the last, of rows of the result."""
        if self.source == self.target:
            return start, stop
        pixels = self._rows.pixels
        return int(pixels[start, 0]), int(pixels[stop - 1, -1]) + 1

    def complete(self, received: int) -> int:
        """How many rows of the result depend on none but the first `received` of the image."""
        if self.source == self.target:
            return received
        return int(np.searchsorted(self._rows.pixels[:, -1], received))

    def rows(self, image: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Some rows of the result.

        Args:
          image: the rows of the image that `needed` names, [n, W, C], any real dtype.
          start: first row of the result.
          stop: behind its last.

        Returns:
          float32 [stop - start, target width, C].
        """
        if self.source == self.target:
            return image.astype(np.float32)
        first, _ = self.needed(start, stop)
        pixels, parts = self._rows.pixels[start:stop] - first, self._rows.parts[start:stop]
        columns = self._columns
        if self.shrinks:
            across = _sum(image, columns.pixels, columns.parts, 1)
            down = _sum(across, pixels, parts, 0)
            ratio = [np.float32(s) / np.float32(t) for s, t in zip(*self._sides, strict=True)]
            down *= np.float32(1) / (ratio[0] * ratio[1])
            return down
        return _blend(_blend(image, columns.pixels, columns.parts, 1), pixels, parts, 0)

    def widened(self, planes: np.ndarray) -> np.ndarray:
        """Planes with their columns resized and their rows as they are, where not `shrinks`.

        Args:
          planes: float32 [K, source height, source width].

        Returns:
          float32 [K, source height, target width].
        """
        size = self.source[0], self.target[1]
        wide: np.ndarray = tf.image.resize(planes[..., None], size, method="bilinear").numpy()
        return wide[..., 0]

    @property
    def between(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What each row of the result lies between, where not `shrinks`.

        The first row of the source, the second, and the second's part in it: [target height] each.
        """
        pixels, parts = self._rows.pixels, self._rows.parts
        return pixels[:, 0], pixels[:, 1], parts[:, 1]

    @property
    def _sides(self) -> tuple[Size, Size]:
        return self.source, self.target

    @property
    def _rows(self) -> _Line:
        return self._lines[0]  # type: ignore[attr-defined]

    @property
    def _columns(self) -> _Line:
        return self._lines[1]  # type: ignore[attr-defined]


def _linear(source: int, target: int) -> _Line:
    """The two pixels between which each lies.

    The places are asked of TensorFlow, by resizing a ramp: at pixel 3000 they are rounded to a
    four thousandth of a pixel, which shows in probabilities.
    """
    ramp = tf.reshape(tf.range(source, dtype=tf.float32), [-1, 1, 1])
    place = tf.image.resize(ramp, (target, 1), method="bilinear").numpy().ravel()
    lower = np.floor(place).astype(np.int64)
    parts = (place - lower).astype(np.float32)
    upper = np.minimum(lower + 1, source - 1)
    return _Line(np.stack([lower, upper], 1), np.stack([1 - parts, parts], 1))


def _area(source: int, target: int) -> _Line:
    """The pixels that lie in the area of each, and how much of them, as TensorFlow sees it."""
    ratio = np.float32(source) / np.float32(target)
    index = np.arange(target + 1).astype(np.float32)
    starts, ends = index[:-1] * ratio, index[1:] * ratio
    first = np.floor(starts).astype(np.int64)
    last = np.ceil(ends).astype(np.int64)
    pixels = first[:, None] + np.arange((last - first).max())
    left, right = pixels.astype(np.float32), (pixels + 1).astype(np.float32)
    cut_left = np.where(right > ends[:, None], ratio, right - starts[:, None])
    cut_right = np.where(right > ends[:, None], ends[:, None] - left, np.float32(1))
    parts = np.where(left < starts[:, None], cut_left, cut_right)
    parts = np.where(pixels < last[:, None], parts, 0).astype(np.float32)
    return _Line(np.minimum(pixels, source - 1), parts)


def _sum(image: np.ndarray, pixels: np.ndarray, parts: np.ndarray, axis: int) -> np.ndarray:
    """The sums of pixels times their parts along an axis."""
    total = None
    for index, part in zip(pixels.T, parts.T, strict=True):
        values = np.take(image, index, axis).astype(np.float32)
        values *= part[:, None] if axis else part[:, None, None]
        if total is None:
            total = values
        else:
            total += values
    assert total is not None  # every area holds a pixel
    return total


def _blend(image: np.ndarray, pixels: np.ndarray, parts: np.ndarray, axis: int) -> np.ndarray:
    """The values between two pixels along an axis: first + (second - first) part."""
    first, result = (np.take(image, index, axis).astype(np.float32) for index in pixels.T)
    result -= first
    result *= parts[:, 1:] if axis else parts[:, 1:, None]
    result += first
    return result
