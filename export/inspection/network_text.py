"""A network described for a person, block by block, as a table.

A block is all layers whose names have the same first word: "enc0", "gate1", "dec0".
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.describe import Description, LayerRow

SIZE = (512, 512)  # of the images for which a network is described, in pixels
_INPUT = {"size_check": "input", "scale": "input"}  # the layers of `layers.image_input`
_UNITS = ("", "k", "M", "G", "T")


@dataclasses.dataclass(frozen=True)
class Block:
    """Layers of a network that stand together.

    Attributes:
      name: the first word of their names.
      inputs: the blocks that they take their input from.
      level: the finest of theirs.
      shape: of the last output at that level, without the batch.
      layers: how many they are.
      parameters: the values of their weights.
      multiply_adds: for one image.
      activation_bytes: the size of all their outputs for one image.
    """

    name: str
    inputs: tuple[str, ...]
    level: int
    shape: tuple[int, ...]
    layers: int
    parameters: int
    multiply_adds: int
    activation_bytes: int


def describe(
    name: str,
    *,
    num_classes: int = 2,
    channels: int = 3,
    size: tuple[int, int] = SIZE,
    **knobs: Any,
) -> Description:
    """Describes an architecture without making its weights; arguments as of `registry.build`.

    Raises:
      FlexsegError: an unknown architecture or knob, or a size that it cannot take.
    """
    from models import describe as description

    model = description.abstract(
        name, num_classes=num_classes, channels=channels, size=size, **knobs
    )
    return description.describe(model, size)


def blocks(description: Description) -> list[Block]:
    """The blocks of a network, in the order of their first layers."""
    members: dict[str, list[LayerRow]] = {}
    for row in description.rows:
        members.setdefault(_block(row.name), []).append(row)
    result = []
    for name, rows in members.items():
        level = min(row.level for row in rows)
        inputs = dict.fromkeys(_block(source) for row in rows for source in row.inputs)
        result.append(
            Block(
                name=name,
                inputs=tuple(source for source in inputs if source != name),
                level=level,
                shape=next(row.shape for row in reversed(rows) if row.level == level),
                layers=len(rows),
                parameters=sum(row.parameters for row in rows),
                multiply_adds=sum(row.multiply_adds for row in rows),
                activation_bytes=sum(row.activation_bytes for row in rows),
            )
        )
    return result


def _block(layer: str) -> str:
    return _INPUT.get(layer, layer.partition("_")[0])


def text(description: Description) -> str:
    """A network as a table of its blocks, and below it the sums."""
    head = ("block", "level", "output", "layers", "parameters", "multiply-adds", "activations")
    table = [head]
    for block in blocks(description):
        table.append(
            (
                block.name,
                str(block.level),
                shape_of(block.shape),
                str(block.layers),
                f"{block.parameters:,}",
                short(block.multiply_adds),
                f"{block.activation_bytes / 2**20:.1f} MiB",
            )
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index in (0, 2) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    height, width = description.size
    return "\n".join(
        [
            f"Network {description.name}, for one image of {height}x{width} pixels",
            "",
            *lines,
            "",
            f"  parameters: {description.parameters:,}, of which {description.trainable:,} are "
            f"trained; {description.parameters * 4 / 2**20:,.1f} MiB in float32",
            f"  multiply-adds: {short(description.multiply_adds)}",
            f"  outputs of all layers: {description.activation_bytes / 2**20:,.1f} MiB, which is "
            "what a training step keeps at most",
        ]
    )


def short(count: int) -> str:
    """A count with three digits and a unit: 57.8 G."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    if not unit:
        return str(count)
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {_UNITS[unit]}"


def shape_of(shape: tuple[int, ...]) -> str:
    """A shape as 512x512x3."""
    return "x".join(map(str, shape))
