"""A message where a tf.data service gives nothing for so long that it may be gone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from train.console import say

_SHORTEST = 60.0  # seconds
_TIMES = 10.0  # as long as the longest call so far


class Stall:
    """Tells once in each call of steps that takes much longer than those before.

    TensorFlow waits for a service without a word, and goes on exactly where it was when the service
    is back; so this says what is waited for, and stops nothing.
    """

    def __init__(
        self,
        service: str,
        tell: Callable[[str], None] = say,
        shortest: float = _SHORTEST,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Sets what is watched.

        Args:
          service: address of the tf.data service; "" where there is none, and nothing is told.
          tell: what is done with the message, in a thread of its own.
          shortest: seconds before which nothing is told.
          clock: what tells the time, in seconds.
        """
        self._service = service
        self._tell = tell
        self._shortest = shortest
        self._clock = clock
        self._longest = 0.0

    @property
    def patience(self) -> float:
        """Seconds after which a call is told of."""
        return max(self._shortest, _TIMES * self._longest)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watches one call of steps."""
        if not self._service:
            yield
            return
        timer = threading.Timer(self.patience, self._tell, [self._message()])
        timer.daemon = True
        timer.start()
        began = self._clock()
        try:
            yield
        finally:
            timer.cancel()
            self._longest = max(self._longest, self._clock() - began)

    def _message(self) -> str:
        return (
            f"No step has ended for {self.patience:.0f} s. data.service={self._service} gives no "
            "batches: see whether its dispatcher and all of its workers run. Started again at "
            "their addresses they go on with the batches that are missing, and so does training."
        )
