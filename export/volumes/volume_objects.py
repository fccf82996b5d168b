"""Connected regions of a volume, counted slice by slice."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

_BITS = 31  # of a region's number


class Objects:
    """Counts the connected regions of each class, voxels that touch at a corner connected.

    Regions of slices are the nodes of a graph, its edges join those that touch across two slices,
    and its components are the regions of the volume. Two slices are in memory.
    """

    def __init__(self, num_classes: int):
        """Counts nothing yet.

        Args:
          num_classes: K; class 0 is background and not looked at.
        """
        self._classes = [_OneClass() for _ in range(1, num_classes)]

    def add(self, ids: np.ndarray) -> None:
        """Takes the next slice, class ids uint8 [H, W]."""
        present = np.bincount(ids.reshape(-1), minlength=256)
        for k, one in enumerate(self._classes, start=1):
            one.add(ids == k if present[k] else None)

    def counts(self) -> tuple[int, ...]:
        """How many regions each class has, from class 1 on."""
        return tuple(one.count() for one in self._classes)


class _OneClass:
    def __init__(self) -> None:
        self._regions = 0  # of all slices
        self._edges: list[np.ndarray] = []  # [2, E] each, regions numbered from 0
        self._below: np.ndarray | None = None  # [H + 2, W + 2], numbers from 1, of the last slice

    def add(self, region: np.ndarray | None) -> None:
        if region is None:
            self._below = None
            return
        found, numbers = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
        numbers = numbers.astype(np.int64)
        numbers[region] += self._regions
        self._regions += found - 1
        if self._below is not None:
            self._join(numbers)
        self._below = np.pad(numbers, 1)

    def _join(self, numbers: np.ndarray) -> None:
        """Notes which regions of a slice, int64 [H, W], touch which of the one below."""
        assert self._below is not None
        straight = self._below[1:-1, 1:-1]
        met = (numbers > 0) & (straight > 0)
        pairs = [numbers[met] << _BITS | straight[met]]
        # What lies on a region touches what is beside that through it: they are one region.
        rows, columns = np.nonzero((numbers > 0) & (straight == 0))
        above = numbers[rows, columns] << _BITS
        for down, right in itertools.product(range(3), repeat=2):
            below = self._below[rows + down, columns + right]
            pairs.append((above | below)[below > 0])
        edges = np.unique(np.concatenate(pairs))
        if edges.size:
            self._edges.append(np.stack([edges >> _BITS, edges & ((1 << _BITS) - 1)]) - 1)

    def count(self) -> int:
        from scipy.sparse import coo_array  # type: ignore[import-untyped]
        from scipy.sparse.csgraph import (  # type: ignore[import-untyped]
            connected_components,
        )

        if not self._edges:
            return self._regions
        rows, columns = np.concatenate(self._edges, axis=1)
        shape = (self._regions, self._regions)
        graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape)
        return int(connected_components(graph, directed=False)[0])
