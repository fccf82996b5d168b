"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from flexseg_console import progress


class ProgressBar:
    """The steps of a run, what they say, and the time left.

    The time left is that of the whole run, at the pace of this process so far, in which validation
    and all else between steps has its share.
    """

    def __init__(self, total: int, done: int, clock: Callable[[], float] = time.monotonic):
        """Shows nothing yet.

        Args:
          total: steps of the run.
          done: steps done by earlier processes.
          clock: tells the time in seconds.
        """
        self._bar = progress(total=total, done=done, unit="step", clock=clock)

    def show(self, step: int, text: str) -> None:
        """Shows that `step` steps are done, and what they say."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._bar.close()
