"""Images beyond memory: read in rows, segmented in rows, and written in rows.

The mask is the one that the image would get if it were segmented as a whole; what needs the whole
(overlays, maps of uncertainty) is refused by name.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from export.predictions import windowed_masks
from export.predictions.waiting_rows import WaitingRows
from flexseg_errors import FlexsegError
from pipelines import formats, windowed_images
from pipelines.intensity import Intensity
from pipelines.label_map import LabelMap
from train.class_ids import most_probable

if TYPE_CHECKING:
    from train.segment_rows import RowSegmenter

# Whole, such an image takes about 1 GiB with three classes: pixels, probabilities twice, mask.
LIMIT_PIXELS = 36_000_000


@dataclasses.dataclass(frozen=True)
class Huge:
    """What was made of an image.

    Attributes:
      size: (height, width) in pixels.
      class_pixels: how many pixels each class got, by id.
      windowed: whether the image was read in windows; else it was in memory as a whole.
      written: the files.
    """

    size: tuple[int, int]
    class_pixels: tuple[int, ...]
    windowed: bool
    written: tuple[str, ...]


def is_huge(path: str, limit_pixels: int = LIMIT_PIXELS) -> bool:
    """Whether an image, by its header, has more pixels than are segmented as a whole.

    Raises:
      FlexsegError: where the file is missing, empty, or not an image.
    """
    height, width = windowed_images.read_size(path)
    return height * width > limit_pixels


def refuse_whole(path: str, wanted: Sequence[str]) -> None:
    """Refuses what cannot be made of an image by rows.

    Args:
      path: names the image.
      wanted: what else is asked for, as a person would name it: "--overlay", say.

    Raises:
      FlexsegError: where anything is.
    """
    if wanted:
        height, width = windowed_images.read_size(path)
        raise FlexsegError(
            f"{path} has {height}x{width} pixels and is segmented row by row; {', '.join(wanted)} "
            f"would need all of it in memory (about {height * width * 40 / 2**30:.1f} GiB with "
            "three classes). Leave that out, give the image in parts, or, where there is so much "
            "memory, raise --whole_pixels."
        )


def segment_huge(
    path: str,
    target_stem: str,
    rows: RowSegmenter,
    label_map: LabelMap,
    *,
    channels: int,
    intensity: Intensity,
    suffix: str = ".png",
    form: str = "palette",
    probabilities: bool = False,
    finish: Callable[[WaitingRows], None] | None = None,
    max_pixels: int = formats.MAX_PIXELS,
) -> Huge:
    """Segments one image whatever its size.

    Args:
      path: a local file. Strips and tiles of TIFF, and `.npy`, are read in windows; anything else
        is decoded whole, and then the image is what memory must hold.
      target_stem: local path of what is written, without suffix.
      rows: of `Segmenter.rows`, or with another `predict`.
      label_map: gives the colours.
      channels: of the images that the model takes, 1 or 3.
      intensity: how images of more than 8 bits become 8-bit.
      suffix: of the mask: ".png", ".tif" or ".npy".
      form: of the mask, one of `windowed_masks.FORMS`.
      probabilities: whether to write them beside it, as `.npz`.
      finish: what changes the class ids once all of them are there; they wait in a temporary file
        of a byte a pixel for it. None where they need not.
      max_pixels: the largest image that is decoded whole.

    Raises:
      FlexsegError: where the image cannot be read; nothing is left under the targets' names then.
    """
    classes = label_map.num_classes
    counts = np.zeros(classes, np.int64)
    mask, table = target_stem + suffix, target_stem + ".npz"
    with windowed_images.open_rows(path, channels, intensity, max_pixels) as source:

        def counted(parts: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            nonlocal counts
            for part in parts:
                counts += [np.count_nonzero(part == k) for k in range(classes)]
                yield part

        with contextlib.ExitStack() as held:
            found = rows.probabilities(source)
            if probabilities:
                take = held.enter_context(
                    windowed_masks.probability_file(table, source.size, classes)
                )
                found = _passed_on(found, take)
            ids: Iterator[np.ndarray] = map(most_probable, found)
            if finish is not None:
                waiting = held.enter_context(WaitingRows.of(source.size, ids))
                finish(waiting)
                ids = waiting.parts()
            windowed_masks.write_mask(mask, source.size, counted(ids), label_map, form)
        written = (mask, table) if probabilities else (mask,)
        return Huge(source.size, tuple(counts.tolist()), source.windowed, written)


def _passed_on(
    rows: Iterator[np.ndarray], take: Callable[[np.ndarray], None]
) -> Iterator[np.ndarray]:
    for part in rows:
        take(part)
        yield part
