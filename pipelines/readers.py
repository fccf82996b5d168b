"""Any supported file -> pixels."""

from __future__ import annotations

import dataclasses
import os

import cv2
import numpy as np
from PIL import Image

from flexseg_errors import FlexsegError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm")

# Large images are what tiling is for; Pillow, which only reads headers here, would refuse them.
Image.MAX_IMAGE_PIXELS = None

_GRAY_MODES = {"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L"}
_EXIF_ORIENTATION = 274


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded. Sizes in pixels, as displayed."""

    height: int
    width: int
    channels: int  # 1 (gray) or 3


def is_image(name: str) -> bool:
    """Whether the file's suffix, in any case, is one that can be read."""
    return name.lower().endswith(SUFFIXES) and not os.path.basename(name).startswith(".")


def read_header(path: str) -> Header:
    """Reads a file's size without decoding it.

    Raises:
      FlexsegError: where the file is missing, empty, or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            channels = 1 if image.mode in _GRAY_MODES else 3
            if image.getexif().get(_EXIF_ORIENTATION, 1) >= 5:  # turned by a quarter
                width, height = height, width
    except Exception as error:  # Pillow raises whatever its plug-ins raise
        size = os.path.getsize(path) if os.path.exists(path) else None
        why = "is missing" if size is None else "is empty" if size == 0 else "is not a readable image"
        raise FlexsegError(f"{path} {why}.") from error
    return Header(height, width, channels)


def read_image(path: str, channels: int) -> np.ndarray:
    """Decodes an image.

    Args:
      path: the file.
      channels: 1 or 3; a gray image is repeated, an image with colours never reduced to gray.

    Returns:
      uint8 [H, W, channels], RGB.

    Raises:
      FlexsegError: where the file cannot be decoded to its end, or holds more than 8 bits.
    """
    pixels = _decode(path)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
        return np.repeat(pixels, channels, axis=-1) if channels > 1 else pixels
    if channels == 1:
        if (pixels == pixels[..., :1]).all():  # OpenCV makes three channels of gray with alpha
            return np.ascontiguousarray(pixels[..., :1])
        raise FlexsegError(f"{path} has colours; a gray image was expected.")
    return pixels


def read_mask(path: str) -> np.ndarray:
    """Decodes a mask in colours: uint8 [H, W] where it is gray, else [H, W, 3] RGB.

    Palette files come out in their palette's colours; transparency is dropped.
    """
    return _decode(path)


def _decode(path: str) -> np.ndarray:
    # Pillow and OpenCV both fill up what a truncated file lacks unless told otherwise; Pillow's
    # refusal is by exception, OpenCV's by a warning alone. So the end is checked by Pillow's rules.
    try:
        with open(path, "rb") as file:
            data = np.frombuffer(file.read(), np.uint8)
    except OSError as error:
        raise FlexsegError(f"{path} cannot be read: {error.strerror}.") from error
    if not data.size:
        raise FlexsegError(f"{path} is empty.")
    _refuse_truncated(path, data)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise FlexsegError(f"{path} cannot be decoded: {error.err}.") from error
    if pixels is None:
        raise FlexsegError(f"{path} is not a readable image.")
    if pixels.dtype != np.uint8:
        raise FlexsegError(
            f"{path} holds {pixels.dtype} values; only 8-bit images can be read. "
            "Map it to 8 bits first."
        )
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _refuse_truncated(path: str, data: np.ndarray) -> None:
    """JPEG and PNG end with a marker; OpenCV decodes what lacks it and leaves the rest gray."""
    head, tail = data[:8].tobytes(), data[-4096:].tobytes()
    cut = (head.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail) or (
        head.startswith(b"\x89PNG") and b"IEND" not in tail
    )
    if cut:
        raise FlexsegError(f"{path} is truncated: its end is missing.")
