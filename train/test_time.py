"""Test-time augmentation: an image segmented several times, turned and resized, and each undone.

The eight symmetries of the square and any number of scales are applied to the prepared image,
before the sliding window cuts it into tiles, and undone on what comes out. So nothing depends on
where tiles lie: with all eight symmetries the prediction turns and mirrors with the image, exactly.
Results are added up as they come; memory is that of two of them, whatever their number.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from flexseg_errors import FlexsegError, nearest
from pipelines.preparation import Preparation
from pipelines.preprocessing import Preprocessing

Slide = Callable[[np.ndarray], np.ndarray]  # uint8 [h, w, C] -> float32 [h, w, K]


class Symmetry(NamedTuple):
    """One of the eight symmetries of the square: rows and columns swapped, then each reversed."""

    transpose: bool = False
    rows: bool = False
    columns: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turns or mirrors [H, W, ...]; a view."""
        return self._reversed(image.swapaxes(0, 1) if self.transpose else image)

    def undo(self, image: np.ndarray) -> np.ndarray:
        """The inverse of `apply`; a view."""
        image = self._reversed(image)
        return image.swapaxes(0, 1) if self.transpose else image

    def _reversed(self, image: np.ndarray) -> np.ndarray:
        return image[:: -1 if self.rows else 1, :: -1 if self.columns else 1]


_FLIPS = tuple(
    Symmetry(False, rows, columns) for rows in (False, True) for columns in (False, True)
)
TTA: dict[str, tuple[Symmetry, ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    "d4": _FLIPS + tuple(s._replace(transpose=True) for s in _FLIPS),
}
MOST_SCALE = 8.0


@dataclasses.dataclass(frozen=True)
class Variants:
    """How an image is varied; every symmetry at every scale.

    Attributes:
      tta: "none", "flips" (as it is, mirrored left to right, top to bottom, both) or "d4" (those
        four, and the same of the transposed image: the eight symmetries of the square).
      scales: factors of both sides of the prepared image, each once.

    Raises:
      FlexsegError: a name is unknown or a scale out of its range.
    """

    tta: str = "none"
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.tta not in TTA:
            raise FlexsegError(
                f'--tta="{self.tta}" is unknown; known are {", ".join(TTA)}.'
                f"{nearest(self.tta, TTA)}"
            )
        scales = tuple(float(s) for s in self.scales)
        good = all(math.isfinite(s) and 0 < s <= MOST_SCALE for s in scales)
        if not scales or not good or len(set(scales)) < len(scales):
            raise FlexsegError(
                f"--scales={','.join(f'{s:g}' for s in scales)}: expected factors above 0 and up "
                f"to {MOST_SCALE:g}, each once, such as 0.75,1,1.25."
            )
        object.__setattr__(self, "scales", scales)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return TTA[self.tta]

    @property
    def count(self) -> int:
        """How often an image is segmented."""
        return len(self.symmetries) * len(self.scales)

    @property
    def is_plain(self) -> bool:
        """Whether the image is segmented once, as it is."""
        return self.count == 1 and self.scales == (1.0,)


PLAIN = Variants()  # the image as it is


def parse_scales(text: str) -> tuple[float, ...]:
    """Reads "0.75,1,1.25".

    Raises:
      FlexsegError: where it is no list of numbers.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise FlexsegError(
            f'--scales="{text}": expected numbers with commas between, such as 0.75,1,1.25.'
        ) from error


def define_flags(values: flags.FlagValues) -> None:
    """Defines --tta and --scales."""
    flags.DEFINE_enum(
        "tta",
        "none",
        list(TTA),
        "Test-time augmentation: segment each image mirrored as well (flips: 4 times), or in all "
        "symmetries of the square (d4: 8 times), and take the mean.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "scales",
        "1",
        "Segment each image at these scales of the prepared image, such as 0.75,1,1.25, and take "
        "the mean.",
        flag_values=values,
    )


def each(slide: Slide, image: np.ndarray, how: Variants) -> Iterator[np.ndarray]:
    """Segments an image once for each of its variants.

    Args:
      slide: what segments an image of any size.
      image: the prepared image, uint8 [h, w, C].
      how: which variants.

    Yields:
      float32 [h, w, K]: what `slide` said of a variant, brought back to lie on the image. It may be
      read-only, and a view.
    """
    height, width = image.shape[:2]
    for scale in how.scales:
        size = scaled_size((height, width), scale)
        scaled = _scaled(image, size)
        for symmetry in how.symmetries:
            # No name for what is said, which would keep it until there is the next.
            turned = np.ascontiguousarray(symmetry.apply(scaled))
            yield resize(symmetry.undo(slide(turned)), (height, width))


def mean(slide: Slide, image: np.ndarray, how: Variants) -> np.ndarray:
    """The mean over all variants of an image, float32 [h, w, K]; see `each`."""
    total = np.zeros(0)
    for said in each(slide, image, how):
        if how.count == 1:
            return said
        total = np.add(total, said, out=total) if total.size else said.astype(np.float32)
        del said  # before the next is made
    return np.multiply(total, np.float32(1 / how.count), out=total)


def of_tiles(predict: Callable[[np.ndarray], Any], how: Variants) -> Slide:
    """The mean over the symmetries of each tile, for images of which memory holds some rows alone.

    Away from the seams of tiles it is what `mean` is; there, other tiles meet.

    Args:
      predict: tiles uint8 [N, h, w, C] to probabilities float32 [N, h, w, K], array or tensor.
      how: which symmetries.

    Returns:
      A function of the same kind.

    Raises:
      FlexsegError: where there are scales, which change what a tile sees; and, when it is called,
        where tiles that are not square are to be turned.
    """
    if how.scales != (1.0,):
        raise FlexsegError(
            f"--scales={','.join(f'{s:g}' for s in how.scales)}: an image that is segmented some "
            "rows at a time can be seen at one scale alone, 1."
        )

    def predicted(tiles: np.ndarray) -> np.ndarray:
        height, width = tiles.shape[1:3]
        if height != width and any(s.transpose for s in how.symmetries):
            raise FlexsegError(
                f"--tta={how.tta} turns tiles, which must be square for it, not {height}x{width}. "
                "Give --tta=flips."
            )
        rows_first = np.asarray(tiles).transpose(1, 2, 0, 3)
        total = np.zeros(0)
        for number, symmetry in enumerate(how.symmetries):
            turned = np.ascontiguousarray(symmetry.apply(rows_first).transpose(2, 0, 1, 3))
            said = symmetry.undo(np.asarray(predict(turned)).transpose(1, 2, 0, 3))
            total = said.astype(np.float32) if number == 0 else np.add(total, said, out=total)
        return np.multiply(total, np.float32(1 / how.count), out=total).transpose(2, 0, 1, 3)

    return predicted


def prepare(image: np.ndarray, preparation: Preparation) -> np.ndarray:
    """An image as it comes, uint8 [H, W, C], to what the network knows, uint8 [h, w, C]."""
    image = Preprocessing.from_text(preparation.preprocessing).image(image)
    return resize_image(image, preparation.size_of(*image.shape[:2]))


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times a factor, halves rounded up, at least 1."""
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _scaled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As `resize_image`, but halves are rounded up, and so they are where they fall a hair short.

    A mirrored image is summed in another order; it shall come out as the same gray values.
    """
    if image.shape[:2] == size:
        return image
    resized = resize(image, size)
    return np.floor(np.clip(resized, 0, 255) + 0.501).astype(np.uint8)


def resize_image(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """uint8 [h, w, C] to (height, width), in whole gray values, which the network learnt on."""
    if image.shape[:2] == tuple(size):
        return image
    resized = resize(image, size)
    return np.rint(np.clip(resized, 0, 255)).astype(np.uint8)


def resize(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """[h, w, C] to (height, width), as `train.resize` does it in the graph.

    Any real dtype becomes float32, but for what has that size already, which comes back as it is.
    """
    if values.shape[:2] == tuple(size):
        return values
    from train import resize as resizing  # loads TensorFlow

    return resizing.resize_array(values, size)
