"""Pictures of images and masks: overlays, errors, contact sheets; and how they are written."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from pipelines.label_map import IGNORE_ID, LabelMap, colorize

GAP = 4  # pixels to the right of and below each picture of a sheet
SIDE = 256  # height of a sheet's pictures, in pixels

# Colours that eyes of every kind tell apart (Okabe and Ito 2008).
FALSE_ALARM, MISSED, CONFUSED = (213, 94, 0), (86, 180, 233), (240, 228, 66)
_DIMMED = 0.5  # brightness of the image behind errors


def overlay(image: np.ndarray, ids: np.ndarray, label_map: LabelMap, opacity: float) -> np.ndarray:
    """Paints the foreground of a mask over an image.

    Args:
      image: uint8 [H, W, C], C of 1 or 3.
      ids: class ids uint8 [H, W].
      label_map: gives the colours.
      opacity: 0 shows the image alone, 1 the mask alone.

    Returns:
      uint8 [H, W, 3], RGB.
    """
    base = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
    painted = base * (1.0 - opacity) + colorize(ids, label_map) * opacity
    shown = ((ids > 0) & (ids != IGNORE_ID))[..., None]
    return np.where(shown, np.round(painted), base).astype(np.uint8)


def errors(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Paints where a prediction is wrong over a dimmed image.

    Foreground that is none is vermilion (`FALSE_ALARM`), foreground that was missed sky blue
    (`MISSED`), foreground of another class yellow (`CONFUSED`). Ignored pixels are never wrong.

    Args:
      image: uint8 [H, W, C], C of 1 or 3.
      truth: class ids uint8 [H, W].
      found: predicted class ids uint8 [H, W].

    Returns:
      uint8 [H, W, 3], RGB.
    """
    gray = image.mean(-1, keepdims=True) * _DIMMED
    picture = np.repeat(np.round(gray).astype(np.uint8), 3, -1)
    wrong = (truth != found) & (truth != IGNORE_ID)
    picture[wrong & (truth == 0)] = FALSE_ALARM
    picture[wrong & (found == 0)] = MISSED
    picture[wrong & (truth > 0) & (found > 0)] = CONFUSED
    return picture


def sheet(
    images: Sequence[np.ndarray],
    masks: Sequence[Sequence[np.ndarray]],
    label_map: LabelMap,
    side: int = SIDE,
    with_errors: bool = False,
) -> np.ndarray:
    """A contact sheet: a row for each image, first itself, then each of its masks in colours.

    Args:
      images: uint8 [H, W, C] each, of any size.
      masks: for each image its masks (truth, prediction, ...), class ids uint8 [H, W].
      label_map: gives the colours.
      side: height of a row, in pixels.
      with_errors: end each row with what is wrong in its second mask by its first; see `errors`.

    Returns:
      uint8 [h, w, 3], RGB.
    """
    rows = []
    for image, row in zip(images, masks, strict=True):
        base = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
        pictures = [base, *(colorize(ids, label_map) for ids in row)]
        if with_errors:
            pictures.append(errors(image, row[0], row[1]))
        size = (max(1, round(side * image.shape[1] / image.shape[0])), side)
        cells = [
            cv2.resize(
                picture, size, interpolation=cv2.INTER_AREA if i == 0 else cv2.INTER_NEAREST_EXACT
            )
            for i, picture in enumerate(pictures)
        ]
        rows.append(np.hstack([np.pad(c, ((0, GAP), (0, GAP), (0, 0))) for c in cells]))
    width = max(r.shape[1] for r in rows)
    return np.vstack([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows])


def write_png(path: str, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] RGB as a PNG that appears whole or not at all."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise RuntimeError(f"OpenCV cannot encode a picture of shape {picture.shape}.")
    with open(path + ".tmp", "wb") as file:
        file.write(data.tobytes())
    os.replace(path + ".tmp", path)


def write_mask(path: str, ids: np.ndarray, label_map: LabelMap) -> None:
    """Writes class ids, uint8 [H, W], as a palette PNG in the label map's colours."""
    picture = Image.fromarray(ids, "P")
    # All 256 entries: with fewer, Pillow would pack pixels into fewer bits.
    picture.putpalette(colorize(np.arange(256, dtype=np.uint8)[None], label_map).tobytes())
    picture.save(path + ".tmp", format="PNG")
    os.replace(path + ".tmp", path)
