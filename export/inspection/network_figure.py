"""A network as a picture: its blocks by level, and how the data goes through them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from export.inspection.network_text import blocks, shape_of, short
from flexseg_errors import FlexsegError

if TYPE_CHECKING:
    from models.describe import Description


def draw(description: Description, path: str) -> None:
    """Draws a network: a box for each block, lower the smaller its maps, arrows along the data.

    Boxes are the redder the more multiply-adds they take.

    Args:
      description: of the network.
      path: the PNG to write; its folder is made if it is not there.

    Raises:
      FlexsegError: where `path` is no name of a PNG.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not path.lower().endswith(".png"):
        raise FlexsegError(f"--figure={path}: expected the name of a file that ends in .png.")
    shown = [block for block in blocks(description) if block.activation_bytes]
    places = {block.name: (column, -block.level) for column, block in enumerate(shown)}
    deepest = max(block.level for block in shown)
    most = max(block.multiply_adds for block in shown) or 1
    size = (min(2.0 + 1.25 * len(shown), 160), 2.2 + 1.3 * deepest)  # in inches
    figure = Figure(size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    boxes = {}
    for block in shown:
        label = axes.annotate(
            f"{block.name}\n{shape_of(block.shape)}\n{short(block.parameters)} parameters\n"
            f"{short(block.multiply_adds)} multiply-adds",
            places[block.name],
            ha="center",
            va="center",
            fontsize=7,
            parse_math=False,
            bbox={
                "boxstyle": "round",
                "facecolor": colormaps["OrRd"](0.6 * block.multiply_adds / most),
                "edgecolor": "0.3",
            },
        )
        boxes[block.name] = label.get_bbox_patch()
    height, width = description.size
    axes.set_title(
        f"{description.name}, one image of {height}x{width}: "
        f"{short(description.parameters)} parameters, {short(description.multiply_adds)} "
        "multiply-adds",
        parse_math=False,
    )
    axes.set_xlim(-0.7, len(shown) - 0.3)
    axes.set_ylim(-deepest - 0.5, 0.6)
    axes.set_yticks([-level for level in range(deepest + 1)], map(str, range(deepest + 1)))
    axes.set_ylabel("level: how often the sides are halved")
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.draw_without_rendering()  # so that the boxes have a place where arrows can end
    for block in shown:
        for source in block.inputs:
            if source in places:
                names = (source, block.name)
                _draw_arrow(axes, [places[name] for name in names], [boxes[name] for name in names])
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    figure.savefig(path + ".tmp", format="png", metadata={"Software": None})
    os.replace(path + ".tmp", path)


def _draw_arrow(axes: Any, places: list[tuple[int, int]], boxes: list[Any]) -> None:
    """From one box to another; in a bow over those between where they stand in one row."""
    start, end = places
    far = start[1] == end[1] and end[0] - start[0] > 1
    bow = -0.9 / (end[0] - start[0] + 1) if far else 0.0
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": "tab:blue" if far else "0.5",
            "patchA": boxes[0],
            "patchB": boxes[1],
            "shrinkA": 0,
            "shrinkB": 1,
            "connectionstyle": f"arc3,rad={bow}",
        },
        zorder=0,
    )
