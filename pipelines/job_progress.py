"""A bar for a Beam job, whatever its runner: it looks at the folder that workers write to."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Collection
from typing import Any

from flexseg_console import is_terminal, progress
from flexseg_errors import FlexsegError
from pipelines import storage


class JobProgress:
    """Counts files in a folder, from a thread of its own, while the `with` statement lasts."""

    def __init__(
        self, folder: str, unit: str, total: int, awaited: Collection[str] | None = None
    ) -> None:
        """Prepares the bar.

        Args:
          folder: where the files appear, here or remote.
          unit: what one of them stands for.
          total: how many there are in the end.
          awaited: names of those that count, where others may lie there; the rest of `total` is
            taken for done. None counts every file, from none on.
        """
        self._folder, self._total = folder, total
        self._awaited = None if awaited is None else frozenset(awaited)
        self._before = 0 if awaited is None else total - len(awaited)
        self._unit = unit
        self._bar_moves = is_terminal(sys.stderr)  # elsewhere there is a line a minute at most
        self._seconds = 15.0 if not self._bar_moves else 5.0 if storage.is_remote(folder) else 0.5
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> JobProgress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with progress(total=self._total, done=self._before, unit=self._unit) as bar:
            while not self._stop.wait(self._seconds):
                self._update(bar)
            if self._bar_moves:
                self._update(bar)

    def _update(self, bar: Any) -> None:
        with contextlib.suppress(FlexsegError):  # the bar is late; the workers tell what is wrong
            there = storage.names(self._folder)
            made = there if self._awaited is None else self._awaited.intersection(there)
            bar.update(self._before + len(made) - bar.n)
