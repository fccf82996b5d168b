"""A mask as it was read -> class ids."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import cv2
import numpy as np

from flexseg_errors import FlexsegError, nearest
from pipelines.label_map import IGNORE_ID, Categorizer, Color, LabelMap

KINDS = ("colors", "index", "binary")
UNMATCHED = ("error", "nearest", "ignore")

# A mask with a larger share of pixels far from every colour is a mask in other colours.
UNMATCHED_LIMIT = 0.01


@dataclasses.dataclass(frozen=True)
class MaskReading:
    """How masks are read.

    Attributes:
      kind: "colors" of the label map; "index": gray values are class ids; "binary": gray values
        above a threshold are class 1.
      threshold: of binary masks: "otsu", "triangle" (each found per mask), or a gray value 0..255.
      color_tolerance: RGB distance up to which a colour is taken for the nearest of the map.
      unmatched: what becomes of pixels beyond it: "error" rejects a mask with many of them and
        takes the nearest otherwise, "nearest" takes the nearest, "ignore" gives them the ignore id.
    """

    kind: str = "colors"
    threshold: str = ""
    color_tolerance: float = 0.0
    unmatched: str = "error"


def parse_kind(text: str) -> tuple[str, str]:
    """Reads "colors", "index", "binary:otsu", "binary:triangle" or "binary:127"."""
    kind, _, threshold = text.partition(":")
    if kind not in KINDS:
        raise FlexsegError(
            f'--mask_kind="{text}": expected colors, index, binary:otsu, binary:triangle or '
            "binary:THRESHOLD." + nearest(kind, KINDS)
        )
    if kind == "binary":
        threshold = threshold or "127"
        known = threshold in ("otsu", "triangle")
        if not known and not (threshold.isdigit() and int(threshold) < 255):
            raise FlexsegError(
                f'--mask_kind="{text}": the threshold is otsu, triangle, or a gray value 0..254.'
            )
    elif threshold:
        raise FlexsegError(f'--mask_kind="{text}": only binary takes a threshold.')
    return kind, threshold


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A mask in class ids.

    Attributes:
      ids: uint8 [H, W], 255 where a pixel is to be ignored.
      unmatched: pixels that matched no colour.
      colors: the most frequent of their colours, with their counts.
    """

    ids: np.ndarray
    unmatched: int = 0
    colors: Mapping[Color, int] = dataclasses.field(default_factory=dict)


def to_ids(mask: np.ndarray, label_map: LabelMap, reading: MaskReading) -> Mapped:
    """Turns a mask into class ids.

    Args:
      mask: uint8 [H, W] (gray) or [H, W, 3] (RGB); whole numbers [H, W] for the kind "index".
      label_map: the classes.
      reading: what the values stand for.

    Raises:
      FlexsegError: where the values do not fit the label map. The message does not name the file.
    """
    if reading.kind == "colors":
        return _from_colors(mask, label_map, reading)
    if reading.kind == "index":
        return Mapped(_from_index(mask, label_map))
    return Mapped(_from_binary(_gray(mask), reading.threshold))


def check(label_map: LabelMap, reading: MaskReading) -> None:
    """Holds a way of reading to a label map, before any mask is read."""
    if reading.kind == "binary" and label_map.num_classes != 2:
        raise FlexsegError(
            f"--mask_kind=binary needs a label map of two classes; it has {label_map.num_classes}."
        )


def _from_colors(mask: np.ndarray, label_map: LabelMap, reading: MaskReading) -> Mapped:
    categorizer = _categorizer(label_map, reading.color_tolerance)
    result = categorizer(mask)
    share = result.unmatched / result.ids.size
    if reading.unmatched == "error" and share > UNMATCHED_LIMIT:
        assert result.example is not None
        raise FlexsegError(
            f"{share:.1%} of the pixels are far from every color of the label map (further than "
            f"{categorizer.tolerance:.0f} in RGB), most of them {result.example}, whose nearest is "
            f"{categorizer.nearest(result.example)}; mend --label_map, or take the nearest color "
            "all the same with --unmatched=nearest, or leave them out with --unmatched=ignore"
        )
    if reading.unmatched == "ignore":
        result.ids[result.far] = IGNORE_ID
    return Mapped(result.ids, result.unmatched, result.colors)


def _from_index(values: np.ndarray, label_map: LabelMap) -> np.ndarray:
    known = ((values >= 0) & (values < label_map.num_classes)) | (values == IGNORE_ID)
    if not known.all():
        wrong = np.unique(values[~known])[:8].tolist()
        raise FlexsegError(
            f"the values {', '.join(map(str, wrong))} are no class ids: the label map has "
            f"0..{label_map.num_classes - 1}, and 255 is ignored; mend --label_map or --mask_kind"
        )
    return values.astype(np.uint8)


def _from_binary(gray: np.ndarray, threshold: str) -> np.ndarray:
    if gray.any() and gray.max() == 1 and threshold not in ("0", "otsu", "triangle"):
        raise FlexsegError(
            f"the mask holds 0 and 1 alone, so that nothing is above the threshold {threshold}; "
            "use --mask_kind=index, or --mask_kind=binary:0"
        )
    if threshold in ("otsu", "triangle"):
        method = cv2.THRESH_OTSU if threshold == "otsu" else cv2.THRESH_TRIANGLE
        # A mask of one value has nothing to find a threshold in; it is background.
        flat = gray.min() == gray.max()
        return np.zeros_like(gray) if flat else cv2.threshold(gray, 0, 1, method)[1]
    return (gray > int(threshold)).astype(np.uint8)


def _gray(mask: np.ndarray) -> np.ndarray:
    if mask.ndim == 2:
        return mask
    if (mask != mask[..., :1]).any():
        raise FlexsegError("the mask has colours; a gray one was expected (see --mask_kind)")
    return np.ascontiguousarray(mask[..., 0])


@functools.lru_cache(maxsize=2)  # its table is what makes the second mask fast
def _categorizer(label_map: LabelMap, tolerance: float) -> Categorizer:
    return Categorizer(label_map, tolerance)
