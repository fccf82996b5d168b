"""Film strips: how what a network makes of a few images changes over the epochs.

They are made of the pictures that lie in the run directory, so a run that goes on draws on what it
drew before it was broken off.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image

from train import previews

SHEETS = "previews"  # folders in the run directory; the other two have their old names
WHOLE, TILED = "epoch_change_infer", "epoch_change_tiled_infer"

_HEIGHT = 128  # of a picture of a strip, in pixels
_EPOCHS = 12  # columns at most, beside image and truth
_GAP = 2
_HEAD = 18  # height of the line of titles
_SHEET_COLUMNS = 4  # image, truth, prediction, error

Row = Sequence[tuple[str, np.ndarray]]  # title and picture, uint8 [h, w, 3], of each column


def sheet_name(epoch: int) -> str:
    """The name of the sheet of an epoch, counted from 0."""
    return f"epoch_{epoch:04d}.png"


def mask_name(epoch: int, stem: str) -> str:
    """The name of an image's mask after an epoch, which the old projects counted from 1."""
    return f"Epoch_{epoch + 1}_{stem}.png"


class Film:
    """Draws the strips of a run; keeps the small pictures that it made before."""

    def __init__(self, folder: str):
        """Draws nothing yet.

        Args:
          folder: the run directory.
        """
        self._folder = folder
        self._small: dict[str, np.ndarray] = {}
        self._columns: dict[str, list[list[np.ndarray]]] = {}

    def of_sheets(self, epoch: int) -> np.ndarray | None:
        """The strip of the sheets up to an epoch: image, truth, then predictions.

        Returns:
          uint8 [h, w, 3], RGB; None where there is no sheet.
        """
        folder = os.path.join(self._folder, SHEETS)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        numbers = [int(m[1]) for m in (re.fullmatch(r"epoch_(\d+)\.png", n) for n in names) if m]
        # A later one is of a process that was killed before its checkpoint.
        epochs = spread(sorted(n for n in numbers if n <= epoch), _EPOCHS)
        if not epochs:
            return None
        columns = {n: self._of_sheet(os.path.join(folder, sheet_name(n))) for n in epochs}
        return strip(
            [
                [
                    ("image", newest[0]),
                    ("truth", newest[1]),
                    *((str(n), column[i][2]) for n, column in columns.items() if i < len(column)),
                ]
                for i, newest in enumerate(columns[epochs[-1]])
            ]
        )

    def of_masks(
        self, name: str, images: Mapping[str, np.ndarray], epoch: int
    ) -> np.ndarray | None:
        """The strip of the masks in a folder of the run up to an epoch: image, then predictions.

        Args:
          name: of the folder.
          images: stem -> image of each row, uint8 [H, W, C].
          epoch: the last, counted from 0; titles are the numbers of the files, from 1.

        Returns:
          uint8 [h, w, 3], RGB; None where no epoch has the masks of all images.
        """
        folder = os.path.join(self._folder, name)
        there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        whole = [
            n for n in range(epoch + 1) if there.issuperset(mask_name(n, stem) for stem in images)
        ]
        epochs = spread(whole, _EPOCHS)
        if not epochs:
            return None
        rows = []
        for stem, image in images.items():
            paths = {n: os.path.join(folder, mask_name(n, stem)) for n in epochs}
            found = [(str(n + 1), self._shrunk(path)) for n, path in paths.items()]
            rows.append([("image", shrink(image)), *found])
        return strip(rows)

    def _of_sheet(self, path: str) -> list[list[np.ndarray]]:
        """Small image, truth and prediction of each row of a sheet."""
        if path not in self._columns:
            sheet = _read(path)
            height, width = previews.SIDE + previews.GAP, sheet.shape[1] // _SHEET_COLUMNS
            self._columns[path] = [
                [
                    shrink(sheet[top : top + previews.SIDE, left : left + width - previews.GAP])
                    for left in (0, width, 2 * width)
                ]
                for top in range(0, sheet.shape[0], height)
            ]
        return self._columns[path]

    def _shrunk(self, path: str) -> np.ndarray:
        if path not in self._small:
            self._small[path] = shrink(_read(path))
        return self._small[path]


def spread(epochs: Sequence[int], count: int) -> list[int]:
    """At most `count` of the epochs, evenly, the first and the last among them."""
    if len(epochs) <= count:
        return list(epochs)
    places = np.linspace(0, len(epochs) - 1, count).round().astype(int)
    return [epochs[i] for i in places]


def shrink(picture: np.ndarray) -> np.ndarray:
    """Brings a picture, uint8 [H, W, 1 or 3], to the height of a strip's row, uint8 [h, w, 3]."""
    picture = np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture
    size = (max(1, round(_HEIGHT * picture.shape[1] / picture.shape[0])), _HEIGHT)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def strip(rows: Sequence[Row]) -> np.ndarray:
    """Sets rows of pictures below a line with their columns' titles, uint8 [h, w, 3], on black."""
    widest = max(picture.shape[1] for row in rows for _, picture in row) + _GAP
    columns = max(map(len, rows))
    canvas = np.zeros((_HEAD + len(rows) * (_HEIGHT + _GAP), columns * widest, 3), np.uint8)
    titles = max(rows, key=len)
    for column, (title, _) in enumerate(titles):
        place = (column * widest + 2, _HEAD - 5)
        cv2.putText(canvas, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255,) * 3, 1, cv2.LINE_AA)
    for i, row in enumerate(rows):
        top = _HEAD + i * (_HEIGHT + _GAP)
        for column, (_, picture) in enumerate(row):
            left = column * widest
            canvas[top : top + _HEIGHT, left : left + picture.shape[1]] = picture
    return canvas


def _read(path: str) -> np.ndarray:
    """A PNG as uint8 [H, W, 3], RGB."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
