"""Whole images to class ids by rows, for images whose pixels or probabilities no memory holds.

What `segment.Segmenter` does in one graph is done here with the same tiles, weights and resizing,
but with rows that are read when they are needed and given away when they are finished.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from models.sliding_window import SlidingWindow
from models.window_rows import slide_rows
from pipelines.preparation import Preparation
from pipelines.preprocessing import Preprocessing
from train.class_ids import most_probable
from train.resize import RowResizer

_BLOCK_BYTES = 1 << 25  # of float32 values that are resized or finished at a time


class Source(Protocol):
    """An image whose rows can be read by themselves."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows from the one to before the other: uint8 [stop - start, width, C]."""


@dataclasses.dataclass(frozen=True)
class Whole:
    """An image that is in memory, as a source.

    Attributes:
      image: uint8 [H, W, C].
    """

    image: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.image[start:stop]


@dataclasses.dataclass(frozen=True)
class RowSegmenter:
    """A network with all that it needs to segment an image of any size, in rows.

    Attributes:
      predict: from tiles uint8 [N, tile height, tile width, C], N up to the window's batch size, to
        values [N, tile height, tile width, K], which are blended: an array or a tensor. To add
        something for each tile, such as test-time augmentation, replace it by what wraps it.
      window: tile, overlap, weights and batch size.
      preparation: what is done to the image first, and undone on the probabilities.
      activation: what makes probabilities of blended values, [n, W, K] to [n, W, K], pixel by
        pixel; None where they are probabilities already.
    """

    predict: Callable[[np.ndarray], Any]
    window: SlidingWindow
    preparation: Preparation
    activation: Callable[[np.ndarray], Any] | None = None

    def probabilities(self, source: Source) -> Iterator[np.ndarray]:
        """The probabilities of an image's pixels, float32 [n, W, K], from the top, n rows a time.

        Reads the source from top to bottom, some rows twice, none before it is needed.
        """
        prepared = _Prepared(source, self.preparation)
        chunks = slide_rows(self.window, prepared.size, prepared.read, self.predict)
        if self.activation is not None:
            chunks = _activated(chunks, self.activation)
        resizer = RowResizer(prepared.size, source.size)
        if resizer.source == resizer.target:
            yield from chunks
        else:
            yield from _resized(chunks, resizer)

    def class_ids(self, source: Source) -> Iterator[np.ndarray]:
        """The class ids of an image's pixels, uint8 [n, W], from the top, n rows a time."""
        for rows in self.probabilities(source):
            yield most_probable(rows)


class _Prepared:
    """A source as the network knows it: preprocessed, resized, in whole gray values."""

    def __init__(self, source: Source, preparation: Preparation):
        self._source = source
        self._preprocessing = Preprocessing.from_text(preparation.preprocessing)
        self.size = preparation.size_of(*source.size)
        self._resizer = RowResizer(source.size, self.size)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows, uint8 [stop - start, W, C]."""
        if self._source.size == self.size:
            return self._preprocessed(start, stop)
        parts = []
        for first, last in _blocks(start, stop, self._rows_at_a_time()):
            rows = self._preprocessed(*self._resizer.needed(first, last))
            resized = self._resizer.rows(rows, first, last)
            np.round(np.clip(resized, 0, 255, out=resized), out=resized)
            parts.append(resized.astype(np.uint8))
        return np.concatenate(parts)

    def _preprocessed(self, start: int, stop: int) -> np.ndarray:
        # Sharpening looks one row up and down; at the image's edges it mirrors by itself.
        above = min(1, start) if self._preprocessing.sharpen else 0
        below = min(1, self._source.size[0] - stop) if self._preprocessing.sharpen else 0
        rows = self._preprocessing.image(self._source.read(start - above, stop + below))
        return rows[above : len(rows) - below]

    def _rows_at_a_time(self) -> int:
        """Rows of the result that are made from no more than a block of the source."""
        ratio = max(1.0, self._source.size[0] / self.size[0])
        width = max(self._source.size[1], self.size[1])
        return max(1, int(_BLOCK_BYTES / (width * 3 * 4 * ratio)))


def _activated(
    chunks: Iterator[np.ndarray], activation: Callable[[np.ndarray], Any]
) -> Iterator[np.ndarray]:
    for chunk in chunks:
        yield np.asarray(activation(chunk))


def _resized(chunks: Iterator[np.ndarray], resizer: RowResizer) -> Iterator[np.ndarray]:
    """Chunks of rows, resized as soon as all that they depend on is there."""
    held, first, made = np.zeros(0, np.float32), 0, 0
    for chunk in chunks:
        held = np.concatenate([held, chunk]) if held.size else chunk
        complete = resizer.complete(first + len(held))
        width = max(resizer.source[1], resizer.target[1])
        at_a_time = max(1, _BLOCK_BYTES // (width * chunk.shape[-1] * 4))
        for start, stop in _blocks(made, complete, at_a_time):
            top, bottom = resizer.needed(start, stop)
            yield resizer.rows(held[top - first : bottom - first], start, stop)
        made = complete
        if made < resizer.target[0]:
            keep, _ = resizer.needed(made, made + 1)
            keep = min(keep, first + len(held))
            held, first = held[keep - first :], keep


def _blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, size):
        yield first, min(first + size, stop)
