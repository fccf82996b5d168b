"""What a report shows of an evaluation, from `evaluation/<split>.json` and `<split>_images.csv`.

Evaluations of older releases lack some of it, which is then None or empty.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from train.postprocessing import ClassRule, Postprocessing

Figure = float | None
Interval = tuple[float, float] | None

# Parts of the file with an entry for each class, beside `classes` itself.
_PER_CLASS = ("per_image", "detection", "calibration", "boundary")


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """What was found of one class.

    Attributes:
      id: of the class.
      name: of the class.
      figures: by the names of the file: dice, iou, precision, recall, specificity, matthews,
        images, dice_mean, dice_median, missed_images, ece, hd95 and so on, as far as they are
        there; `images` of other parts than `classes` after the part's name: boundary_images.
      interval: of the pooled Dice.
    """

    id: int
    name: str
    figures: Mapping[str, Figure]
    interval: Interval

    def __getitem__(self, name: str) -> Figure:
        return self.figures.get(name)


@dataclasses.dataclass(frozen=True)
class ImageDice:
    """Dice of one image: of the foreground, and of each class by id; None where it has none."""

    source_id: str
    foreground: Figure
    classes: tuple[Figure, ...]


@dataclasses.dataclass(frozen=True)
class Boundary:
    """How outlines were compared: height and width of a pixel, and what NSD takes for none."""

    spacing: tuple[float, float]
    tolerance: float

    def __str__(self) -> str:
        height, width = self.spacing
        unit = "pixels" if height == width == 1 else f"a unit of pixels of {height:g} x {width:g}"
        return f"Distances in {unit}. NSD within {self.tolerance:g}."


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was found on a split.

    Attributes:
      split: its name.
      images: how many.
      fingerprint: of the dataset; "" where the file does not say.
      size: "as prepared" or "original", of the images that were compared.
      tta: the symmetries of test-time augmentation.
      scales: its scales.
      postprocessing: what was done to class ids.
      classes: by id, the background first.
      foreground: dice_macro, iou_macro, dice_pooled and so on.
      interval: of foreground dice_macro.
      level: of the intervals, such as 0.95.
      drawn: what the intervals drew, such as "18 groups"; "" where there are none.
      confusion: pixels [K][K], rows the truth; empty where the file has none.
      overall: figures of all classes together.
      calibration: ece and brier.
      legacy: figures of older projects.
      rules: part of the file -> what its figures mean.
      per_image: of each image, the worst first; empty where there is no table.
      boundary: how outlines were compared; None where they were not.
    """

    split: str
    images: int
    fingerprint: str
    size: str
    tta: str
    scales: tuple[float, ...]
    postprocessing: Postprocessing
    classes: tuple[ClassFigures, ...]
    foreground: Mapping[str, Figure]
    interval: Interval
    level: float
    drawn: str
    confusion: tuple[tuple[int, ...], ...]
    overall: Mapping[str, Figure]
    calibration: Mapping[str, Figure]
    legacy: Mapping[str, Figure]
    rules: Mapping[str, str]
    per_image: tuple[ImageDice, ...]
    boundary: Boundary | None


def read(data: bytes, table: bytes | None) -> Evaluation:
    """Reads an evaluation.

    Args:
      data: of `<split>.json`.
      table: of `<split>_images.csv`; None where there is none.

    Raises:
      ValueError, KeyError, TypeError, AttributeError, FlexsegError: where something in it is not
        what it should be.
    """
    found = json.loads(data)
    how = found.get("prediction") or {}
    intervals = found.get("intervals") or {}
    classes = tuple(_class(entry, found) for entry in found["classes"])
    if [c.id for c in classes] != list(range(len(classes))):
        raise ValueError("the classes are not in the order of their ids")
    cleaning = Postprocessing(tuple(ClassRule(**rule) for rule in how.get("postprocessing") or []))
    if any(rule.id >= len(classes) for rule in cleaning.classes):
        raise ValueError("a class is post-processed that is none of its classes")
    return Evaluation(
        split=str(found["split"]),
        images=int(found["images"]),
        fingerprint=str(found.get("dataset_fingerprint", "")),
        size=str(found.get("size", "as prepared")),
        tta=str(how.get("tta", "none")),
        scales=tuple(float(s) for s in how.get("scales", [1.0])),
        postprocessing=cleaning,
        classes=classes,
        foreground=_figures(found["foreground"]),
        interval=_interval(intervals.get("foreground_dice_macro")),
        level=float(intervals.get("level", 0.95)),
        drawn=f"{intervals['units']} {intervals['drawn']}" if intervals else "",
        confusion=_confusion(found.get("confusion") or [], len(classes)),
        overall=_figures(found.get("overall") or {}),
        calibration=_figures(found.get("calibration") or {}),
        legacy=_figures(found.get("legacy") or {}),
        rules={str(k): str(v) for k, v in (found.get("rules") or {}).items()},
        per_image=_image_lines(table, len(classes)) if table else (),
        boundary=_boundary(found.get("boundary")),
    )


def number(value: Any) -> Figure:
    """A finite number, or None for none and for what is no number (NaN).

    Raises:
      TypeError: where it is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return float(value) if math.isfinite(value) else None


def rules_in_words(chosen: Postprocessing, names: Sequence[str]) -> tuple[str, ...]:
    """What is done to class ids, a sentence for each class that something is done to."""
    return tuple(
        f"{names[rule.id]}: {_rule_in_words(rule)}"
        for rule in chosen.classes
        if not rule.is_identity
    )


def _rule_in_words(rule: ClassRule) -> str:
    parts = []
    if rule.largest_component:
        parts.append("only the largest component is kept")
    if rule.minimum_size > 1:
        parts.append(f"components below {rule.minimum_size} pixels are removed")
    if rule.fill_holes:
        parts.append(f"holes of up to {rule.fill_holes} pixels are filled")
    return ", ".join(parts)


def _class(entry: Mapping[str, Any], found: Mapping[str, Any]) -> ClassFigures:
    class_id = int(entry["id"])
    figures = _figures(entry)
    for part in _PER_CLASS:
        for other in (found.get(part) or {}).get("classes") or []:
            if other["id"] == class_id:
                # `images` of these parts counts others than the figure of the class itself.
                own = {f"{part}_images" if k == "images" else k: v for k, v in other.items()}
                figures.update(_figures(own))
    intervals = (found.get("intervals") or {}).get("classes") or []
    interval = next((c["dice"] for c in intervals if c["id"] == class_id), None)
    return ClassFigures(class_id, str(entry["name"]), figures, _interval(interval))


def _figures(entry: Mapping[str, Any]) -> dict[str, Figure]:
    """What of an entry is a number, or none."""
    kinds = (int, float, type(None))
    return {
        str(k): number(v)
        for k, v in entry.items()
        if k != "id" and isinstance(v, kinds) and not isinstance(v, bool)
    }


def _interval(value: Any) -> Interval:
    if value is None:
        return None
    low, high = (number(v) for v in value)
    return None if low is None or high is None else (low, high)


def _confusion(rows: Any, count: int) -> tuple[tuple[int, ...], ...]:
    matrix = tuple(tuple(int(v) for v in row) for row in rows)
    if matrix and {len(matrix), *map(len, matrix)} != {count}:
        raise ValueError(f"the confusion matrix is not {count} x {count}")
    return matrix


def _image_lines(table: bytes, count: int) -> tuple[ImageDice, ...]:
    lines = csv.reader(io.StringIO(table.decode(), newline=""))
    header = next(lines, [])
    # Columns go by their places, for a class may be named as another column is.
    if header[:3] != ["source_id", "pixels", "dice_macro"] or len(header) < 3 + count:
        raise ValueError("the table of images has other columns")
    found = []
    for line in lines:
        values = [number(float(v)) if v else None for v in line[2 : 3 + count]]
        found.append(ImageDice(line[0], values[0], tuple(values[1:])))
    return tuple(found)


def _boundary(part: Any) -> Boundary | None:
    if not part:
        return None
    height, width = part["spacing"]
    return Boundary((float(height), float(width)), float(part["nsd_tolerance"]))
