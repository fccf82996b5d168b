"""Figures over the epochs and steps of a training, as SVG."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from export.reports import figures
from export.reports.evaluation_facts import Figure

Series = Mapping[str, Sequence[Figure]]

MOST_LINES = 12  # in one figure; more cannot be told apart
_MARKED = 40  # epochs up to which each gets a mark
_MOST_STEPS = 100  # points of a curve over steps


def curves(
    title: str, unit: str, series: Series, best_epoch: int | None = None, *, share: bool = False
) -> Markup | None:
    """Figures over the epochs, counted from 0; None where there is nothing to draw.

    Args:
      title: of the figure, one of its own on a page.
      unit: what the vertical axis shows.
      series: name -> a value for each epoch; at most `MOST_LINES`.
      best_epoch: which is marked by a line.
      share: whether values lie between 0 and 1, and the axis shows all of that.
    """
    known = {
        name: [(epoch, v) for epoch, v in enumerate(values) if v is not None]
        for name, values in series.items()
    }
    known = {name: points for name, points in known.items() if points}
    if not known:
        return None
    with figures.drawing() as figure:
        axes = figure.add_subplot()
        looks = itertools.cycle(_looks())
        for (name, points), (color, line) in zip(known.items(), looks, strict=False):
            epochs, values = zip(*points, strict=True)
            marker = "o" if len(points) <= _MARKED else None
            axes.plot(epochs, values, line, color=color, marker=marker, markersize=3,
                      label=figures.label(name))  # fmt: skip
        if best_epoch is not None:
            axes.axvline(best_epoch, color=figures.PALETTE[2], linewidth=1, linestyle=":",
                         label=f"best: epoch {best_epoch}")  # fmt: skip
        _over_epochs(axes, max(len(v) for v in series.values()))
        axes.set_ylabel(unit)
        if share:
            axes.set_ylim(-0.02, 1.02)
        legend_below(figure, axes)
        return figures.svg(figure, title, _course_in_words(known, best_epoch))


def by_step(title: str, unit: str, values: Mapping[int, float]) -> Markup | None:
    """A share, 0..1, over the steps of a training; None where there is nothing to draw.

    Args:
      title: of the figure, one of its own on a page.
      unit: what the vertical axis shows.
      values: step -> value, by ascending step; see `thinned`.
    """
    if not values:
        return None
    with figures.drawing() as figure:
        axes = figure.add_subplot()
        marker = "o" if len(values) <= _MARKED else None
        axes.plot(list(values), list(values.values()), marker=marker, markersize=3)
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(visible=True)
        low, high = min(values.values()), max(values.values())
        mean = sum(values.values()) / len(values)
        told = f"From {low:.4g} to {high:.4g}, {mean:.4g} in the mean."
        return figures.svg(figure, title, told)


def thinned(values: Mapping[int, float], most: int = _MOST_STEPS) -> dict[int, float]:
    """At most so many values: means over equal numbers of them, each at its last step."""
    steps = list(values)
    width = -(-len(steps) // most) or 1
    parts = [steps[i : i + width] for i in range(0, len(steps), width)]
    return {part[-1]: sum(values[s] for s in part) / len(part) for part in parts}


def _looks() -> list[tuple[str, str]]:
    """Colour and line of the first series, the second and so on; no two alike."""
    return [
        (figures.PALETTE[i % len(figures.PALETTE)],
         figures.LINES[(i + i // len(figures.PALETTE)) % len(figures.LINES)])
        for i in range(len(figures.PALETTE) * len(figures.LINES))
    ]  # fmt: skip


def _over_epochs(axes: Any, epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_xlim(-0.5, max(epochs - 0.5, 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(visible=True)


def legend_below(figure: Any, axes: Any, columns: int = 3) -> None:
    """Puts the legend below the axes, in at most so many columns."""
    handles, labels = axes.get_legend_handles_labels()
    wide = max(map(len, labels), default=0)
    columns = min(columns, 1 if wide > 24 else 2 if wide > 14 else 3, len(labels))
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, columns))


def _course_in_words(known: Mapping[str, Sequence[tuple[int, float]]], best: int | None) -> str:
    parts = []
    for name, points in known.items():
        (first, low), (last, high) = points[0], points[-1]
        if first == last:
            parts.append(f"{name}: {low:.4g} in epoch {first}.")
        else:
            parts.append(f"{name}: from {low:.4g} in epoch {first} to {high:.4g} in epoch {last}.")
    if best is not None:
        parts.append(f"A line marks the best epoch, {best}.")
    return " ".join(parts)
