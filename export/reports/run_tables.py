"""The tables of a run's page: figures as text, in rows and columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from export.reports import page
from export.reports.evaluation_facts import ClassFigures, Evaluation, Figure, Interval
from export.reports.run_facts import History
from export.reports.run_settings import Setting

MOST_IMAGES = 300  # that are listed
NONE = "–"  # where a figure has no meaning
_FIGURES = ("dice", "iou", "precision", "recall", "specificity", "matthews")
_TITLES = ("Dice", "IoU", "Precision", "Recall", "Specificity", "Matthews")
_LENGTHS = ("hd95", "average_surface_distance")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: the first cell of a row names it; columns from `numbers` on are figures."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 1


def settings(caption: str, chosen: Sequence[Setting]) -> Table:
    """Keys of an experiment with value, default and meaning."""
    header = ("Setting", "Value", "Default", "What it is")
    rows = tuple((s.key, s.value, s.default, s.meaning) for s in chosen)
    return Table(caption, header, rows, numbers=-1)


def epochs(caption: str, history: History, names: Sequence[str], best: int | None) -> Table | None:
    """Figures of each epoch; None where the history has none of them."""
    names = [n for n in names if any(v is not None for v in history.get(n, ()))]
    if not names:
        return None
    rows = tuple(
        (f"{epoch} (best)" if epoch == best else str(epoch), *map(short, values))
        for epoch, values in enumerate(zip(*(history[n] for n in names), strict=True))
    )
    return Table(caption, ("Epoch", *names), rows)


def classes(caption: str, evaluation: Evaluation, part: Sequence[ClassFigures]) -> Table:
    """Figures of classes over all pixels of a split, with the interval of Dice."""
    header = ("Class", _TITLES[0], _range_title(evaluation), *_TITLES[1:], "Images with it")
    rows = tuple(
        (c.name, figure(c["dice"]), interval(c.interval),
         *(figure(c[name]) for name in _FIGURES[1:]), count(c["images"]))
        for c in part
    )  # fmt: skip
    return Table(caption, header, rows)


def foreground(caption: str, evaluation: Evaluation) -> Table:
    """The foreground in one row, and all of it in one pool in another."""
    own = evaluation.foreground
    macro = [own.get(f"{name}_macro") for name in _FIGURES]
    header = ("Foreground", _TITLES[0], _range_title(evaluation), *_TITLES[1:])
    rows = (
        ("Mean over its classes", figure(macro[0]), interval(evaluation.interval),
         *map(figure, macro[1:])),
        ("All its pixels in one pool", figure(own.get("dice_pooled")), *[NONE] * len(_FIGURES)),
    )  # fmt: skip
    return Table(caption, header, rows)


def images(caption: str, evaluation: Evaluation) -> Table | None:
    """Dice of single images, and images that were missed or are false alarms, of each class."""
    part = evaluation.classes[1:]
    if not any("dice_mean" in c.figures for c in part):
        return None
    header = ("Class", "Mean Dice", "Median", "Deviation", "Images", "Missed", "False alarms")
    rows = tuple(
        (c.name, figure(c["dice_mean"]), figure(c["dice_median"]), figure(c["dice_std"]),
         count(c["per_image_images"]), _of(c["missed_images"], c["images_with"]),
         _of(c["false_alarm_images"], c["images_without"]))
        for c in part
    )  # fmt: skip
    return Table(caption, header, rows)


def every_image(caption: str, evaluation: Evaluation) -> Table | None:
    """Dice of the images, at most `MOST_IMAGES`, the worst first; None where it is not known."""
    if not evaluation.per_image:
        return None
    if len(evaluation.per_image) > MOST_IMAGES:
        caption += f": the first {MOST_IMAGES} of {len(evaluation.per_image):,}"
    names = [c.name for c in evaluation.classes]
    rows = tuple(
        (i.source_id, figure(i.foreground), *map(figure, i.classes))
        for i in evaluation.per_image[:MOST_IMAGES]
    )
    return Table(caption, ("Image", "Foreground", *names), rows)


def confusion(caption: str, evaluation: Evaluation) -> Table | None:
    """Pixels by truth and prediction; None where they are not known."""
    if not evaluation.confusion:
        return None
    names = [c.name for c in evaluation.classes]
    rows = tuple(
        (name, *map(page.number, row), page.number(sum(row)))
        for name, row in zip(names, evaluation.confusion, strict=True)
    )
    return Table(caption, ("True class", *(f"as {n}" for n in names), "All"), rows)


def boundary(caption: str, evaluation: Evaluation) -> Table | None:
    """How far outlines lie apart; None where they were not compared."""
    if evaluation.boundary is None:
        return None
    header = ("Class", "HD95", "Surface distance", "NSD", "clDice", "Images", "One-sided")
    rows = tuple(
        (c.name, *(NONE if c[k] is None else f"{c[k]:.3f}" for k in _LENGTHS),
         figure(c["nsd"]), figure(c["cl_dice"]), count(c["boundary_images"]), count(c["one_sided"]))
        for c in evaluation.classes[1:]
    )  # fmt: skip
    return Table(caption, header, rows)


def calibration(caption: str, evaluation: Evaluation) -> Table | None:
    """Whether probabilities are as often right as they say; None where that was not measured."""
    if not evaluation.calibration:
        return None
    rows = (
        ("All classes", *(figure(evaluation.calibration.get(k)) for k in ("ece", "brier"))),
        *((c.name, figure(c["ece"]), figure(c["brier"])) for c in evaluation.classes),
    )
    return Table(caption, ("Class", "Calibration error", "Brier score"), rows)


def legacy(caption: str, evaluation: Evaluation) -> Table | None:
    """Figures of the older projects under their names; None where there are none."""
    if not evaluation.legacy:
        return None
    rows = tuple((name, figure(value)) for name, value in evaluation.legacy.items())
    return Table(caption, ("Name", "Value"), rows)


def figure(value: Figure) -> str:
    """A figure between 0 and 1."""
    return NONE if value is None else f"{value:.4f}"


def short(value: Figure) -> str:
    """A figure of any size."""
    return NONE if value is None else f"{value:.4g}"


def count(value: Figure) -> str:
    """A number of things."""
    return NONE if value is None else f"{int(value):,}"


def interval(value: Interval) -> str:
    """From where to where."""
    return NONE if value is None else f"{value[0]:.4f} to {value[1]:.4f}"


def _range_title(evaluation: Evaluation) -> str:
    return f"{100 * evaluation.level:g}% interval"


def _of(part: Figure, whole: Figure) -> str:
    return NONE if part is None or whole is None else f"{int(part):,} of {int(whole):,}"
