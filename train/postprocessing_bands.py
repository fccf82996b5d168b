"""Post-processing of masks that no memory holds as a whole, to the same as that of the whole.

A mask is walked through in bands of rows, some times for each class. Components of bands are the
nodes of a graph, its edges join those that touch across two bands, and its components are those of
the mask. Held are a band, and some tens of bytes for each component of a band.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Protocol

import cv2
import numpy as np
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

from train.mending import contacts
from train.postprocessing import ClassRule, Postprocessing

_BAND_PIXELS = 1 << 22
_FOUR, _EIGHT = 4, 8  # neighbours of a pixel


class Rows(Protocol):
    """Class ids uint8 [H, W], read and written some rows at a time; an array is one, too."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Rows from start to before stop, uint8 [n, W]."""

    def __setitem__(self, rows: slice, ids: np.ndarray, /) -> None:
        """Puts rows in their place."""


def apply(
    chosen: Postprocessing, ids: Rows, area: float = 1.0, band_pixels: int = _BAND_PIXELS
) -> None:
    """Removes components and fills holes in place; `Postprocessing.apply` gives the same.

    Args:
      chosen: what is done.
      ids: the mask.
      area: as `Postprocessing.apply` has it.
      band_pixels: how many are looked at together, about.
    """
    rows = max(1, band_pixels // ids.shape[1])
    for rule in chosen.classes:
        if rule.largest_component or rule.minimum_size > 1:
            _remove(ids, rule, area, rows)
    limits = np.zeros(256)
    for rule in chosen.classes:
        limits[rule.id] = rule.fill_holes * area
    if limits.any():
        _fill(ids, limits, rows)


@dataclasses.dataclass(frozen=True)
class _Components:
    """The components of one class in a mask.

    Attributes:
      ids: the mask; where it is changed, bands that were not walked through yet are found as
        before.
      class_id: the class.
      neighbours: `_FOUR` or `_EIGHT`.
      cuts: first rows of the bands, and the mask's height.
      numbers: of each band, from a component of it to that of the mask, [components + 1]; 0 is
        what is not of the class.
      sizes: pixels of each component, int64 [n + 1], that of 0 being 0.
      at_edge: whether it touches the mask's edge, bool [n + 1].
    """

    ids: Rows
    class_id: int
    neighbours: int
    cuts: list[int]
    numbers: list[np.ndarray]
    sizes: np.ndarray
    at_edge: np.ndarray

    @classmethod
    def of(cls, ids: Rows, class_id: int, neighbours: int, rows: int) -> _Components:
        """Finds them, in bands of that many rows."""
        height, width = ids.shape
        cuts = [*range(0, height, rows), height]
        total, firsts, pairs, sizes, at_edge = 0, [], [], [], []
        above = np.zeros(width, np.int64)
        for start, stop in itertools.pairwise(cuts):
            labels, stats = _labelled(ids[start:stop], class_id, neighbours)
            firsts.append(total)
            top, bottom = (np.where(row > 0, row + total, 0) for row in labels[[0, -1]])
            pairs.append(_touching(above, top, neighbours))
            above = bottom
            left, upper = stats[1:, cv2.CC_STAT_LEFT], stats[1:, cv2.CC_STAT_TOP] + start
            right = left + stats[1:, cv2.CC_STAT_WIDTH]
            lower = upper + stats[1:, cv2.CC_STAT_HEIGHT]
            at_edge.append((left == 0) | (upper == 0) | (right == width) | (lower == height))
            sizes.append(stats[1:, cv2.CC_STAT_AREA])
            total += len(stats) - 1
        edges = np.concatenate(pairs, axis=1) - 1
        ones = np.ones(edges.shape[1], np.int8)
        graph = coo_array((ones, (edges[0], edges[1])), (max(1, total), max(1, total)))
        count, of_nodes = connected_components(graph, directed=False)
        if total == 0:
            count, of_nodes = 0, of_nodes[:0]
        number = np.concatenate([[0], of_nodes.astype(np.int64) + 1])
        whole = np.zeros(count + 1, np.int64)
        np.add.at(whole, number[1:], np.concatenate(sizes))
        touches = np.zeros(count + 1, bool)
        touches[number[1:][np.concatenate(at_edge)]] = True
        numbers = [
            np.concatenate([[0], number[1 + first : 1 + last]])
            for first, last in zip(firsts, [*firsts[1:], total], strict=True)
        ]
        return cls(ids, class_id, neighbours, cuts, numbers, whole, touches)

    def bands(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Each band: first row, row behind its last, and components, [n, W]."""
        for start, stop, number in zip(self.cuts, self.cuts[1:], self.numbers, strict=False):
            if len(number) > 1:
                labels, _ = _labelled(self.ids[start:stop], self.class_id, self.neighbours)
                yield start, stop, number[labels]

    def largest(self) -> int:
        """The largest; of several as large, the first by rows."""
        tied = self.sizes == self.sizes.max()
        if tied.sum() == 1:
            return int(tied.argmax())
        for _, _, components in self.bands():
            flat = components.reshape(-1)
            found = tied[flat]
            if found.any():
                return int(flat[found.argmax()])
        raise AssertionError("a component has no pixels")

    def around(
        self, components: np.ndarray, start: int, stop: int, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Pixels of a band and what lies around.

        Args:
          components: of the band, as of the two that follow, from `bands`.
          start: its first row.
          stop: behind its last.
          wanted: components whose pixels are asked for, bool [n + 1].

        Returns:
          The band's class ids with a row more above and below, if the mask has them; rows and
          columns of the pixels in it; their components.
        """
        above = min(1, start)
        rows, columns = np.nonzero(wanted[components])
        found = components[rows, columns]
        below = min(1, self.ids.shape[0] - stop)
        return self.ids[start - above : stop + below], rows + above, columns, found

    def replace(self, by: np.ndarray) -> None:
        """Writes another class over components, uint8 [n + 1]; their own leaves them."""
        changes = by != self.class_id
        changes[0] = False
        for start, stop, components in self.bands():
            changed = changes[components]
            if changed.any():
                band = self.ids[start:stop].copy()
                band[changed] = by[components[changed]]
                self.ids[start:stop] = band


def _labelled(ids: np.ndarray, class_id: int, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    region = (ids == class_id).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        region, connectivity=neighbours, ltype=cv2.CV_32S
    )
    return labels, stats


def _touching(above: np.ndarray, below: np.ndarray, neighbours: int) -> np.ndarray:
    """Which components of two rows, numbered from 1, touch: int64 [2, n]."""
    shifts = [(above, below)]
    if neighbours == _EIGHT:
        shifts += [(above[1:], below[:-1]), (above[:-1], below[1:])]
    pairs = [np.stack([a, b])[:, (a > 0) & (b > 0)] for a, b in shifts]
    return np.unique(np.concatenate(pairs, axis=1), axis=1)


def _remove(ids: Rows, rule: ClassRule, area: float, rows: int) -> None:
    found = _Components.of(ids, rule.id, _EIGHT, rows)
    count = len(found.sizes)
    if count == 1:
        return
    goes = found.sizes < rule.least_size(area)
    if rule.largest_component:
        goes |= np.arange(count) != found.largest()
    goes[0] = False
    if not goes.any():
        return
    which = np.cumsum(goes) - 1
    total = np.zeros((int(goes.sum()), 0), np.int64)
    for start, stop, components in found.bands():
        if not goes[components].any():
            continue
        around, y, x, of = found.around(components, start, stop, goes)
        here = np.zeros(len(total), bool)
        here[which[of]] = True
        place = np.cumsum(here) - 1  # a table of all components for each band would take long
        met = contacts(around, y, x, place[which[of]], rule.id, int(here.sum()))
        if met.shape[1] > total.shape[1]:
            total = np.pad(total, ((0, 0), (0, met.shape[1] - total.shape[1])))
        total[here, : met.shape[1]] += met
    becomes = np.full(count, rule.id, np.uint8)
    becomes[goes] = np.where(total.sum(1) > 0, total.argmax(1), rule.id)
    found.replace(becomes)


def _fill(ids: Rows, limits: np.ndarray, rows: int) -> None:
    """Fills holes; the largest size of a hole for each class, [256]."""
    found = _Components.of(ids, 0, _FOUR, rows)
    inside = ~found.at_edge & (found.sizes <= limits.max())
    inside[0] = False
    if not inside.any():
        return
    lowest, highest = np.full(len(inside), 256), np.full(len(inside), -1)
    for start, stop, components in found.bands():
        if not inside[components].any():
            continue
        around, y, x, of = found.around(components, start, stop, inside)
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            beside = around[y + dy, x + dx].astype(np.int64)
            across = beside > 0
            np.minimum.at(lowest, of[across], beside[across])
            np.maximum.at(highest, of[across], beside[across])
    fills = inside & (lowest == highest)
    fills[fills] = found.sizes[fills] <= limits[lowest[fills]]
    found.replace(np.where(fills, lowest, 0).astype(np.uint8))
