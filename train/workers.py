"""What the worker processes of a training agree on, and what is said when one is lost.

Every worker runs the same program on its part of each batch. The first, the chief, alone writes;
what it finds (a folder that is refused, the step to go on from) the others are told. Where there is
one process only, all of this is nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from flexseg_errors import FlexsegError
from train.distribution import Cluster

_T = TypeVar("_T")
# How TensorFlow 2.16 says that a worker is gone: by a call that had no answer, or by heartbeats
# that stay away (for 10 seconds).
_LOST = re.compile(
    r"[Cc]ollective ops is aborted|RecvBuf|CompleteInstance|CompleteGroup|heartbeat|"
    r"[Cc]oordination ?[Ss]ervice|failed to connect to all addresses|[Ss]ocket closed|"
    r"[Cc]onnection reset|incarnation|preempted"
)
_TASK = re.compile(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)")


class Workers:
    """The workers of a training, seen from one of them.

    Attributes:
      index: of this one.
      count: of all; 1 where a process trains alone.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None):
        self._strategy = strategy
        self._addresses = cluster.addresses if cluster else ("",)
        self.index = cluster.index if cluster else 0
        self.count = len(self._addresses)
        self._replicas = strategy.num_replicas_in_sync // self.count
        self._add = tf.function(self._summed)

    @property
    def is_chief(self) -> bool:
        """Whether this one writes."""
        return self.index == 0

    def name(self, index: int) -> str:
        """A worker, for the person."""
        return f"worker {index} ({self._addresses[index]})"

    def any(self, flag: bool) -> bool:
        """Whether any worker says yes. All must ask; none goes on before all have."""
        return bool(self._sum([int(flag)])[0])

    def of_chief(self, value: int) -> int:
        """The chief's value, on every worker."""
        return self._sum([value if self.is_chief else 0])[0]

    def refuse_differences(self, texts: Mapping[str, str]) -> None:
        """Compares what must be the same on every worker.

        Args:
          texts: name -> text.

        Raises:
          FlexsegError: on every worker, naming what differs from the chief and where.
        """
        if self.count == 1:
            return
        digests = [
            int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
            for text in texts.values()
        ]
        blank = [0] * len(digests)
        rows = [digests if i == self.index else blank for i in range(self.count)]
        seen = self._sum([value for row in rows for value in row])
        wrong = [
            f"{name} of {self.name(i)}"
            for i in range(1, self.count)
            for j, name in enumerate(texts)
            if seen[i * len(digests) + j] != seen[j]
        ]
        if wrong:
            raise FlexsegError(
                f"The workers were not started alike: {', '.join(wrong)} differs from that of "
                f"{self.name(0)}. Give every worker the same command and the same cluster."
            )

    def on_chief(self, action: Callable[[], _T]) -> _T | None:
        """Does something on the chief while the others wait; returns what it gives, there.

        Raises:
          FlexsegError: on the others, where it failed on the chief, which raises what was raised.
        """
        return self._guarded(action if self.is_chief else lambda: None)

    def on_all(self, action: Callable[[], _T]) -> _T:
        """Does something on every worker; where it fails on one, all stop and name that one."""
        return self._guarded(action)

    def chief_first(self, action: Callable[[], _T]) -> _T:
        """Does something on the chief, and when it is done there on the others."""
        first: Any = self.on_chief(action)
        return self.on_all(lambda: first if self.is_chief else action())

    @contextlib.contextmanager
    def watch(self, kept: Callable[[], str]) -> Iterator[None]:
        """Tells the loss of a worker as a FlexsegError.

        Args:
          kept: says what there is to go on from.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.count == 1 or not _LOST.search(error.message):
                raise
            raise FlexsegError(
                f"{self._lost(error.message)} was lost: it failed, was killed, or cannot be "
                f"reached; its own messages tell more. {kept()} Start the same command again on "
                "every worker to go on from there."
            ) from error

    def _lost(self, message: str) -> str:
        """Which worker a message of TensorFlow's is about."""
        for _, task in _TASK.findall(message):
            if int(task) < self.count and int(task) != self.index:
                name = self.name(int(task))
                return name[0].upper() + name[1:]
        return "A worker"

    def _guarded(self, action: Callable[[], _T]) -> _T:
        """Does something and then learns on which workers it failed."""
        failure: BaseException | None = None
        result: Any = None
        try:
            result = action()
        except Exception as error:
            if self.count == 1:
                raise
            failure = error
        if self.count > 1:
            failed = self._sum([int(bool(failure) and i == self.index) for i in range(self.count)])
            if failure:
                raise failure
            if any(failed):
                names = ", ".join(self.name(i) for i, flag in enumerate(failed) if flag)
                raise FlexsegError(f"Stopped, because {names} did; its own message says why.")
        return result

    def _sum(self, values: Sequence[int]) -> list[int]:
        if self.count == 1:
            return list(values)
        total = self._add(tf.constant(list(values), tf.int64))
        return [int(v) // self._replicas for v in total.numpy()]

    def _summed(self, values: tf.Tensor) -> tf.Tensor:
        def replica(part: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(part))

        total = self._strategy.run(replica, (values,))
        return self._strategy.experimental_local_results(total)[0]
