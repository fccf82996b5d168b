"""Masks and probabilities written row by row, for images that no memory holds as a whole.

Rows come from an iterator, from the top, some at a time; a file appears under its name when it is
whole, and not at all where the iterator fails.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np

from flexseg_errors import FlexsegError, nearest
from pipelines.label_map import LabelMap, colorize

PROBABILITIES_KEY = "probabilities"
FORMS = ("palette", "index", "rgb")
SUFFIXES = (".png", ".tif", ".npy")

Rows = Iterable[np.ndarray]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOR_TYPES = {"palette": 3, "index": 0, "rgb": 2}
_CHUNK_BYTES = 1 << 18
_TIFF_TILE = 256  # pixels
_BIG_TIFF_BYTES = 1 << 31  # from here on offsets of 32 bits may not do


def write_mask(
    path: str, size: tuple[int, int], rows: Rows, label_map: LabelMap, form: str = "palette"
) -> None:
    """Writes a mask in the format of its suffix.

    `.png` is compressed as it comes, each row whole. `.tif` is tiled and deflated, with the label
    map's colours as its colormap. `.npy` is an array of class ids.

    Args:
      path: a local file.
      size: (height, width) in pixels.
      rows: class ids uint8 [n, width], together `height` rows.
      label_map: gives the colours.
      form: of PNG and TIFF: "palette" (pixel value = class id, in the label map's colours), "index"
        (the same in gray), or "rgb".

    Raises:
      FlexsegError: the suffix or form is unknown.
    """
    suffix = os.path.splitext(path)[1].lower().replace(".tiff", ".tif")
    if suffix not in SUFFIXES:
        raise FlexsegError(f"{path}: masks are written by rows as {', '.join(SUFFIXES)} alone.")
    if form not in FORMS:
        raise FlexsegError(
            f'The mask form "{form}" is unknown; known are {", ".join(FORMS)}.'
            f"{nearest(form, FORMS)}"
        )
    palette = colorize(np.arange(256, dtype=np.uint8)[None], label_map)[0]
    if suffix != ".npy" and form == "rgb":
        rows = (palette[part] for part in rows)
    counted = _counted(rows, size, path)
    with _whole(path) as temporary:
        if suffix == ".png":
            with open(temporary, "wb") as file:
                _write_png(file, size, counted, form, palette)
        elif suffix == ".npy":
            with open(temporary, "wb") as file:
                _write_array(file, (*size,), np.dtype(np.uint8), counted)
        else:
            _write_tiff(temporary, size, counted, form, palette)


@contextlib.contextmanager
def probability_file(
    path: str, size: tuple[int, int], classes: int
) -> Iterator[Callable[[np.ndarray], None]]:
    """A `.npz` as `flexseg predict --probabilities` writes it, filled row by row.

    Args:
      path: a local file.
      size: (height, width) in pixels.
      classes: K.

    Yields:
      What takes the next rows, real numbers [n, width, K]; they are kept as float16 under the key
      `probabilities`, [height, width, K].
    """
    with (
        _whole(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(PROBABILITIES_KEY + ".npy", "w", force_zip64=True) as member,
    ):
        member.write(_array_header((*size, classes), np.dtype(np.float16)))

        def take(rows: np.ndarray) -> None:
            member.write(np.ascontiguousarray(rows, np.float16).tobytes())

        yield take


@contextlib.contextmanager
def _whole(path: str) -> Iterator[str]:
    """A name beside the path, which becomes the path if all goes well."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = path + ".tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def _counted(rows: Rows, size: tuple[int, int], path: str) -> Iterator[np.ndarray]:
    """The same rows; what is too much or too little is a mistake of ours, and no mask."""
    seen = 0
    for part in rows:
        seen += len(part)
        if part.shape[1] != size[1] or seen > size[0]:
            raise ValueError(
                f"{path}: rows of {part.shape[1]}, {seen} so far, for a mask of {size}."
            )
        yield np.ascontiguousarray(part, np.uint8)
    if seen != size[0]:
        raise ValueError(f"{path}: {seen} rows for a mask of {size}.")


def _write_png(
    file: BinaryIO, size: tuple[int, int], rows: Rows, form: str, palette: np.ndarray
) -> None:
    """A PNG of 8 bits as its specification (ISO/IEC 15948) has it; no row is filtered."""

    def chunk(name: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + name + data)
        file.write(struct.pack(">I", zlib.crc32(name + data)))

    file.write(_PNG_SIGNATURE)
    header = struct.pack(">IIBBBBB", size[1], size[0], 8, _PNG_COLOR_TYPES[form], 0, 0, 0)
    chunk(b"IHDR", header)
    if form == "palette":
        chunk(b"PLTE", palette.tobytes())
    stream, waiting = zlib.compressobj(), bytearray()
    for part in rows:
        flat = part.reshape(len(part), math.prod(part.shape[1:]))
        # Each row begins with the number of its filter, 0 for none.
        waiting += stream.compress(np.pad(flat, ((0, 0), (1, 0))).tobytes())
        if len(waiting) >= _CHUNK_BYTES:
            chunk(b"IDAT", bytes(waiting))
            waiting.clear()
    chunk(b"IDAT", bytes(waiting) + stream.flush())
    chunk(b"IEND", b"")


def _write_tiff(
    path: str, size: tuple[int, int], rows: Rows, form: str, palette: np.ndarray
) -> None:
    import tifffile

    samples = 3 if form == "rgb" else 1
    names = {"palette": "palette", "index": "minisblack", "rgb": "rgb"}
    with tifffile.TiffWriter(path, bigtiff=size[0] * size[1] * samples >= _BIG_TIFF_BYTES) as file:
        file.write(
            _tiles(rows, size[1]),
            shape=(*size, 3) if samples == 3 else size,
            dtype=np.uint8,
            tile=(_TIFF_TILE, _TIFF_TILE),
            photometric=names[form],
            colormap=palette.T.astype(np.uint16) * 257 if form == "palette" else None,
            compression="adobe_deflate",
            maxworkers=1,
            metadata=None,
        )


def _tiles(rows: Rows, width: int) -> Iterator[np.ndarray]:
    """Tiles of a TIFF from the top left, those at the edges filled up with zeros."""
    side = _TIFF_TILE
    for band in _bands(rows, side):
        rest = [(0, 0)] * (band.ndim - 2)
        band = np.pad(band, [(0, side - len(band)), (0, -width % side), *rest])
        for x in range(0, width, side):
            yield np.ascontiguousarray(band[:, x : x + side])


def _bands(rows: Rows, height: int) -> Iterator[np.ndarray]:
    """The same rows, that many at a time, and what is left."""
    held: list[np.ndarray] = []
    for part in rows:
        while len(part):
            room = height - sum(map(len, held))
            held.append(part[:room])
            part = part[room:]
            if sum(map(len, held)) == height:
                yield np.concatenate(held)
                held = []
    if held:
        yield np.concatenate(held)


def _write_array(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, rows: Rows) -> None:
    file.write(_array_header(shape, dtype))
    for part in rows:
        file.write(part.tobytes())


def _array_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """What a `.npy` file begins with."""
    header = io.BytesIO()
    description = np.lib.format.dtype_to_descr(dtype)
    content = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, content)
    return header.getvalue()
