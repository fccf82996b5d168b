"""Lists the networks that can be built, each with its defaults: size and work, and what it is.

Multiply-adds are those of one image; a network's sides must be multiples of its divisor.

Examples:
  flexseg models
  flexseg models --image_size=1024,1024 --num_classes=6
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from export.inspection import network_text
from flexseg_console import result
from flexseg_errors import FlexsegError, UsageError

POSITIONAL = ()


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "image_size",
        "512,512",
        "Height,width in pixels of the images to count for.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_classes", 2, "Classes, which are logits for each pixel.", flag_values=values
    )
    flags.DEFINE_integer("channels", 3, "Channels of the images.", flag_values=values)


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    size = _size(values.image_size)
    result(table(size, num_classes=values.num_classes, channels=values.channels))


def table(size: tuple[int, int], *, num_classes: int = 2, channels: int = 3) -> str:
    """All architectures with their defaults, smallest first, and below them those that do not fit.

    Args:
      size: (height, width) of the images in pixels.
      num_classes: logits for each pixel.
      channels: of the images.

    Raises:
      FlexsegError: no architecture can be built like this.
    """
    from models import registry

    rows, refused = [], []
    for name, architecture in registry.ARCHITECTURES.items():
        try:
            description = network_text.describe(
                name, num_classes=num_classes, channels=channels, size=size
            )
        except FlexsegError as error:
            refused.append((name, error))
            continue
        divisor = str(registry.size_divisor(name))
        rows.append((description, name, divisor, architecture.summary))
    if not rows:
        raise refused[0][1]
    rows.sort(key=lambda row: row[0].parameters)
    cells = [("network", "parameters", "multiply-adds", "divisor", "")]
    for description, name, divisor, summary in rows:
        parameters = network_text.short(description.parameters)
        work = network_text.short(description.multiply_adds)
        cells.append((name, parameters, work, divisor, summary))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:4], widths[1:4], strict=True)]
            + [row[4]]
        ).rstrip()
        for row in cells
    ]
    return "\n".join([*lines, *(f"\n{name}: {error}" for name, error in refused)])


def _size(value: str) -> tuple[int, int]:
    sides = [side.strip() for side in value.split(",")]
    if len(sides) == 2 and all(side.isdecimal() and int(side) for side in sides):
        return int(sides[0]), int(sides[1])
    raise UsageError(f"--image_size={value}: expected two whole numbers, H,W, such as 512,512.")
