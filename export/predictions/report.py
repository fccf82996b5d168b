"""What became of one item: its files, and its rows of the table. Plain data, for JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

_BLOCK = 1 << 20  # pixels that are counted at a time


@dataclasses.dataclass(frozen=True)
class Row:
    """The figures of an image, or of a volume.

    Attributes:
      shape: (H, W) of an image, (slices, H, W) of a volume.
      pixels: of each class.
      objects: connected regions of each class from 1 on, corners touching; empty where they were
        not counted.
      confusion: [K][K] pixels, the truth's class first; empty without a truth.
      voxel_mm3: cubic millimetres of a voxel; None of images, and where the volume does not say.
    """

    shape: tuple[int, ...]
    pixels: tuple[int, ...]
    objects: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...] = ()
    voxel_mm3: float | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What `segment_file` says of an item.

    Attributes:
      stem: of the item.
      path: of the item.
      state: of the item.
      row: its figures; None where it could not be segmented.
      files: what was written, by its path below the output, and the kind of output that it
        belongs to, such as "mask" or "overlay".
      made: kind of output -> fingerprint of what it depends on; see `Outputs.kinds`.
      truth: path of the mask it was held against; "" for none.
      truth_state: of that mask; see `Item.state`.
      truth_kind: what it holds; see `masks.parse_kind`.
      error: why it could not be segmented or scored; "" where it could.
    """

    stem: str
    path: str
    state: tuple[int, int | str] = (-1, -1)
    row: Row | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    made: Mapping[str, str] = dataclasses.field(default_factory=dict)
    truth: str = ""
    truth_state: tuple[int, int | str] = (-1, -1)
    truth_kind: str = ""
    error: str = ""

    def to_json(self) -> str:
        """As text; `from_json` is its inverse."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def from_json(text: str | bytes) -> Report:
    """Reads what `Report.to_json` wrote.

    Raises:
      ValueError, TypeError or KeyError: where it is something else.
    """
    data: dict[str, Any] = json.loads(text)
    row = data.pop("row")
    for key in ("state", "truth_state"):
        size, version = data[key]
        data[key] = size, version
    figures = None if row is None else Row(**{key: _tuples(value) for key, value in row.items()})
    return Report(**data, row=figures)


def row_of(ids: np.ndarray, num_classes: int) -> Row:
    """The figures of an image, class ids uint8 [H, W], without a truth."""
    # Class by class: bincount would make eight bytes of every pixel first.
    pixels = [int(np.count_nonzero(ids == k)) for k in range(num_classes)]
    objects = [count_objects(ids == k) if pixels[k] else 0 for k in range(1, num_classes)]
    return Row(_tuples(ids.shape), tuple(pixels), tuple(objects))


def confusion_of(truth: np.ndarray, ids: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts the pixels of each pair of classes.

    Args:
      truth: class ids uint8 [...]; ids outside the classes are ignored.
      ids: class ids uint8 [...] of the same shape.
      num_classes: K.

    Returns:
      int64 [K, K], the truth's class first.
    """
    counts = np.zeros(num_classes**2, np.int64)
    truths, found = truth.reshape(-1), ids.reshape(-1)
    for start in range(0, truths.size, _BLOCK):  # what follows takes eight bytes a pixel
        block = truths[start : start + _BLOCK]
        valid = block < num_classes
        pairs = block[valid].astype(np.int64) * num_classes + found[start : start + _BLOCK][valid]
        counts += np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def count_objects(region: np.ndarray) -> int:
    """How many connected regions bool [H, W] has, pixels that touch at a corner connected."""
    return cv2.connectedComponents(region.view(np.uint8), connectivity=8)[0] - 1


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
