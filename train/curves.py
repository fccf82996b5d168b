"""Figures over the epochs: as CSV files of the old projects' form, and drawn."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from train import monitor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Mapping[str, Sequence[float | None]]

LOSSES, METRICS, CLASSES = "train_losses", "train_metrics", "train_classes"
_TITLE_POINTS = 20


def write(folder: str, history: History) -> None:
    """Writes what a run's history has to show, each as CSV and PNG.

    `train_losses` and `train_metrics` hold what they held in the old projects: epoch, figure of the
    train split, figure of the valid split, in their layout (the second with a comma at the end of
    its header); but the metric is foreground Dice, and what is not there is empty, where they wrote
    0. `train_classes` has a column for every class's Dice.

    Args:
      folder: where to.
      history: name -> a value for each epoch.
    """
    epochs = max(map(len, history.values()), default=0)
    nothing = [None] * epochs

    def pair(name: str) -> dict[str, Sequence[float | None]]:
        return {key: history.get(key, nothing) for key in (name, monitor.VALID + name)}

    os.makedirs(folder, exist_ok=True)
    losses, metrics = pair("loss"), pair("dice")
    _write_csv(folder, LOSSES, "epoch, " + ", ".join(losses), losses)
    _write_csv(folder, METRICS, "epoch," + "".join(f"{name}," for name in metrics), metrics)
    _draw(folder, LOSSES, losses)
    _draw(folder, METRICS, metrics)
    classes = {k: v for k, v in history.items() if _is_of_class(k)}
    if classes:
        _write_csv(folder, CLASSES, _csv_line(["epoch", *classes]), classes)
        shown = {k: v for k, v in classes.items() if k.startswith(monitor.VALID)}
        _draw(folder, CLASSES, shown or classes, pair_colors=False)


def _is_of_class(name: str) -> bool:
    return name.removeprefix(monitor.VALID).startswith(monitor.CLASS)


def _csv_line(cells: Sequence[str]) -> str:
    """A line of CSV in which names with commas or quotes are quoted."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _write_csv(folder: str, name: str, header: str, columns: History) -> None:
    lines = [
        ", ".join([str(epoch), *("" if v is None else f"{v:.4f}" for v in row)])
        for epoch, row in enumerate(zip(*columns.values(), strict=True))
    ]
    path = os.path.join(folder, name + ".csv")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write("\n".join([header, *lines]) + "\n")
    os.replace(path + ".tmp", path)


def _draw(folder: str, name: str, columns: History, *, pair_colors: bool = True) -> None:
    """Draws columns as the old projects did: 8 by 6 inches, first green and second red, dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 6))
    FigureCanvasAgg(figure)
    axes: Axes = figure.add_subplot()
    for i, (label, values) in enumerate(columns.items()):
        known = [(epoch, v) for epoch, v in enumerate(values) if v is not None]
        if known:
            color = ("green", "red")[i] if pair_colors else None
            x, y = zip(*known, strict=True)
            axes.plot(x, y, color=color, marker="o", linestyle="--", label=label)
    axes.set_title(name, fontsize=_TITLE_POINTS)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True)
    if axes.lines:
        axes.legend(loc="upper left")
    path = os.path.join(folder, name + ".png")
    figure.savefig(path + ".tmp", format="png")
    os.replace(path + ".tmp", path)
