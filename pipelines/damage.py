"""Damaged records: where they lie, and how a run goes on without them.

A shard is read up to its damage and no further; what follows would be lost without a word. So where
damaged records are to be skipped, all shards are looked through first, and those that are damaged
are replaced, for this process, by copies without the damaged records. How many are left is then
known before the first step, and the order of training stays a function of (seed, step).
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import google_crc32c

from flexseg_errors import FlexsegError
from pipelines import records, storage
from pipelines.manifest import Manifest, Shard

_PNG = b"\x89PNG\r\n\x1a\n"
_REMEDY = (
    "Prepare the dataset again (what is whole is kept), or set data.on_corrupt=skip to train "
    "without what is damaged."
)


@dataclasses.dataclass(frozen=True)
class Damaged:
    """One place where a shard is damaged.

    Attributes:
      path: the shard.
      offset: first byte of the record; None where it is the shard as a whole.
      reason: what is wrong.
      lost: records that cannot be read for it, this one among them.
    """

    path: str
    offset: int | None
    reason: str
    lost: int = 1

    def __str__(self) -> str:
        more = f" ({self.lost} records lost)" if self.lost > 1 else ""
        what = "" if self.offset is None else f": the record at byte {self.offset}"
        return f"{self.path}{what} {self.reason}{more}"


@dataclasses.dataclass(frozen=True)
class _Look:
    """What was found in a shard: the whole records as (offset, bytes with framing), the damage."""

    whole: tuple[tuple[int, int], ...]
    damaged: tuple[Damaged, ...]


def survey(paths: Sequence[str], shards: Sequence[Shard]) -> list[Damaged]:
    """All places where these shards are damaged; reads every byte."""
    return [
        d for path, shard in zip(paths, shards, strict=True) for d in _look(path, shard).damaged
    ]


def without_damage(
    paths: Sequence[str], shards: Sequence[Shard]
) -> tuple[list[str], list[Shard], list[Damaged]]:
    """Files to read instead, what they hold, and what is left out.

    A shard without damage stays as it is; of a damaged one a copy is made in a temporary folder,
    which goes when the process ends.

    Raises:
      FlexsegError: where nothing is left.
    """
    new_paths: list[str] = []
    new_shards: list[Shard] = []
    damaged: list[Damaged] = []
    for path, shard in zip(paths, shards, strict=True):
        copy, left, found = _mended(path, shard)
        damaged += found
        if left.examples:
            new_paths.append(copy)
            new_shards.append(left)
    if not new_paths:
        raise FlexsegError(f"No record could be read; the first: {damaged[0]}. Prepare again.")
    return new_paths, new_shards, damaged


def describe(damaged: Sequence[Damaged]) -> str:
    """What an epoch was trained without, as a line for a person."""
    lost = sum(d.lost for d in damaged)
    return f"Damaged records left out of this epoch: {lost}. The first: {damaged[0]}."


@contextlib.contextmanager
def explained(manifest: Manifest, *splits: str) -> Iterator[None]:
    """Turns what TensorFlow says of damaged records into a message with file and byte offset.

    Any other error passes as it is.

    Raises:
      FlexsegError: naming the first damaged record of these splits.
    """
    import tensorflow as tf

    kinds = (
        tf.errors.DataLossError,
        tf.errors.InvalidArgumentError,
        tf.errors.FailedPreconditionError,
        tf.errors.NotFoundError,
        tf.errors.OutOfRangeError,
        UnicodeDecodeError,  # TensorFlow quotes the damaged bytes in its message
    )
    try:
        yield
    except kinds as error:
        for name in splits:
            if name not in manifest.splits:
                continue
            found = survey(manifest.paths(name), manifest.split(name).shards)
            if found:
                more = f" There are {len(found) - 1} more." if len(found) > 1 else ""
                raise FlexsegError(f"{found[0]}.{more} {_REMEDY}") from error
        raise


@functools.lru_cache(maxsize=4096)
def _mended(path: str, shard: Shard) -> tuple[str, Shard, tuple[Damaged, ...]]:
    look = _look(path, shard)
    if not look.damaged:
        return path, shard, ()
    if not look.whole:
        return path, dataclasses.replace(shard, examples=0, bytes=0), look.damaged
    handle, copy = tempfile.mkstemp(".tfrecord", dir=_folder())
    with storage.open_read(path) as source, open(handle, "wb") as target:
        for offset, length in look.whole:
            source.seek(offset)
            target.write(source.read(length))
    left = dataclasses.replace(shard, examples=len(look.whole), bytes=os.path.getsize(copy))
    return copy, left, look.damaged


@functools.lru_cache(maxsize=1)
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="flexseg-mended-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _look(path: str, shard: Shard) -> _Look:
    whole: list[tuple[int, int]] = []
    damaged: list[Damaged] = []
    try:
        with storage.open_read(path) as file:
            offset = _look_through(file, path, whole, damaged)
    except (FileNotFoundError, FlexsegError) as error:
        why = str(error).rstrip(".")
        return _Look((), (Damaged(path, None, f"cannot be read: {why}", shard.examples),))
    held = len(whole) + len(damaged)
    missing = shard.examples - held
    reason = f"holds {held} records, but the dataset's manifest says {shard.examples}"
    if missing < 0:  # the file is not the one that was noted: none of it is to be trusted
        return _Look((), (Damaged(path, None, reason, shard.examples),))
    if missing and damaged and damaged[-1].offset == offset:
        damaged[-1] = dataclasses.replace(damaged[-1], lost=1 + missing)
    elif missing:
        damaged.append(Damaged(path, None, reason, missing))
    return _Look(tuple(whole), tuple(damaged))


def _look_through(
    file: BinaryIO, path: str, whole: list[tuple[int, int]], damaged: list[Damaged]
) -> int:
    """Notes the records of a shard; returns where it stopped."""
    offset = 0
    while head := file.read(12):
        if len(head) < 12 or struct.unpack("<I", head[8:])[0] != _masked(head[:8]):
            # Without its length, nobody knows where the next one begins.
            damaged.append(Damaged(path, offset, "has a damaged length"))
            return offset
        (length,) = struct.unpack("<Q", head[:8])
        body = file.read(length + 4)
        if len(body) < length + 4:
            damaged.append(Damaged(path, offset, "is cut off"))
            return offset
        if struct.unpack("<I", body[length:])[0] != _masked(body[:length]):
            damaged.append(Damaged(path, offset, "has damaged data"))
        elif reason := _wrong(body[:length]):
            damaged.append(Damaged(path, offset, reason))
        else:
            whole.append((offset, 16 + length))
        offset += 16 + length
    return offset


def _wrong(data: bytes) -> str:
    """What is wrong with a record whose checksums are right; "" where nothing is."""
    try:
        features = records.parse_features(data)
        form, size = features[records.FORMAT][0], features[records.HEIGHT][0]
        size *= features[records.WIDTH][0] * features[records.CHANNELS][0]
        image, mask = features[records.ENCODED][0], features[records.MASK_ENCODED][0]
    except Exception:  # protobuf's DecodeError, whichever implementation is at work
        return "is no example of this dataset"
    if form == b"raw":
        good = len(image) == size
    elif form == b"jpeg":
        good = image.startswith(b"\xff\xd8") and image.endswith(b"\xff\xd9")
    else:
        good = _is_png(image)
    if not good:
        return f"holds an image that is no whole {form.decode(errors='replace')}"
    return "" if _is_png(mask) else "holds a mask that is no whole PNG"


def _is_png(data: bytes) -> bool:
    """Whether every chunk is there and has the right checksum; nothing is unpacked."""
    if not data.startswith(_PNG):
        return False
    place = len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        end = place + 8 + length
        if data[end : end + 4] != struct.pack(">I", zlib.crc32(data[place + 4 : end])):
            return False
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place = end + 4
    return False


def _masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
