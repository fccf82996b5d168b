"""Object stores: S3 through boto3, Google Cloud Storage through Beam's file system.

S3 does not go through Beam: Beam's writer (2.77) leaves a shortened file under the final name when
it is interrupted, cannot write an empty one, makes a new client for every call (60 ms instead of 5)
and tries for minutes, in silence, where there are no credentials or no server. Both libraries are
imported when a path of theirs is met.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Protocol

from flexseg_errors import FlexsegError

State = tuple[int, int | str]  # size in bytes, version
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/]*)/?(.*)", re.DOTALL)
_CHUNK = 8 << 20  # bytes in one request
_ATTEMPTS = 4  # of reading a chunk whose connection breaks
_GLOB = re.compile(r"[*?\[]")
_BATCH = 1000  # files that S3 removes in one request


class Store(Protocol):
    """What `storage` asks of a store. Paths are URLs; a folder may end with "/" or not."""

    def stat(self, path: str) -> State | None:
        """Size and version of a file; None where it is not there."""

    def holds(self, folder: str) -> bool:
        """Whether there is anything below."""

    def names(self, folder: str) -> set[str]:
        """Of what lies directly below."""

    def entries(self, folder: str) -> Iterator[tuple[str, State]]:
        """Path and state of all below; a path that ends with "/" is a folder's empty marker."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file to be read; raises FileNotFoundError."""

    def put(self, path: str, data: bytes) -> None:
        """Writes a file, whole or not at all."""

    def put_file(self, path: str, local: str) -> None:
        """Copies a local file, whole or not at all."""

    def delete(self, paths: Sequence[str]) -> None:
        """Removes files; those that are not there do not matter."""


def store(path: str) -> Store:
    """The store of a URL.

    Raises:
      FlexsegError: where there is none, or its libraries are not installed.
    """
    scheme, bucket, _ = _parts(path)
    if scheme not in _STORES:
        known = ", ".join(f"{s}://" for s in _STORES)
        raise FlexsegError(
            f"{path}: flexseg cannot reach {scheme}:// paths; give a local path or one of {known}."
        )
    if not bucket:
        raise FlexsegError(f"{path} names no bucket; expected {scheme}://BUCKET/NAME.")
    make, extra = _STORES[scheme]
    try:
        return make()
    except ImportError as error:
        raise FlexsegError(
            f"{path}: {scheme}:// paths need libraries that are not installed ({error}). "
            f'Install them with: pip install "flexseg[{extra}]"'
        ) from error


def share_s3_settings() -> None:
    """Lets boto3 and tensorflow-io have one endpoint and region, whichever variable names them.

    boto3 reads AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and AWS_DEFAULT_REGION; tensorflow-io reads
    S3_ENDPOINT and AWS_REGION, and takes https where the endpoint has no scheme. A variable that is
    set stays; processes that are started afterwards inherit them. Credentials both find alike.
    """
    env = os.environ
    other = env.get("S3_ENDPOINT")
    if other and "://" not in other:
        other = f"http{'' if env.get('S3_USE_HTTPS') == '0' else 's'}://{other}"
    url = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or other
    if url:
        env.setdefault("AWS_ENDPOINT_URL_S3", url)
        env["S3_ENDPOINT"] = other or url
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    if region:
        env.setdefault("AWS_REGION", region)
        env.setdefault("AWS_DEFAULT_REGION", region)


class _S3:
    """S3, and what speaks its language.

    A put, and the completion of an upload in parts, is atomic by S3's own guarantee: a process that
    is killed in between leaves nothing under the name, though the parts of a large file may stay in
    the bucket, unseen, until its lifecycle rule removes them.
    """

    def __init__(self, client: Any):
        self._client = client

    def stat(self, path: str) -> State | None:
        _, bucket, key = _parts(path)
        if not key:
            return None
        with _s3_errors(path):
            try:
                head = self._client.head_object(Bucket=bucket, Key=key)
            except Exception as error:
                if _code(error) in ("404", "NoSuchKey"):
                    return None
                raise
        return head["ContentLength"], head["ETag"].strip('"')

    def holds(self, folder: str) -> bool:
        _, bucket, prefix = _folder_parts(folder)
        with _s3_errors(folder):
            found = self._client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return bool(found["KeyCount"])

    def names(self, folder: str) -> set[str]:
        found, start = set(), len(_folder_parts(folder)[2])
        for page in self._pages(folder, Delimiter="/"):
            found |= {f["Prefix"][start:].rstrip("/") for f in page.get("CommonPrefixes", ())}
            found |= {f["Key"][start:] for f in page.get("Contents", ())}
        return found - {""}  # the folder's own marker

    def entries(self, folder: str) -> Iterator[tuple[str, State]]:
        _, bucket, _ = _parts(folder)
        for page in self._pages(folder):
            for file in page.get("Contents", ()):
                yield f"s3://{bucket}/{file['Key']}", (file["Size"], file["ETag"].strip('"'))

    def open(self, path: str) -> BinaryIO:
        return io.BufferedReader(_S3Reader(self._client, path), 1 << 16)

    def put(self, path: str, data: bytes) -> None:
        _, bucket, key = _file_parts(path)
        with _s3_errors(path):
            self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def put_file(self, path: str, local: str) -> None:
        _, bucket, key = _file_parts(path)
        with open(local, "rb") as file, _s3_errors(path):
            self._client.upload_fileobj(file, bucket, key)

    def delete(self, paths: Sequence[str]) -> None:
        for begin in range(0, len(paths), _BATCH):
            parts = [_file_parts(path) for path in paths[begin : begin + _BATCH]]
            keys = {"Objects": [{"Key": key} for _, _, key in parts], "Quiet": True}
            with _s3_errors(paths[begin]):
                answer = self._client.delete_objects(Bucket=parts[0][1], Delete=keys)
            for refused in answer.get("Errors", ()):
                raise FlexsegError(
                    f"s3://{parts[0][1]}/{refused['Key']} cannot be removed: {refused['Message']}"
                )

    def _pages(self, folder: str, **options: str) -> Iterator[dict[str, Any]]:
        _, bucket, prefix = _folder_parts(folder)
        pages = self._client.get_paginator("list_objects_v2")
        with _s3_errors(folder):
            yield from pages.paginate(Bucket=bucket, Prefix=prefix, **options)


class _S3Reader(io.RawIOBase):
    """Reads a file in requests of some MiB each, so that no connection waits between two reads."""

    def __init__(self, client: Any, path: str):
        self._client = client
        self._path = path
        self._position = 0
        self._start, self._chunk = 0, b""
        self._size, self._version = 0, ""
        self._fetch(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        parts = []
        while data := self._some(_CHUNK):
            parts.append(data)
        return b"".join(parts)

    def _some(self, most: int) -> bytes:
        if self._position >= self._size:
            return b""
        if not self._start <= self._position < self._start + len(self._chunk):
            self._fetch(self._position)
        begin = self._position - self._start
        data = self._chunk[begin : begin + most]
        self._position += len(data)
        return data

    def _fetch(self, start: int) -> None:
        _, bucket, key = _file_parts(self._path)
        wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{start + _CHUNK - 1}"}
        if self._version:
            wanted["IfMatch"] = self._version  # or two versions would be read as one file
        with _s3_errors(self._path):
            for attempt in range(_ATTEMPTS):
                try:
                    answer = self._client.get_object(**wanted)
                    self._start, self._chunk = start, answer["Body"].read()
                    break
                except Exception as error:
                    if _code(error) == "InvalidRange":  # an empty file has no range
                        return
                    if _code(error) is not None or attempt == _ATTEMPTS - 1:
                        raise
        self._version = answer["ETag"]
        self._size = int(answer["ContentRange"].rpartition("/")[2])


class _Beam:
    """What one of Beam's file systems reaches.

    Beam's writers publish what they have when they are torn down, so that a file is written beside
    and renamed: the copy that the store makes of it is atomic.
    """

    def __init__(self, scheme: str):
        from apache_beam.io.filesystems import FileSystems

        if scheme == "gs":
            from apache_beam.io.gcp import gcsfilesystem  # noqa: F401  says what is missing
        self._systems = FileSystems

    def stat(self, path: str) -> State | None:
        if not _parts(path)[2]:
            return None
        with self._errors(path):
            if not self._systems.exists(path):
                return None
            found = self._systems.get_filesystem(path).metadata(path)
        return found.size_in_bytes, repr(found.last_updated_in_seconds)

    def holds(self, folder: str) -> bool:
        return bool(self._match(folder, 1))

    def names(self, folder: str) -> set[str]:
        start = len(folder.rstrip("/")) + 1
        found = {f.path[start:].partition("/")[0] for f in self._match(folder)}
        return {name for name in found if name}

    def entries(self, folder: str) -> Iterator[tuple[str, State]]:
        for file in self._match(folder):
            yield file.path, (file.size_in_bytes, repr(file.last_updated_in_seconds))

    def open(self, path: str) -> BinaryIO:
        from apache_beam.io.filesystem import CompressionTypes

        if self.stat(path) is None:
            raise FileNotFoundError(f"There is no file {path}.")
        with self._errors(path):
            return self._systems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)

    def put(self, path: str, data: bytes) -> None:
        self._write(path, io.BytesIO(data))

    def put_file(self, path: str, local: str) -> None:
        with open(local, "rb") as file:
            self._write(path, file)

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            if _GLOB.search(path):  # Beam would remove all that match
                raise FlexsegError(f"{path}: a name with *, ? or [ cannot be removed safely.")
            with self._errors(path):
                self._systems.delete([path])

    def _write(self, path: str, source: BinaryIO) -> None:
        from apache_beam.io.filesystem import CompressionTypes

        _file_parts(path)
        temporary = f"{path}.{os.getpid()}.tmp"
        plain = CompressionTypes.UNCOMPRESSED
        with self._errors(path):
            with self._systems.create(temporary, compression_type=plain) as file:
                shutil.copyfileobj(source, file, 1 << 20)
            self._systems.rename([temporary], [path])

    def _match(self, folder: str, limit: int | None = None) -> list[Any]:
        start = folder.rstrip("/") + "/"
        pattern = _GLOB.sub("?", start) + "**"  # there is no way to quote, but "?" matches itself
        with self._errors(folder):
            found = self._systems.match([pattern], [limit if pattern[:-2] == start else None])
        return [file for file in found[0].metadata_list if file.path.startswith(start)]

    @contextlib.contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FlexsegError, FileNotFoundError):
            raise
        except Exception as error:  # of Beam, of the store's library, or of the network
            raise FlexsegError(
                f"{path}: {_one_line(error)}. Check the name, the credentials and the network."
            ) from error


def _s3() -> Store:
    share_s3_settings()
    return _s3_of(os.getpid(), os.environ.get("AWS_ENDPOINT_URL_S3"))


@functools.lru_cache(maxsize=4)
def _s3_of(process: int, endpoint: str | None) -> Store:
    """One client for each process, since connections do not survive a fork."""
    import boto3

    return _S3(boto3.session.Session().client("s3"))


_STORES: dict[str, tuple[Callable[[], Store], str]] = {
    "s3": (_s3, "aws"),
    "gs": (functools.partial(_Beam, "gs"), "gcp"),
}


@contextlib.contextmanager
def _s3_errors(path: str) -> Iterator[None]:
    """Turns what S3, boto3 and the network object to into errors for people."""
    try:
        yield
    except FlexsegError:
        raise
    except Exception as error:
        code, (_, bucket, _) = _code(error), _parts(path)
        if code == "NoSuchKey":
            raise FileNotFoundError(f"There is no file {path}.") from error
        if code == "NoSuchBucket" or "NoSuchBucket" in str(error):
            raise FlexsegError(
                f"{path}: there is no bucket {bucket}. Make it, or mend the path."
            ) from error
        if code == "PreconditionFailed":
            raise FlexsegError(
                f"{path} was changed while it was read. Run the same command again."
            ) from error
        raise FlexsegError(
            f"{path}: {_one_line(error)}. Check the bucket's name, the credentials "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and, where it is not "
            "Amazon's S3, AWS_ENDPOINT_URL_S3."
        ) from error


def _code(error: Exception) -> str | None:
    """S3's name for an error; None where it is not S3 that objects."""
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _parts(path: str) -> tuple[str, str, str]:
    """Scheme, bucket and name of a URL; the name is "" for the bucket itself."""
    found = _URL.fullmatch(path)
    assert found is not None, path
    return found[1], found[2], found[3]


def _folder_parts(path: str) -> tuple[str, str, str]:
    scheme, bucket, key = _parts(path)
    return scheme, bucket, key.rstrip("/") + "/" if key else ""


def _file_parts(path: str) -> tuple[str, str, str]:
    scheme, bucket, key = _parts(path)
    if not key:
        raise FlexsegError(f"{path} is a bucket; expected the path of something in it.")
    return scheme, bucket, key
