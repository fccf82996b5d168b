"""A dataset as one picture: counts of images, pixels of each class, and what they look like."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from flexseg_errors import FlexsegError
from pipelines.label_map import IGNORE_ID, LabelMap
from pipelines.manifest import Manifest
from pipelines.preparation import resize_image, resize_mask

_SHOWN = 4  # images of each split
_LOOKED_AT = 12  # of which those are chosen
_SIDE = 190  # height of a picture in the contact sheet, in pixels
_WIDEST = 285
_FRAME = 1
_DPI = 100
_WIDTH = 13.0  # of the figure, in inches
_ABOVE = 4.2  # height of the row of charts, in inches
_SIDE_BY_SIDE = 4  # names of splits that fit under their bars
_MOST_NAMED = 32  # classes in the legend, in columns of at most
_LEGEND_ROWS = 17
_LONGEST_NAME = 24  # characters


def draw(manifest: Manifest, path: str) -> None:
    """Draws a dataset: images per split, pixels per class and split, and a contact sheet.

    The sheet shows, of the first images of each split, those with the most classes, each beside its
    mask.

    Args:
      manifest: the dataset.
      path: the PNG to write; its folder is made if it is not there.

    Raises:
      FlexsegError: where `path` is no name of a PNG, or a record is damaged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not path.lower().endswith(".png"):
        raise FlexsegError(f"--figure={path}: expected the name of a file that ends in .png.")
    sheets = {split: contact_sheet(manifest, split) for split in manifest.splits}
    widths = [sheet.shape[1] for sheet in sheets.values()]
    inches = min(0.9 * _WIDTH / sum(widths), 1.2 / _DPI)  # for a pixel of the sheets
    tallest = max(sheet.shape[0] for sheet in sheets.values())
    below = tallest * inches + 0.6
    figure = Figure((_WIDTH, _ABOVE + below), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(os.path.basename(os.path.abspath(manifest.folder)), size=15, parse_math=False)
    charts, pictures = figure.subfigures(2, 1, height_ratios=[_ABOVE, below], squeeze=False)[:, 0]
    left, right = charts.subplots(1, 2, width_ratios=[1, 2.4])
    draw_counts(left, manifest)
    draw_pixels(right, manifest)
    row = pictures.subplots(1, len(sheets), width_ratios=widths, squeeze=False)[0]
    for axes, (split, sheet) in zip(row, sheets.items(), strict=True):
        missing = tallest - sheet.shape[0]  # sheets of one height are drawn to one scale
        axes.imshow(np.pad(sheet, ((0, missing), (0, 0), (0, 0)), constant_values=255))
        axes.set_title(split)
        axes.set_anchor("N")
        axes.set_axis_off()
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    figure.savefig(path + ".tmp", format="png", metadata={"Software": None})
    os.replace(path + ".tmp", path)


def contact_sheet(manifest: Manifest, split: str) -> np.ndarray:
    """Some images of a split, each beside its mask: uint8 [h, w, 3], RGB."""
    from train import previews

    pairs = []
    for image, ids in itertools.islice(_small(manifest, split), _LOOKED_AT):
        pairs.append((len(np.unique(ids)), image, ids))
    pairs.sort(key=lambda pair: -pair[0])  # of equal ones, the first stays first
    images = [image for _, image, _ in pairs[:_SHOWN]]
    masks = [ids for *_, ids in pairs[:_SHOWN]]
    width = max(ids.shape[1] for ids in masks)
    return previews.sheet(
        [_framed(image, width, 128) for image in images],
        [[_framed(ids, width, IGNORE_ID)] for ids in masks],  # which is painted gray as well
        manifest.label_map,
        _SIDE + 2 * _FRAME,
    )


def _framed(picture: np.ndarray, width: int, gray: int) -> np.ndarray:
    """Centres a picture [h, w, ...] on gray, so that all are alike and black ones keep an edge."""
    spare = (_SIDE - picture.shape[0], width - picture.shape[1])
    pads = [(n // 2 + _FRAME, n - n // 2 + _FRAME) for n in spare]
    pads += [(0, 0)] * (picture.ndim - 2)
    return np.pad(picture, pads, constant_values=gray)


def _small(manifest: Manifest, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The images and masks of a split, one after the other, as large as the sheet shows them."""
    from pipelines import batches

    for _, image, ids in batches.whole_images(manifest, split):
        scale = min(_SIDE / ids.shape[0], _WIDEST / ids.shape[1])
        height, width = (max(1, round(n * scale)) for n in ids.shape)
        if scale > 1:  # large pixels are honest; blurred ones are not
            rows = np.arange(height) * ids.shape[0] // height
            columns = np.arange(width) * ids.shape[1] // width
            yield image[rows][:, columns], ids[rows][:, columns]
        else:
            yield resize_image(image, (height, width)), resize_mask(ids, (height, width))


def draw_counts(axes: Any, manifest: Manifest) -> None:
    """A bar for each split's images, and beside it one for their sources where they are fewer."""
    splits = manifest.splits.values()
    counts = {"images": [s.examples for s in splits], "sources": [s.sources for s in splits]}
    if counts["images"] == counts["sources"]:
        del counts["sources"]
    width = 0.8 / len(counts)
    for i, (name, values) in enumerate(counts.items()):
        at = np.arange(len(values)) + (i - (len(counts) - 1) / 2) * width
        bars = axes.bar(at, values, 0.95 * width, label=name, color=("tab:blue", "0.7")[i])
        axes.bar_label(bars, padding=2)
    _name_splits(axes, manifest)
    axes.set_ylabel("number of images")
    axes.set_title("Images")
    axes.margins(y=0.12)
    if len(counts) > 1:
        axes.legend()


def draw_pixels(axes: Any, manifest: Manifest) -> None:
    """For each split a bar for each class, in its colour; a class without pixels is marked 0."""
    label_map = manifest.label_map
    count = label_map.num_classes
    pixels = np.array([s.class_pixels for s in manifest.splits.values()], float)
    some = pixels[pixels > 0]
    floor = some.min() / 4 if some.size else 0.5
    width = 0.9 / count
    at = np.arange(len(pixels))[:, None] + (np.arange(count) - (count - 1) / 2) * width
    for k, color in enumerate(label_map.colors / 255):
        axes.bar(at[:, k], pixels[:, k], width, color=color, edgecolor="0.3", linewidth=0.5)
    axes.set_facecolor("0.93")  # white is a class's colour, too
    if some.size:
        axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    for x, value in zip(at.ravel(), pixels.ravel(), strict=True):
        if not value:
            axes.annotate("0", (x, floor), ha="center", va="bottom", fontsize=8, color="0.4")
    _name_splits(axes, manifest)
    axes.set_ylabel("number of pixels")
    axes.set_title("Pixels of each class")
    _draw_legend(axes, label_map)


def _name_splits(axes: Any, manifest: Manifest) -> None:
    names = list(manifest.splits)
    many = len(names) > _SIDE_BY_SIDE  # folds
    axes.set_xticks(range(len(names)), names, rotation=90 if many else 0)


def _draw_legend(axes: Any, label_map: LabelMap) -> None:
    from matplotlib.patches import Patch

    shown = list(zip(label_map.classes, label_map.colors / 255, strict=True))[:_MOST_NAMED]
    # The id comes first also because matplotlib hides what begins with an underscore.
    patches = [
        Patch(facecolor=color, edgecolor="0.3", label=f"{label.id} {_short(label.name)}")
        for label, color in shown
    ]
    if len(shown) < label_map.num_classes:
        more = label_map.num_classes - len(shown)
        patches.append(Patch(alpha=0, label=f"and {more} more"))
    legend = axes.legend(
        handles=patches,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        borderaxespad=0,
        frameon=False,
        fontsize="small",
        ncols=-(-len(patches) // _LEGEND_ROWS),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
