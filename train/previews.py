"""Pictures of what a run does: contact sheets and curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from pipelines.label_map import IGNORE_ID, LabelMap, colorize

_GAP = 4  # pixels between the pictures of a sheet


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


def sheet(
    images: Sequence[np.ndarray],
    masks: Sequence[Sequence[np.ndarray]],
    label_map: LabelMap,
    side: int = 256,
) -> np.ndarray:
    """A contact sheet: a row for each image, first itself, then each of its masks in colours.

    Args:
      images: uint8 [H, W, C] each, of any size.
      masks: for each image its masks (truth, prediction, ...), class ids uint8 [H, W].
      label_map: gives the colours.
      side: height of a row, in pixels.

    Returns:
      uint8 [h, w, 3], RGB.
    """
    rows = []
    for image, row in zip(images, masks, strict=True):
        base = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
        pictures = [base, *(colorize(ids, label_map) for ids in row)]
        size = (max(1, round(side * image.shape[1] / image.shape[0])), side)
        cells = [
            cv2.resize(
                picture, size, interpolation=cv2.INTER_AREA if i == 0 else cv2.INTER_NEAREST_EXACT
            )
            for i, picture in enumerate(pictures)
        ]
        rows.append(np.hstack([np.pad(c, ((0, _GAP), (0, _GAP), (0, 0))) for c in cells]))
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


def write_curves(
    folder: str, name: str, columns: Mapping[str, Sequence[float | None]], header: str
) -> None:
    """Writes curves over the epochs as `<name>.csv` and draws them as `<name>.png`.

    Args:
      folder: where to.
      name: the files' stem, and the drawing's title.
      columns: label -> a value for each epoch.
      header: the CSV's first line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    os.makedirs(folder, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = [
        f"{epoch}, " + ", ".join(f"{v:.4f}" if v is not None else "" for v in row)
        for epoch, row in enumerate(rows)
    ]
    path = os.path.join(folder, name)
    with open(path + ".csv.tmp", "w", encoding="utf-8") as file:
        file.write("\n".join([header, *lines]) + "\n")
    os.replace(path + ".csv.tmp", path + ".csv")
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = (("tab:green", "o"), ("tab:red", "s"))
    for (label, values), (color, marker) in zip(columns.items(), styles, strict=False):
        known = [(i, v) for i, v in enumerate(values) if v is not None]
        axes.plot(
            [i for i, _ in known],
            [v for _, v in known],
            color=color,
            marker=marker,
            linestyle="--",
            label=label,
        )
    axes.set_title(name)
    axes.set_xlabel("epoch")
    axes.grid(visible=True)
    axes.legend(loc="upper left")
    figure.savefig(path + ".tmp", format="png")
    os.replace(path + ".tmp", path + ".png")
