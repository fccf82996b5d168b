"""Files of predictions, here or remote: each appears under its name whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator

from pipelines import storage


def write(path: str, data: bytes) -> None:
    """Writes a file and makes the folders above it."""
    if storage.is_remote(path):
        storage.write_whole(path, data)
        return
    with written(path) as local, open(local, "wb") as file:  # nothing is left where it breaks off
        file.write(data)


@contextlib.contextmanager
def written(path: str) -> Iterator[str]:
    """A local path to write to, with the same suffix; what is written there ends up under `path`.

    Where the block raises, nothing appears.
    """
    name = path.replace(os.sep, "/").rpartition("/")[2]
    if storage.is_remote(path):
        with tempfile.TemporaryDirectory(prefix="flexseg-") as folder:
            local = os.path.join(folder, name)
            yield local
            storage.upload(local, path)
        return
    storage.make_folder(_folder(path))
    local = os.path.join(_folder(path), f".{uuid.uuid4().hex}.{name}")  # same disk, to be renamed
    try:
        yield local
        storage.upload(local, path)
    finally:
        storage.remove(local)


def _folder(path: str) -> str:
    return path.rpartition("/")[0] if storage.is_remote(path) else os.path.dirname(path) or "."
