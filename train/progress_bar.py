"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from tqdm import tqdm

from train.console import say

_SECONDS_BETWEEN_LINES = 60.0


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
        self._bar = tqdm(total=total, initial=done, unit="step", disable=None, dynamic_ncols=True)
        self._total, self._done, self._clock = total, done, clock
        self._began = self._told = clock()

    def show(self, step: int, text: str) -> None:
        """Shows that `step` steps are done, and what they say."""
        if not self._bar.disable:
            self._bar.n = step
            self._bar.set_postfix_str(text)
            return
        now = self._clock()
        if now - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told = now
        left = (now - self._began) / max(1, step - self._done) * (self._total - step)
        say(f"Step {step} of {self._total}: {text}, {tqdm.format_interval(left)} left")

    def close(self) -> None:
        self._bar.close()
