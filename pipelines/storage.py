"""Files here and elsewhere: local paths through the operating system, URLs through object stores.

A remote path is `s3://bucket/name` or `gs://bucket/name`; "folder" then means what begins with the
path and a "/". What the disk, the network or the credentials object to becomes a FlexsegError that
names the path, except that reading what is not there raises FileNotFoundError.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from flexseg_errors import FlexsegError

if TYPE_CHECKING:
    from pipelines.object_stores import Store

_REMOTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_NOT_THERE = [-1, -1]


@dataclasses.dataclass(frozen=True)
class File:
    """A file below a folder.

    Attributes:
      path: where it is.
      name: its path below the folder, with "/" between the parts.
      size: in bytes; -1 where it cannot be seen, as with a broken link.
      version: changes with the content: the time of the last change in nanoseconds; of a remote
        file its checksum or time, as the store keeps it.
    """

    path: str
    name: str
    size: int
    version: int | str


def is_remote(path: str) -> bool:
    """Whether the path has a scheme, such as s3://."""
    return _REMOTE.match(os.fspath(path)) is not None


def join(folder: str, *names: str) -> str:
    """The path of what lies in a folder."""
    if not is_remote(folder):
        return os.path.join(folder, *names)
    return "/".join([folder.rstrip("/"), *(n.strip("/") for n in names if n)])


def exists(path: str) -> bool:
    """Whether there is a file or a folder."""
    return is_file(path) or is_folder(path)


def is_file(path: str) -> bool:
    """Whether there is a file."""
    return _store(path).stat(path) is not None if is_remote(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    """Whether there is a folder; remote: whether there is a file below it."""
    return _store(path).holds(path) if is_remote(path) else os.path.isdir(path)


def names(folder: str) -> list[str]:
    """The names directly inside a folder, of files and folders, sorted; none where it is none."""
    if is_remote(folder):
        return sorted(_store(folder).names(folder))
    with _told(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def walk(folder: str) -> Iterator[File]:
    """All files below a folder, sorted by name; what lies in hidden folders (".x") is left out."""
    if is_remote(folder):
        start = len(folder.rstrip("/")) + 1
        found = [
            File(path, path[start:], *state)
            for path, state in _store(folder).entries(folder)
            if not path.endswith("/")  # the empty files by which consoles show folders
            and not any(part.startswith(".") for part in path[start:].split("/")[:-1])
        ]
    else:
        found = []
        for parent, folders, inside in os.walk(folder):
            folders[:] = [f for f in folders if not f.startswith(".")]
            for path in (os.path.join(parent, name) for name in inside):
                size, version = state(path)
                name = os.path.relpath(path, folder).replace(os.sep, "/")
                found.append(File(path, name, size, version))
    yield from sorted(found, key=lambda file: file.name)


def state(path: str) -> list:
    """[size, version] of a file, as plain data; [-1, -1] where it is not there."""
    if is_remote(path):
        there = _store(path).stat(path)
        return _NOT_THERE[:] if there is None else list(there)
    try:
        stat = os.stat(path)
    except OSError:
        return _NOT_THERE[:]
    return [stat.st_size, stat.st_mtime_ns]


def size(path: str) -> int:
    """A file's bytes.

    Raises:
      FileNotFoundError: where it is not there.
    """
    if not is_remote(path):
        with _told(path):
            return os.path.getsize(path)
    there = _store(path).stat(path)
    if there is None:
        raise FileNotFoundError(f"There is no file {path}.")
    return there[0]


def open_read(path: str) -> BinaryIO:
    """Opens a file to be read; it can be sought in.

    Raises:
      FileNotFoundError: where it is not there.
    """
    if is_remote(path):
        return _store(path).open(path)
    with _told(path):
        return open(path, "rb")


def read_bytes(path: str) -> bytes:
    """A file's content.

    Raises:
      FileNotFoundError: where it is not there.
    """
    with open_read(path) as file, _told(path):
        return file.read()


def sha256(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal; read in blocks.

    Raises:
      FileNotFoundError: where it is not there.
      FlexsegError: where it cannot be opened.
    """
    checksum = hashlib.sha256()
    with open_read(path) as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return checksum.hexdigest()


def write_whole(path: str, data: bytes) -> None:
    """Writes a file so that it appears under its name whole or not at all."""
    if is_remote(path):
        _store(path).put(path, data)
        return
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"  # workers on two machines may share a process id
    with _told(path):
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)


def upload(local: str, path: str, keep: bool = False) -> None:
    """Moves a finished local file to its name, where it appears whole or not at all.

    Args:
      local: the file.
      path: its name; where that is local too, it must be on the same disk, if not to be kept.
      keep: copies it and leaves the local file; else it is gone afterwards.
    """
    if keep and not is_remote(path):
        download(local, path)
        return
    with _told(path):
        if is_remote(path):
            _store(path).put_file(path, local)
            if not keep:
                os.remove(local)
        else:
            os.replace(local, path)


def make_folder(path: str) -> None:
    """Makes a folder and those above it; a store has none to make."""
    if is_remote(path):
        _store(path)  # an unknown scheme is told now, not after the work
    else:
        with _told(path):
            os.makedirs(path, exist_ok=True)


def remove(path: str) -> None:
    """Removes a file, or a folder with all below; nothing where there is none."""
    if is_remote(path):
        store, path = _store(path), path.rstrip("/")
        store.delete([path, *(found for found, _ in store.entries(path))])
        return
    with _told(path):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local path with the content: the path itself, or a copy that is removed afterwards.

    Args:
      path: a file, or a folder; of a remote folder hidden folders are not copied.

    Raises:
      FileNotFoundError: where nothing is there.
    """
    if not is_remote(path):
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no file or folder {path}.")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="flexseg-") as folder:
        copy = os.path.join(folder, path.rstrip("/").rpartition("/")[2])  # keeps its suffix
        if is_file(path):
            download(path, copy)
        else:
            files = list(walk(path))
            if not files:
                raise FileNotFoundError(f"There is no file or folder {path}.")
            for file in files:
                download(file.path, os.path.join(copy, *file.name.split("/")))
        yield copy


def download(path: str, local: str) -> None:
    """Copies a file to a local path, whole or not at all; makes the folders above it."""
    temporary = f"{local}.{os.getpid()}.tmp"
    with open_read(path) as source, _told(local):
        os.makedirs(os.path.dirname(local) or ".", exist_ok=True)
        with open(temporary, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        os.replace(temporary, local)


def _store(path: str) -> Store:
    from pipelines import object_stores

    return object_stores.store(path)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Turns what the operating system objects to into a FlexsegError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FlexsegError(f"{path}: {error.strerror or error}.") from error
