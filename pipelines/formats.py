"""What the image formats need beyond a decoder: limits of size, pages, and PNM in its wrappings."""

from __future__ import annotations

import dataclasses
import re
import zlib

import cv2
import numpy as np
from PIL import Image

from flexseg_errors import FlexsegError

PNM_SUFFIXES = (".pbm", ".pgm", ".ppm", ".pnm")
GZIPPED_PNM_SUFFIXES = tuple(suffix + ".gz" for suffix in PNM_SUFFIXES)
MAX_PIXELS = 1_000_000_000

# A JPEG may carry a preview as a second picture; only these formats hold pages that are meant.
_PAGED = {"TIFF": "pages", "WEBP": "frames", "PNG": "frames"}

_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"  # what may stand between the numbers of a PNM header
_BITMAP = re.compile(rb"P([14])%b(\d{1,9})%b(\d{1,9})\s" % (_GAP, _GAP))
_GRAYMAP = re.compile(rb"P([2356])%b(\d{1,9})%b(\d{1,9})%b(\d{1,5})\s" % (_GAP, _GAP, _GAP))
_HEADER_BYTES = 1 << 16  # comments included
_GZIP = b"\x1f\x8b"


def check_pixels(height: int, width: int, max_pixels: int, path: str) -> None:
    """Refuses an image by its header, before its pixels take memory.

    Raises:
      FlexsegError: where the image is empty, or has more than `max_pixels` pixels.
    """
    if height < 1 or width < 1:
        raise FlexsegError(f"{path} is {height}x{width}: it holds no pixel.")
    if height * width > max_pixels:
        raise FlexsegError(
            f"{path} is {height}x{width}, {height * width:,} pixels; more than "
            f"--max_pixels={max_pixels} are not decoded, since a small file may unpack to more "
            "than the memory holds. If the file is trustworthy, raise --max_pixels."
        )


def refuse_several_pages(image: Image.Image, path: str) -> None:
    """Refuses what holds several images, of which a decoder would silently take the first.

    Args:
      image: the file as Pillow opened it; its pixels are not decoded.
      path: names the file in the error.

    Raises:
      FlexsegError: where a TIFF has several pages, or a WebP or PNG is animated.
    """
    count = getattr(image, "n_frames", 1)
    what = _PAGED.get(image.format or "")
    if what and count > 1:
        raise FlexsegError(
            f"{path} holds {count} {what}; one image per file was expected. Write each of the "
            f"{what} to a file of its own, or a stack of slices as one volume (NIfTI, MetaImage, "
            "HDF5 or .npy)."
        )


@dataclasses.dataclass(frozen=True)
class PnmHeader:
    """What a PNM file says of itself.

    Attributes:
      height: in pixels.
      width: in pixels.
      channels: 1 (gray, bitmap) or 3 (RGB).
      max_value: the value of white; up to 255 for 8 bits, up to 65535 for 16.
      plain: whether the values are written as text (P1 to P3).
      offset: bytes before the first value.
    """

    height: int
    width: int
    channels: int
    max_value: int
    plain: bool
    offset: int

    @property
    def end(self) -> int:
        """Bytes of the whole file where the values are binary, else the most that it may take."""
        values = self.height * self.width * self.channels
        if self.plain:
            return self.offset + 8 * values + _HEADER_BYTES  # five digits, gaps, comments
        if self.max_value == 1 and self.channels == 1:  # a bitmap, its rows padded to bytes
            return self.offset + max(values, self.height * -(-self.width // 8))
        return self.offset + values * (2 if self.max_value > 255 else 1)


def pnm_header(data: bytes, path: str) -> PnmHeader:
    """Reads the header of a PNM file, gzipped or not.

    Args:
      data: the file, or its first 64 KiB.
      path: names the file in an error.

    Raises:
      FlexsegError: where it is no PNM file (P1 to P6), or its header is damaged.
    """
    head = _inflate(data, _HEADER_BYTES, path) if data.startswith(_GZIP) else data[:_HEADER_BYTES]
    found = _GRAYMAP.match(head) or _BITMAP.match(head)
    if not found:
        raise FlexsegError(
            f"{path} is not a readable image: expected a PNM header, P1 to P6 with width, height "
            "and, but for bitmaps, the greatest value."
        )
    kind, width, height, *greatest = map(int, found.groups())
    max_value = greatest[0] if greatest else 1
    if not 1 <= max_value <= 65535:
        raise FlexsegError(f"{path}: its greatest value is {max_value}; expected 1 to 65535.")
    return PnmHeader(height, width, 3 if kind in (3, 6) else 1, max_value, kind < 4, found.end())


def decode_pnm(data: bytes, path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a PNM file, gzipped or not.

    Args:
      data: the whole file.
      path: names the file in an error.
      max_pixels: the largest image that is decoded.

    Returns:
      [H, W] gray or [H, W, 3] RGB; uint8, or uint16 where the greatest value is above 255. Binary
      values come out as they are stored, bitmaps as 0 (black) and 255.

    Raises:
      FlexsegError: where it is no PNM file, is truncated or damaged, or is too large.
    """
    header = pnm_header(data, path)
    check_pixels(header.height, header.width, max_pixels, path)
    if data.startswith(_GZIP):
        # One byte more than there should be, so that the end is met and its checksum compared.
        data = _inflate(data, header.end + 1, path, whole=True)
    if header.plain:
        data += b"\n"  # OpenCV wants a character after the last number
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None:
        raise FlexsegError(f"{path} is truncated or damaged: it does not hold all of its pixels.")
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _inflate(data: bytes, limit: int, path: str, whole: bool = False) -> bytes:
    """The first `limit` bytes of what was gzipped; `whole` refuses what ends before its end."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data, limit)
    except zlib.error as error:
        raise FlexsegError(f"{path} is damaged: it cannot be unzipped ({error}).") from error
    if whole and not stream.eof and len(inflated) < limit:
        raise FlexsegError(f"{path} is truncated: its end is missing.")
    return inflated
