"""Photometric preparation of images: gamma, sharpening, inversion, contrast, colour space.

It changes images alone, never masks, and belongs to the dataset: whoever predicts does the same.
All but the colour space is arithmetic of our own on integers and float64, so that every machine,
and the TensorFlow graph, gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from flexseg_errors import FlexsegError, nearest

if TYPE_CHECKING:
    import tensorflow as tf

STEPS = ("gamma", "sharpen", "invert", "contrast", "color")
_EXAMPLE = "gamma=1.5,sharpen=1,invert,contrast=1.5:40,color=BGR2HSV"

# The spaces that OpenCV gives in three channels of 8 bits, in OpenCV's spelling.
_SPACES = ("HLS", "HLS_FULL", "HSV", "HSV_FULL", "Lab", "Luv", "RGB", "XYZ", "YCrCb", "YUV")
COLORS = tuple(f"BGR2{space}" for space in _SPACES)
_ALIASES = {"bgr2ycr_cb": "BGR2YCrCb"}

_ROWS = 256  # that many are sharpened at a time

# Eight times a pixel less its eight neighbours: what sharpening adds to a pixel, per unit.
_LAPLACIAN = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to every image, always in this order; the defaults do nothing.

    Attributes:
      gamma: exponent; (x / 255)^gamma 255, fractions dropped. 1 does nothing.
      sharpen: k of the 3x3 kernel with 1 + 8k in the centre and -k around it. 0 does nothing.
      invert: 255 - x.
      contrast: (alpha, beta); |alpha x + beta|, rounded half to even, clipped. None does nothing.
      color: OpenCV's name of a colour conversion, such as "BGR2HSV"; "" does nothing. It is applied
        to the image's channels in the order blue, green, red, and its three channels are kept in
        the order in which they come: a record then holds H, S, V where it would hold R, G, B.
    """

    gamma: float = 1.0
    sharpen: float = 0.0
    invert: bool = False
    contrast: tuple[float, float] | None = None
    color: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.gamma < math.inf:
            raise _error(self.gamma, "gamma", "expected a number above 0, such as gamma=1.5")
        if not 0 <= self.sharpen <= 100:  # also keeps 255 (1 + 8k) far inside float64 and int64
            raise _error(self.sharpen, "sharpen", "expected a number from 0 to 100")
        if self.contrast is not None and not all(map(math.isfinite, self.contrast)):
            raise _error(self.contrast, "contrast", "expected finite numbers")
        if self.color and self.color not in COLORS:
            hint = nearest(self.color, COLORS)
            raise _error(self.color, "color", f"expected one of {', '.join(COLORS)}.{hint}")

    @classmethod
    def from_text(cls, text: str) -> Preprocessing:
        """Reads `gamma=1.5,sharpen=1,invert,contrast=1.5:40,color=BGR2HSV`, each part optional.

        Parts may come in any order; what they do does not depend on it. Colour conversions are
        also known by `COLOR_BGR2HSV` and `cv2.COLOR_BGR2HSV`, in any case.

        Raises:
          FlexsegError: where a name is unknown or given twice, or a value cannot be read.
        """
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if name not in STEPS:
                raise FlexsegError(
                    f'--preprocessing="{text}": "{name}" is not a step; expected some of '
                    f"{', '.join(STEPS)}, such as {_EXAMPLE}." + nearest(name, STEPS)
                )
            if name in values:
                raise FlexsegError(f'--preprocessing="{text}": {name} is given twice.')
            values[name] = _value(text, name, value if equals else None)
        return cls(**values)

    def __str__(self) -> str:
        """The text that `from_text` reads back to the same steps; "" where there are none."""
        parts = []
        if self.gamma != 1:
            parts.append(f"gamma={_number(self.gamma)}")
        if self.sharpen:
            parts.append(f"sharpen={_number(self.sharpen)}")
        if self.invert:
            parts.append("invert")
        if self.contrast is not None:
            parts.append("contrast=" + ":".join(map(_number, self.contrast)))
        if self.color:
            parts.append(f"color={self.color}")
        return ",".join(parts)

    @property
    def needs_color(self) -> bool:
        """Whether images must have three channels; gray ones are to be repeated to three."""
        return bool(self.color)

    def image(self, image: np.ndarray) -> np.ndarray:
        """Prepares an image.

        Args:
          image: uint8 [H, W, C], gray (C = 1) or RGB (C = 3).

        Returns:
          uint8 [H, W, C].

        Raises:
          FlexsegError: where colours are to be converted and there are none.
        """
        if self.gamma != 1:
            image = _look_up(image, _gamma_table(self.gamma))
        if self.sharpen:
            image = _sharpen(image, self.sharpen)
        if self.invert:
            image = 255 - image
        if self.contrast is not None:
            image = _look_up(image, _contrast_table(*self.contrast))
        if self.color:
            if image.shape[-1] != 3:
                raise FlexsegError(
                    f"--preprocessing: color={self.color} needs images of three channels, not "
                    f"{image.shape[-1]}. Leave it out, or repeat gray images to three channels."
                )
            # [..., ::-1] alone is a view that OpenCV would refuse.
            bgr = np.ascontiguousarray(image[..., ::-1])
            image = cv2.cvtColor(bgr, getattr(cv2, "COLOR_" + self.color))
        return image

    def to_graph(self, image: tf.Tensor) -> tf.Tensor:
        """Does what `image` does, to the byte, in TensorFlow operations.

        Args:
          image: uint8 [..., H, W, C].

        Returns:
          uint8 [..., H, W, C].

        Raises:
          FlexsegError: where colours are to be converted: that is OpenCV's own arithmetic.
        """
        if self.color:
            raise FlexsegError(
                f"--preprocessing: color={self.color} cannot be part of a model's graph. Convert "
                "images before they are given to the model, or prepare the dataset without it."
            )
        import tensorflow as tf

        image = tf.convert_to_tensor(image)
        if self.gamma != 1:
            image = tf.gather(_gamma_table(self.gamma), tf.cast(image, tf.int32))
        if self.sharpen:
            image = _sharpen_in_graph(image, self.sharpen)
        if self.invert:
            image = 255 - image
        if self.contrast is not None:
            image = tf.gather(_contrast_table(*self.contrast), tf.cast(image, tf.int32))
        return image


def _value(text: str, name: str, value: str | None) -> Any:
    """The value of one part of a text."""
    if name == "invert":
        if value is not None:
            raise FlexsegError(f'--preprocessing="{text}": invert takes no value.')
        return True
    if name == "color":
        bare = (value or "").removeprefix("cv2.")
        bare = bare[6:] if bare.upper().startswith("COLOR_") else bare
        known = {color.lower(): color for color in COLORS} | _ALIASES
        if not bare:
            raise _error(text, name, f"expected one of {', '.join(COLORS)}")
        return known.get(bare.lower(), bare)
    expected = "two numbers alpha:beta, such as 1.5:40" if name == "contrast" else "a number"
    try:
        numbers = tuple(float(number) for number in (value or "").split(":"))
    except ValueError:
        numbers = ()
    if len(numbers) != (2 if name == "contrast" else 1):
        raise _error(text, name, f"expected {expected}")
    return numbers if name == "contrast" else numbers[0]


def _error(value: object, name: str, expected: str) -> FlexsegError:
    return FlexsegError(f'--preprocessing: {name} in "{value}": {expected.rstrip(".")}.')


def _number(value: float) -> str:
    """The shortest text that is read back to the same number; 1 and not 1.0."""
    return repr(float(value)).removesuffix(".0")


def _gamma_table(gamma: float) -> np.ndarray:
    """uint8 [256]; the fraction is dropped, as the old loaders did."""
    exact = (np.arange(256) / 255) ** gamma * 255
    # A whole number may come out a hair too small, and differently so on another machine.
    return np.floor(exact + 1e-6).astype(np.uint8)


def _contrast_table(alpha: float, beta: float) -> np.ndarray:
    """uint8 [256]: the absolute value, for that is what cv2.convertScaleAbs takes."""
    return np.clip(np.rint(np.abs(alpha * np.arange(256) + beta)), 0, 255).astype(np.uint8)


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    return cv2.LUT(image, table).reshape(image.shape)  # OpenCV drops a single channel


def _sharpen(image: np.ndarray, k: float) -> np.ndarray:
    """OpenCV's filter2D with its default border, the image mirrored about its outermost pixels.

    OpenCV sums fractional kernels in float32, in an order that depends on the machine; the sum of
    integers is exact on all of them.
    """
    if k == int(k):
        kernel = _LAPLACIAN * k
        kernel[1, 1] += 1
        return cv2.filter2D(image, -1, kernel).reshape(image.shape)
    detail = cv2.filter2D(image, cv2.CV_16S, _LAPLACIAN).reshape(image.shape)
    sharp = np.empty_like(image)
    for row in range(0, len(image), _ROWS):  # never the whole image in float64
        rows = slice(row, row + _ROWS)
        sharp[rows] = np.clip(np.rint(image[rows] + k * detail[rows]), 0, 255)
    return sharp


def _sharpen_in_graph(image: tf.Tensor, k: float) -> tf.Tensor:
    import tensorflow as tf

    center = tf.cast(image, tf.int32)
    total = center
    for axis in (-3, -2):  # the sum over 3x3 is that over columns of that over rows
        total = _sum_of_three(total, axis)
    detail = tf.cast(9 * center - total, tf.float64)
    sharp = tf.round(tf.cast(center, tf.float64) + k * detail)  # halves to even, as np.rint
    return tf.cast(tf.clip_by_value(sharp, 0, 255), tf.uint8)


def _sum_of_three(values: tf.Tensor, axis: int) -> tf.Tensor:
    """Each value with its two neighbours along an axis of any length, mirrored at the ends."""
    import tensorflow as tf

    last = tf.shape(values)[axis] - 1
    index = tf.range(last + 1)
    before = tf.where(index > 0, index - 1, tf.minimum(1, last))
    after = tf.where(index < last, index + 1, tf.maximum(last - 1, 0))
    return values + tf.gather(values, before, axis=axis) + tf.gather(values, after, axis=axis)
