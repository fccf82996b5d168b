"""Processes of this machine that make shards while a Beam step waits for them.

Beam has worker processes of its own. Each of them imports Beam and speaks gRPC, so that a run takes
almost two seconds longer; the work is dealt out before it begins, however long each shard takes;
and where one of them is killed, as happens when the memory runs out, the run waits for ever. These
take the next shard when they have made one, and are missed when they die. Python's own pools of
processes would do, but that each process runs the script again that calls `flexseg.main`.

A process reads [folder, name] as a line of JSON and answers with {"result"} or {"error"} as a line.
It ends when its input does, and so also when the process that started it is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

from flexseg_errors import FlexsegError
from pipelines import shards

# They find modules where this process finds them, wherever it was started.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pipelines import local_workers; local_workers.serve()"
)


class _Workers:
    """The processes, and a thread for each that waits for its answers."""

    def __init__(self, count: int, log: BinaryIO | None):
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all = []
        self._log = log.name if log else None
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            self._all.append(process)
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count)

    def submit(self, folder: str, name: str) -> Future:
        return self._threads.submit(self._ask, folder, name)

    def close(self) -> None:
        """Drops what has not been begun, and waits for what has."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._all:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for process in self._all:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _ask(self, folder: str, name: str) -> dict[str, Any]:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([folder, name]).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            self._idle.put(process)
        if not answer:
            said = f" What it last said is in {self._log}." if self._log else ""
            raise FlexsegError(
                f"The worker process that made {name} died (exit status {process.wait()}), as "
                f"happens when the memory runs out: try fewer with --direct_num_workers.{said}"
            )
        told = json.loads(answer)
        if "error" in told:
            raise RuntimeError(told["error"])
        return told["result"]


_workers: _Workers | None = None


@contextlib.contextmanager
def started(count: int, log: str | None = None) -> Iterator[None]:
    """Has `materialize` work in processes for as long as the context lasts.

    They begin to start at once, and this returns meanwhile.

    Args:
      count: how many; 1 for none beside this one.
      log: file for what they print; None for where this process prints.
    """
    global _workers
    if count < 2:
        yield
        return
    with open(log, "wb") if log else contextlib.nullcontext() as file:
        _workers = _Workers(count, file)
        try:
            yield
        finally:
            _workers.close()
            _workers = None


def materialize(folder: str, name: str) -> Future:
    """`shards.materialize` in one of the processes, or at once and here where none were started.

    Returns:
      What will hold its result, or what it raised: a RuntimeError with the text of the traceback
      where it was raised by another process, a FlexsegError where that process died.
    """
    if _workers is not None:
        return _workers.submit(folder, name)
    done: Future = Future()
    done.set_result(shards.materialize(folder, name))
    return done


def serve() -> None:
    """What one of the processes does."""
    import cv2

    # The processes share the cores; OpenCV's own threads would fight for them.
    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not pass for an answer
    for line in sys.stdin.buffer:
        try:
            told: dict[str, Any] = {"result": shards.materialize(*json.loads(line))}
        except Exception:
            told = {"error": traceback.format_exc()}
        answers.write(json.dumps(told).encode() + b"\n")
        answers.flush()
