"""The figures of an evaluation, of one run or of several, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from markupsafe import Markup

from export.reports import curve_figures, figures
from export.reports.evaluation_facts import Evaluation, Figure, Interval
from train.confusion_picture import percent

Row = tuple[str, Sequence[tuple[str, Figure, Interval]]]  # class; run, Dice and interval of each

_Row = TypeVar("_Row")

MOST_ROWS = 40  # classes in one figure
_MOST_DOTS = 400  # images up to which each gets a dot
_MOST_WITH_TEXT = 12  # classes up to which shares are written into a confusion matrix
_SHORT, _BESIDE = 12, 18  # characters of a name below a column, and beside a row
_MOST_CELLS = 40  # classes up to which its cells are drawn one by one
_ROW = 0.42  # inches, of a figure with a row for each class
_LIGHT, _DARK = (247, 251, 255), (8, 48, 107)  # of shares, from 0 to 1
_GRAY = (200, 200, 200)  # of rows without pixels


def intervals(title: str, rows: Sequence[Row]) -> Markup:
    """Dice with its interval: a row for each class, and in it a mark for each run.

    Of very many classes, those of the lowest Dice have rows; see `MOST_ROWS`.

    Args:
      title: of the figure.
      rows: of each class; the name of a single run is not written.
    """
    rows = _lowest(rows, lambda row: min((v for _, v, _ in row[1] if v is not None), default=2.0))
    most = max(len(marks) for _, marks in rows)
    height = 0.9 + max(_ROW, 0.24 * most) * len(rows) + (0.25 * most if most > 1 else 0)
    with figures.drawing(height=height) as figure:
        axes = figure.add_subplot()
        told: set[str] = set()
        for row, (_, marks) in enumerate(rows):
            for place, (name, value, interval) in enumerate(marks):
                color = figures.PALETTE[place % len(figures.PALETTE)]
                y = row + (place - (len(marks) - 1) / 2) * 0.7 / most
                if interval is not None:
                    axes.plot(interval, [y, y], color=color, linewidth=2)
                if value is not None:
                    label = None if name in told else figures.label(name)
                    told.add(name)
                    mark = "os^Dv"[place % 5]
                    axes.plot([value], [y], mark, color=color, markersize=6, label=label)
        known = [v for _, marks in rows for _, value, span in marks for v in (value, *(span or ()))]
        _class_rows(axes, [name for name, _ in rows], [v for v in known if v is not None])
        axes.set_xlabel("Dice")
        if most > 1:
            curve_figures.legend_below(figure, axes, columns=1)
        return figures.svg(figure, title, _intervals_in_words(rows))


def per_image(title: str, evaluation: Evaluation) -> Markup | None:
    """How Dice is spread over the images: a box from quarter to quarter for each class, and dots.

    None where the images are not known.
    """
    every = [
        (
            label.name,
            sorted(v for i in evaluation.per_image if (v := i.classes[label.id]) is not None),
        )
        for label in evaluation.classes[1:]
    ]
    rows = _lowest([row for row in every if row[1]], lambda row: sum(row[1]) / len(row[1]))
    if not rows:
        return None
    with figures.drawing(height=0.9 + 1.4 * _ROW * len(rows)) as figure:
        axes = figure.add_subplot()
        for row, (_, values) in enumerate(rows):
            axes.boxplot(
                values, vert=False, positions=[row], widths=0.35, whis=(0, 100),
                medianprops={"color": figures.PALETTE[1], "linewidth": 2},
                **{f"{part}props": {"color": figures.PALETTE[0]}
                   for part in ("box", "whisker", "cap")},
            )  # fmt: skip
            if len(values) <= _MOST_DOTS:
                # Dots are spread so that equal ones show; by their rank, so always in the same way.
                places = [row - 0.32 + 0.08 * (rank % 3 - 1) for rank in range(len(values))]
                axes.plot(values, places, "o", color=figures.PALETTE[0], markersize=3, alpha=0.7)
        _class_rows(axes, [name for name, _ in rows], [values[0] for _, values in rows])
        axes.set_xlabel("Dice of an image")
        return figures.svg(figure, title, _spread_in_words(rows))


def confusion(title: str, evaluation: Evaluation) -> Markup | None:
    """Which share of each class's true pixels is taken for which class; None without a matrix."""
    matrix, names = evaluation.confusion, [c.name for c in evaluation.classes]
    if not matrix:
        return None
    shares = [[v / sum(row) for v in row] if sum(row) else None for row in matrix]
    count = len(names)
    side = 1.2 + 0.42 * min(count, 10)
    with figures.drawing(height=side) as figure:
        axes = figure.add_subplot()
        if count <= _MOST_CELLS:
            _cells(axes, shares, with_text=count <= _MOST_WITH_TEXT)
        else:
            rows = [[_shade(row[k] if row else None) for k in range(count)] for row in shares]
            axes.imshow(rows, interpolation="none")
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.spines[:].set_visible(False)
        if count <= _MOST_CELLS:
            below, beside = _labels(names)
            axes.set_xticks(range(count), below, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(count), beside)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        return figures.svg(figure, title, _confusion_in_words(shares, names))


def left_out(rows: int) -> str:
    """What is said below a figure with a row for each class, of which there are so many."""
    return f" The {MOST_ROWS} lowest of {rows} classes." if rows > MOST_ROWS else ""


# ---- Parts of figures ----------------------------------------------------------------------------


def _lowest(rows: Sequence[_Row], value: Callable[[_Row], float]) -> list[_Row]:
    """At most `MOST_ROWS` rows, those of the lowest values, in their order."""
    chosen = sorted(range(len(rows)), key=lambda i: value(rows[i]))[:MOST_ROWS]
    return [rows[i] for i in sorted(chosen)]


def _class_rows(axes: Any, names: Sequence[str], values: Sequence[float]) -> None:
    """A row for each class, and an axis of Dice from a round number below all values to 1."""
    axes.set_yticks(range(len(names)), [figures.label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.6)
    low = math.floor(10 * min(values) - 0.2) / 10 if values else 0.0
    low = max(0.0, min(low, 0.9))
    margin = 0.02 * (1 - low)
    axes.set_xlim(low - margin, 1 + margin)
    axes.grid(visible=True, axis="x")


def _labels(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands below a matrix and beside it: names, or where they are long numbers that tell."""
    labels = [figures.label(name) for name in names]
    if max(map(len, labels)) <= _SHORT:
        return labels, labels
    whole = [n if len(n) <= _BESIDE else n[: _BESIDE - 1] + "…" for n in labels]
    return [str(k) for k in range(len(names))], [f"{n} ({k})" for k, n in enumerate(whole)]


def _cells(axes: Any, shares: Sequence[Sequence[float] | None], *, with_text: bool) -> None:
    from matplotlib.patches import Rectangle

    for row, values in enumerate(shares):
        for column, share in enumerate(values or [None] * len(shares)):
            rgb = [round(255 * v) for v in _shade(share)]
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=figures.color(rgb), linewidth=0
                )
            )
            if with_text and share is not None:
                ink = (255, 255, 255) if share > 0.5 else (0, 0, 0)
                axes.text(column, row, percent(share), ha="center", va="center",
                          color=figures.color(ink), fontsize=9)  # fmt: skip


def _shade(share: float | None) -> tuple[float, ...]:
    """The colour of a share, RGB 0..1."""
    if share is None:
        return tuple(v / 255 for v in _GRAY)
    return tuple((a + (b - a) * share) / 255 for a, b in zip(_LIGHT, _DARK, strict=True))


# ---- The same in words ---------------------------------------------------------------------------


def _intervals_in_words(rows: Sequence[Row]) -> str:
    parts = []
    for label, marks in rows:
        for name, value, interval in marks:
            who = f"{label}, {name}" if len(marks) > 1 else label
            what = "no figure" if value is None else f"{value:.4f}"
            within = f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
            parts.append(f"{who}: {what}{within}.")
    return " ".join(parts)


def _spread_in_words(rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    return " ".join(
        f"{name}: {len(values)} images from {values[0]:.4f} to {values[-1]:.4f}, median "
        f"{_median(values):.4f}."
        for name, values in rows
    )


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _confusion_in_words(
    shares: Sequence[Sequence[float] | None], names: Sequence[str]
) -> str:  # fmt: skip
    parts = ["In percent of each class's true pixels."]
    for place, row in enumerate(shares):
        if row is None:
            parts.append(f"{names[place]}: no pixels.")
            continue
        text = f"{names[place]}: {percent(row[place])} right"
        others = [(v, names[i]) for i, v in enumerate(row) if i != place and v > 0]
        if others:
            share, other = max(others, key=lambda pair: pair[0])
            text += f", most often mistaken for {other} ({percent(share)})"
        parts.append(text + ".")
    return " ".join(parts)
