"""Any supported file -> pixels."""

from __future__ import annotations

import dataclasses
import os

import cv2
import numpy as np
from PIL import Image, ImageOps

from flexseg_errors import FlexsegError
from pipelines import arrays, formats
from pipelines.intensity import Intensity

_PNM = (".pgm", ".ppm", ".pnm", *formats.GZIPPED_PNM_SUFFIXES)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".npy", *_PNM)
_ONE_HOT = ".npz"
_LOW_BIT_GRAY = {"L;2": 85, "L;4": 17}  # Pillow's factor from a sample of 2 or 4 bits to its gray

# Large images are what tiling is for; Pillow, which only reads headers here, would refuse them.
Image.MAX_IMAGE_PIXELS = None

_AS_IT_IS = Intensity()
_GRAY_MODES = {"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L"}
_EXIF_ORIENTATION = 274
_HEAD_BYTES = 1 << 16
_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded. Sizes in pixels, as displayed."""

    height: int
    width: int
    channels: int  # 1 (gray) or 3


def is_image(name: str) -> bool:
    """Whether the file's suffix, in any case, is one that can be read as an image."""
    return name.lower().endswith(SUFFIXES) and not os.path.basename(name).startswith(".")


def is_mask(name: str) -> bool:
    """Whether the file's suffix, in any case, is one that can be read as a mask."""
    return is_image(name) or is_one_hot(name)


def is_one_hot(name: str) -> bool:
    """Whether the file's suffix, in any case, is that of one-hot masks."""
    return name.lower().endswith(_ONE_HOT) and not os.path.basename(name).startswith(".")


def stem(name: str) -> str:
    """A file's name without its suffix; `.ppm.gz` and its like count as one."""
    if name.lower().endswith(formats.GZIPPED_PNM_SUFFIXES):
        name = name[: -len(".gz")]
    return os.path.splitext(name)[0]


def read_header(path: str) -> Header:
    """Reads a file's size without decoding it.

    Raises:
      FlexsegError: where the file is missing, empty, or not an image.
    """
    if path.lower().endswith(".npy"):
        shape = arrays.read_shape(path)
        if len(shape) not in (2, 3):
            raise FlexsegError(f"{path} is an array of {len(shape)} axes, not an image.")
        return Header(shape[0], shape[1], 3 if shape[2:] == (3,) else 1)
    try:
        if path.lower().endswith(formats.GZIPPED_PNM_SUFFIXES) and os.path.getsize(path):
            with open(path, "rb") as file:
                found = formats.pnm_header(file.read(_HEAD_BYTES), path)
            return Header(found.height, found.width, found.channels)
        with Image.open(path) as image:
            width, height = image.size
            channels = 1 if image.mode in _GRAY_MODES else 3
            # Not image.getexif(): of a PNG without it, that decodes the pixels to look behind them.
            exif = Image.Image.getexif(image)
            # Turned by a quarter; of TIFF, Pillow gives the size as displayed.
            if image.format != "TIFF" and exif.get(_EXIF_ORIENTATION, 1) >= 5:
                width, height = height, width
            formats.refuse_several_pages(image, path)
    except FlexsegError:
        raise
    except Exception as error:  # Pillow raises whatever its plug-ins raise
        size = os.path.getsize(path) if os.path.exists(path) else None
        why = (
            "is missing" if size is None else "is empty" if size == 0 else "is not a readable image"
        )
        raise FlexsegError(f"{path} {why}.") from error
    return Header(height, width, channels)


def read_image(
    path: str,
    channels: int,
    intensity: Intensity = _AS_IT_IS,
    max_pixels: int = formats.MAX_PIXELS,
) -> np.ndarray:
    """Decodes an image.

    Args:
      path: the file.
      channels: 1 or 3; a gray image is repeated, an image with colours never reduced to gray.
      intensity: how deeper values become 8-bit.
      max_pixels: the largest image that is decoded.

    Returns:
      uint8 [H, W, channels], RGB.

    Raises:
      FlexsegError: where the file cannot be decoded to its end, is too large, or holds more than 8
        bits and `intensity` does not say what they mean.
    """
    pixels = intensity.apply(_decode(path, max_pixels), path=path)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
        return np.repeat(pixels, channels, axis=-1) if channels > 1 else pixels
    if channels == 1:
        if (pixels == pixels[..., :1]).all():  # OpenCV makes three channels of gray with alpha
            return np.ascontiguousarray(pixels[..., :1])
        raise FlexsegError(f"{path} has colours; a gray image was expected.")
    return pixels


def read_mask(path: str, max_pixels: int = formats.MAX_PIXELS) -> np.ndarray:
    """Decodes a mask: uint8 [H, W] where it is gray, else [H, W, 3] RGB.

    Palette files come out in their palette's colours; transparency is dropped. One-hot masks
    (`.npz`) come out as class ids, with 255 where no class is.
    """
    if is_one_hot(path):
        return arrays.read_one_hot(path, max_pixels)
    pixels = _decode(path, max_pixels)
    if pixels.dtype != np.uint8:
        if pixels.min() < 0 or pixels.max() > 255 or (pixels != np.floor(pixels)).any():
            raise FlexsegError(
                f"{path} holds {pixels.dtype} values from {pixels.min():g} to {pixels.max():g}; "
                "expected whole numbers, 0 to 255."
            )
        pixels = pixels.astype(np.uint8)
    return pixels


def read_index(path: str, max_pixels: int = formats.MAX_PIXELS) -> np.ndarray:
    """Decodes a mask whose pixel values, not colours, are class ids: [H, W] of whole numbers.

    A palette's colours are not looked at.

    Raises:
      FlexsegError: where the file cannot be read, is a JPEG, or has colours.
    """
    if is_one_hot(path):
        return arrays.read_one_hot(path, max_pixels)
    if path.lower().endswith((".npy", *formats.GZIPPED_PNM_SUFFIXES)):
        pixels = _decode(path, max_pixels)
        form, mode, tiles = None, "", []
    else:
        try:
            # Of a path, Pillow 12 maps the pixels of a turned TIFF as if it were not turned.
            with open(path, "rb") as file, Image.open(file) as picture:
                form, mode = picture.format, picture.mode
                formats.check_pixels(picture.height, picture.width, max_pixels, path)
                formats.refuse_several_pages(picture, path)
                tiles = list(picture.tile)  # gone once the pixels are decoded
                ImageOps.exif_transpose(picture, in_place=True)  # as `read_image` gives its image
                pixels = np.asarray(picture)
        except FlexsegError:
            raise
        except Exception as error:  # Pillow raises whatever its plug-ins raise
            raise FlexsegError(f"{path} cannot be read as an image ({error}).") from error
    if form == "JPEG":
        raise FlexsegError(
            f"{path} is a JPEG, which does not keep pixel values exactly, so they are no class "
            "ids; read it as colors."
        )
    if mode in ("LA", "PA", "RGBA"):
        pixels = pixels[..., :-1]
    if pixels.ndim == 3:
        if not (pixels == pixels[..., :1]).all():
            raise FlexsegError(f"{path} has colors, not class ids; read it as colors.")
        pixels = pixels[..., 0]
    if mode == "L" and tiles:
        pixels = pixels // _LOW_BIT_GRAY.get(str(tiles[0][3]), 1)
    return pixels


def _decode(path: str, max_pixels: int) -> np.ndarray:
    """[H, W] or [H, W, 3] RGB, in the type that is stored."""
    if path.lower().endswith(".npy"):
        return arrays.read_image(path, max_pixels)
    # Pillow and OpenCV both fill up what a truncated file lacks unless told otherwise; Pillow's
    # refusal is by exception, OpenCV's by a warning alone. So the end is checked by Pillow's rules.
    try:
        with open(path, "rb") as file:
            data = np.frombuffer(file.read(), np.uint8)
    except OSError as error:
        raise FlexsegError(f"{path} cannot be read: {error.strerror}.") from error
    if not data.size:
        raise FlexsegError(f"{path} is empty.")
    if path.lower().endswith(_PNM):
        return formats.decode_pnm(data.tobytes(), path, max_pixels)
    _refuse_truncated(path, data)
    header = read_header(path)
    formats.check_pixels(header.height, header.width, max_pixels, path)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        more = " Set OPENCV_IO_MAX_IMAGE_PIXELS in the environment to a larger number."
        more = more if "MAX_IMAGE_PIXELS" in error.err else ""
        raise FlexsegError(f"{path} cannot be decoded: {error.err}.{more}") from error
    if pixels is None:
        raise FlexsegError(f"{path} is not a readable image.")
    if pixels.ndim == 3:  # to RGB, in place: a large image is not held twice
        for start in range(0, pixels.shape[0], _ROWS):
            block = pixels[start : start + _ROWS]
            block[:] = cv2.cvtColor(block, cv2.COLOR_BGR2RGB)
    return pixels


def _refuse_truncated(path: str, data: np.ndarray) -> None:
    """JPEG and PNG end with a marker; OpenCV decodes what lacks it and leaves the rest gray."""
    head, tail = data[:8].tobytes(), data[-4096:].tobytes()
    cut = (head.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail) or (
        head.startswith(b"\x89PNG") and b"IEND" not in tail
    )
    if cut:
        raise FlexsegError(f"{path} is truncated: its end is missing.")
