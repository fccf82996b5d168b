"""Class ids of an image beyond memory, which wait in a temporary file until they are finished."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np

from flexseg_errors import FlexsegError

_PART_BYTES = 1 << 22


class WaitingRows:
    """A mask that is read and written some rows at a time, as `postprocessing_bands.Rows` is.

    Not mapped into memory: its pages would count as memory of this process.

    Attributes:
      shape: (height, width) in pixels.
    """

    def __init__(self, shape: tuple[int, int], file: BinaryIO):
        """Takes a file of height x width bytes."""
        self.shape = shape
        self._file = file

    @classmethod
    @contextlib.contextmanager
    def of(cls, shape: tuple[int, int], parts: Iterable[np.ndarray]) -> Iterator[WaitingRows]:
        """Keeps rows, uint8 [n, W], which come from the top and are `shape` together.

        Raises:
          FlexsegError: where there is no space on disk.
        """
        with tempfile.TemporaryFile(prefix="flexseg-", buffering=0) as file:
            made, start = cls(shape, file), 0
            for part in parts:
                made[start : start + len(part)] = part
                start += len(part)
            yield made

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        found = np.empty((stop - start, self.shape[1]), np.uint8)
        self._file.seek(start * self.shape[1])
        wanted = found.data.cast("B")
        while len(wanted):  # a system call gives two GiB at most
            wanted = wanted[self._file.readinto(wanted) :]  # type: ignore[attr-defined]
        return found

    def __setitem__(self, rows: slice, ids: np.ndarray) -> None:
        start, stop, _ = rows.indices(self.shape[0])
        if ids.shape != (stop - start, self.shape[1]) or ids.dtype != np.uint8:
            raise ValueError(f"{ids.dtype} {ids.shape} for rows {start} to {stop} of {self.shape}.")
        rest = np.ascontiguousarray(ids).data.cast("B")
        try:
            self._file.seek(start * self.shape[1])
            while len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            size = self.shape[0] * self.shape[1]
            raise FlexsegError(
                f"{tempfile.gettempdir()}: {error.strerror}; the mask takes {size:,} bytes there "
                "until it is post-processed. Set TMPDIR to a folder with more space, or give "
                "--nopostprocessing."
            ) from error

    def parts(self) -> Iterator[np.ndarray]:
        """All rows from the top, some at a time."""
        step = max(1, _PART_BYTES // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield self[start : start + step]
