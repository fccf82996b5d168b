"""The table of a prediction: a line for each image or volume."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from export.predictions.report import Report, Row
from pipelines.label_map import LabelMap

_PLACES = 6


def table(reports: Sequence[Report], label_map: LabelMap, scored: bool) -> bytes:
    """The content of the CSV file.

    Columns: `source_id` (the path without suffix), `slices` (1 of an image), `height`, `width`; of
    each class `predicted_<class>` (pixels) and `share_<class>` (of all pixels); of each but the
    background `objects_<class>` (connected regions, corners touching; empty for an image that was
    segmented row by row). Where there are volumes also `mm3_<class>` (cubic millimetres; empty
    where the file does not say how large its voxels are). Where there are truths also `dice_macro`
    (over the classes but the background that are in truth or prediction), `dice_<class>` and
    `pixels_<class>` (of the truth), as in an evaluation; pixels with the ignore id count in none of
    these, and what has no figure is empty.

    Args:
      reports: of what was segmented, in the order of the lines.
      label_map: the classes.
      scored: whether there are truths.
    """
    names = label_map.names
    header = ["source_id", "slices", "height", "width"]
    header += [f"predicted_{n}" for n in names] + [f"share_{n}" for n in names]
    header += [f"objects_{n}" for n in names[1:]]
    stacks = any(r.row is not None and len(r.row.shape) == 3 for r in reports)
    if stacks:
        header += [f"mm3_{n}" for n in names]
    if scored:
        header += ["dice_macro", *(f"dice_{n}" for n in names), *(f"pixels_{n}" for n in names)]
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow(header)
    for report in reports:
        if report.row is not None:
            lines.writerow([report.stem, *_cells(report.row, stacks, scored)])
    return text.getvalue().encode()


def _cells(row: Row, stacks: bool, scored: bool) -> list[Any]:
    total = math.prod(row.shape)
    cells: list[Any] = [row.shape[0] if len(row.shape) == 3 else 1, *row.shape[-2:]]
    cells += [*row.pixels, *(round(p / total, _PLACES) for p in row.pixels)]
    cells += row.objects or [""] * (len(row.pixels) - 1)
    if stacks:
        size = row.voxel_mm3
        cells += ["" if size is None else round(p * size, _PLACES) for p in row.pixels]
    if scored and not row.confusion:
        cells += [""] * (1 + 2 * len(row.pixels))
    elif scored:
        truth, dice = dice_of(row.confusion)
        known = [d for d in dice[1:] if d is not None]
        macro = sum(known) / len(known) if known else None
        cells += ["" if d is None else round(d, _PLACES) for d in (macro, *dice)]
        cells += truth
    return cells


def dice_of(confusion: Sequence[Sequence[int]]) -> tuple[list[int], list[float | None]]:
    """The true pixels of each class, and its Dice, 2 TP / (2 TP + FP + FN), None without either."""
    matrix = np.array(confusion, np.int64)
    truth, predicted, right = matrix.sum(1), matrix.sum(0), np.diag(matrix)
    dice = [
        2 * int(r) / int(t + p) if t + p else None
        for r, t, p in zip(right, truth, predicted, strict=True)
    ]
    return truth.tolist(), dice
