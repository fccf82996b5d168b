"""Where tiles lie on an image, and how they cover it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from flexseg_errors import FlexsegError


def tile_origins(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """First pixels of the tiles along one axis: evenly spaced, the last one flush with the edge.

    The fewest tiles whose neighbours share at least `overlap` pixels; the spacing is then evened
    out, in whole-number arithmetic so that every implementation of the formula agrees:
    origin_i = floor((i (length - tile) + (n - 1) // 2) / (n - 1)).

    Args:
      length: the axis, in pixels; at least `tile`.
      tile: a tile's side, in pixels.
      overlap: what neighbours share at least, in pixels; less than `tile`.
    """
    if tile < 1 or not 0 <= overlap < tile:
        raise FlexsegError(
            f"A tile of {tile} pixels with an overlap of {overlap} is not possible: "
            "the overlap must be at least 0 and less than the tile."
        )
    if length < tile:
        raise FlexsegError(f"{length} pixels are fewer than one tile of {tile}.")
    spare, stride = length - tile, tile - overlap
    count = -(-spare // stride) + 1
    if count == 1:
        return (0,)
    return tuple((i * spare + (count - 1) // 2) // (count - 1) for i in range(count))


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """The tiles of one image, row by row. `grid[i]` is the origin (y, x) of tile i."""

    height: int
    width: int
    tile: int
    overlap: int

    @property
    def rows(self) -> tuple[int, ...]:
        return tile_origins(self.height, self.tile, self.overlap)

    @property
    def columns(self) -> tuple[int, ...]:
        return tile_origins(self.width, self.tile, self.overlap)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((y, x) for y in self.rows for x in self.columns)

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, column = divmod(index, len(self.columns))
        return self.rows[row], self.columns[column]
