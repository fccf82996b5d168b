"""Ctrl-C and SIGTERM during training."""

from __future__ import annotations

import signal
from typing import Any

from train.console import say


class StopSignal:
    """Turns SIGINT and SIGTERM into a wish that is granted after the next step is safe."""

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._set)
        except ValueError:
            self._before = {}  # not in the main thread: signals are somebody else's

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, *_: object) -> None:
        if self.is_set:  # asked twice: at once, losing the steps since the last checkpoint
            raise KeyboardInterrupt
        self.is_set = True
        say("Stopping after the next checkpoint ...")
