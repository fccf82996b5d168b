"""A run directory elsewhere, such as s3://bucket/run, and the local copy that is worked on.

What is new or changed is sent in an order in which whoever reads, or goes on after a crash, never
meets a half: best weights before best.json, all of that before the checkpoint that counts on it,
and of a checkpoint the state last. A checkpoint without its state is none (see `checkpoints`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator

from pipelines import storage
from train import checkpoints, runs
from train.runs import Run


@contextlib.contextmanager
def working_copy(run: Run) -> Iterator[tuple[Run, Callable[[], None]]]:
    """The run with a local folder to work on, and what sends that folder's news to its place.

    A run that is local is its own copy, and nothing is sent. The copy is removed in the end, sent
    or not.
    """
    if not storage.is_remote(run.folder):
        yield run, lambda: None
        return
    # The log may still be written to when training breaks off: what cannot be removed then stays.
    with tempfile.TemporaryDirectory(prefix="flexseg-run-", ignore_cleanup_errors=True) as work:
        mirror = Mirror(run.folder, work)
        mirror.fetch()
        yield dataclasses.replace(run, work=work), mirror.send


class Mirror:
    """A remote folder and the local one that stands for it."""

    def __init__(self, remote: str, local: str):
        self._remote = remote
        self._local = local
        self._sent: dict[str, list] = {}  # name -> state of the local file; what lies there

    def fetch(self) -> None:
        """Copies what there is to go on with; an unfinished checkpoint is not."""
        names = {f.name for f in storage.walk(self._remote)}
        for name in sorted(names):
            local = self._path(name)
            if _is_whole(name, names):
                storage.download(storage.join(self._remote, name), local)
            self._sent[name] = storage.state(local)

    def send(self) -> None:
        """Sends what is new or changed, and then removes there what was removed here."""
        here = {f.name: [f.size, f.version] for f in storage.walk(self._local)}
        for name in sorted(here, key=_rank):
            if self._sent.get(name) != here[name]:
                storage.upload(self._path(name), storage.join(self._remote, name), keep=True)
                self._sent[name] = here[name]
        for name in sorted(self._sent.keys() - here, key=_rank, reverse=True):
            storage.remove(storage.join(self._remote, name))
            del self._sent[name]

    def _path(self, name: str) -> str:
        return os.path.join(self._local, *name.split("/"))


def _is_whole(name: str, names: set[str]) -> bool:
    """Whether a file is not of a checkpoint, or of one that has its state."""
    folder, *checkpoint = name.split("/")
    return folder != runs.CHECKPOINTS or f"{folder}/{checkpoint[0]}/{checkpoints.STATE}" in names


def _rank(name: str) -> tuple[int, str]:
    """Orders files so that each comes after those that it stands for."""
    if name.startswith(runs.CHECKPOINTS + "/"):
        return (3 if name.endswith("/" + checkpoints.STATE) else 2), name
    return int(name == runs.BEST.replace(os.sep, "/")), name
