"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_WITH_TEXT = 20  # classes up to which the shares are written into the cells


def draw(confusion: np.ndarray, names: Sequence[str], title: str) -> np.ndarray:
    """Draws which share of each class's pixels is taken for which class.

    Args:
      confusion: integers [K, K], rows the truth.
      names: of the K classes.
      title: what is shown, such as the split and the epoch.

    Returns:
      uint8 [h, w, 3], RGB. A row without pixels is gray.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = np.asarray(confusion, np.float64)
    totals = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    count = len(names)
    side = 3.0 + 0.6 * min(count, _MOST_WITH_TEXT)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes: Axes = figure.add_subplot()
    shown = axes.imshow(shares, vmin=0, vmax=1, cmap=colormaps["Blues"].with_extremes(bad="0.85"))
    figure.colorbar(shown, ax=axes, shrink=0.8)
    axes.set_title(title)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    labels = [f"{name} ({int(n):,} px)" for name, n in zip(names, totals[:, 0], strict=True)]
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), labels)
    if count <= _MOST_WITH_TEXT:
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share):
                color = "white" if share > 0.5 else "black"
                axes.text(column, row, percent(share), ha="center", va="center", color=color)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def percent(share: float) -> str:
    """A share in percent, so that nothing looks like all and nothing that is there like nothing."""
    text = f"{100 * share:.1f}"
    if text == "0.0" and share > 0:
        return "<0.1"
    if text == "100.0" and share < 1:
        return ">99.9"
    return text.removesuffix(".0")
