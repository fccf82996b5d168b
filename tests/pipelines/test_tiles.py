"""Tiles cover an image, evenly, with the fewest tiles, the last flush with the edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from pipelines.tiles import TileGrid, tile_origins


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int]:
    tile = draw(st.integers(1, 64))
    overlap = draw(st.integers(0, tile - 1))
    return draw(st.integers(tile, tile + 500)), tile, overlap


@given(axes())
@settings(max_examples=300)
def test_tiles_cover_the_axis_and_end_with_it(axis):
    length, tile, overlap = axis
    origins = tile_origins(length, tile, overlap)
    seen = np.zeros(length, int)
    for origin in origins:
        assert 0 <= origin <= length - tile
        seen[origin : origin + tile] += 1
    assert seen.min() >= 1
    assert origins[0] == 0
    assert origins[-1] == length - tile


@given(axes())
@settings(max_examples=300)
def test_neighbours_share_the_wanted_overlap_and_fewer_tiles_could_not(axis):
    length, tile, overlap = axis
    origins = tile_origins(length, tile, overlap)
    steps = np.diff(origins)
    assert (steps > 0).all()
    assert (tile - steps >= overlap).all()
    assert steps.size == 0 or steps.max() - steps.min() <= 1, "evenly spaced"
    reach_of_one_less = tile + (len(origins) - 2) * (tile - overlap)
    assert len(origins) == 1 or reach_of_one_less < length


@given(st.integers(1, 12), st.data())
@settings(max_examples=100)
def test_index_and_origin_are_one_to_one(tile, data):
    side = st.integers(tile, tile + 12)
    grid = TileGrid(data.draw(side), data.draw(side), tile, data.draw(st.integers(0, tile - 1)))
    origins = list(grid)
    assert len(origins) == len(grid) == len(set(origins))
    assert origins == sorted(origins), "row by row"
    assert origins == [grid[i] for i in range(len(grid))]
    assert origins == [(y, x) for y in grid.rows for x in grid.columns]
    for outside in (-1, len(grid)):
        with pytest.raises(IndexError):
            grid[outside]


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (8, 8), (8, 9), (8, -1), (-4, 0)])
def test_tiles_that_cannot_be_are_refused(tile, overlap):
    with pytest.raises(FlexsegError, match=f"tile of {tile} pixels with an overlap of {overlap}"):
        tile_origins(100, tile, overlap)


def test_an_axis_shorter_than_a_tile_is_refused():
    with pytest.raises(FlexsegError, match="7 pixels are fewer than one tile of 8"):
        tile_origins(7, 8, 0)


@given(axes())
@settings(max_examples=60)
def test_the_sliding_window_places_its_tiles_alike(axis):
    from models import sliding_window

    assert tuple(sliding_window.tile_origins(*axis).numpy().tolist()) == tile_origins(*axis)
