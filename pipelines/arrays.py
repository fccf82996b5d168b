"""NumPy's files: images as `.npy`, one-hot masks as `.npz`. Nothing in them is unpickled."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from flexseg_errors import FlexsegError
from pipelines.formats import MAX_PIXELS, check_pixels
from pipelines.label_map import IGNORE_ID, MAX_CLASSES

IMAGE_SUFFIX = ".npy"
ONE_HOT_SUFFIX = ".npz"
ONE_HOT_KEY = "mask"
CHANNELS = (1, 3)  # a last axis of another length is no channel axis

_REAL = "buif"  # NumPy's letters for booleans, integers and floats


def read_shape(path: str) -> tuple[int, ...]:
    """The shape of a `.npy` array, by its header alone.

    Raises:
      FlexsegError: where the file is missing, is no `.npy` file, is truncated, or holds objects.
    """
    return load(path).shape


def load(path: str) -> np.ndarray:
    """Maps a `.npy` array of real numbers into memory: what is not looked at is not read.

    Returns:
      The array, of any shape, read-only.

    Raises:
      FlexsegError: where the file is missing, is no `.npy` file, is truncated, or holds anything
        but real numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FlexsegError(_why_unreadable(path, "a .npy file", error)) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise FlexsegError(f"{path} holds several arrays; expected a .npy file, which holds one.")
    if array.dtype.kind not in _REAL:
        raise FlexsegError(f"{path} holds {array.dtype} values; expected real numbers.")
    return array


def read_image(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads an image that was saved as an array.

    Args:
      path: a `.npy` file of [H, W], [H, W, 1] or [H, W, 3] (RGB) real numbers.
      max_pixels: the largest image that is read.

    Returns:
      [H, W] or [H, W, 3], in the type that is stored, in this machine's byte order.

    Raises:
      FlexsegError: where the file cannot be read, or has another shape.
    """
    array = load(path)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        raise FlexsegError(
            f"{path} has the shape {_shape(array.shape)}; expected an image, [H, W], [H, W, 1] or "
            "[H, W, 3]."
        )
    check_pixels(array.shape[0], array.shape[1], max_pixels, path)
    pixels = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return pixels[..., 0] if pixels.shape[2:] == (1,) else pixels


def read_one_hot(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a one-hot mask: each pixel gets the class of its greatest channel, ties the lowest.

    Args:
      path: a `.npz` file with the array `mask`, [H, W, K] real numbers, K at least 2.
      max_pixels: the largest mask that is read.

    Returns:
      uint8 [H, W] of class ids. A pixel whose channels are all 0 belongs to no class and becomes
      255, to be ignored.

    Raises:
      FlexsegError: where the file cannot be read, has no such array, or one of another shape.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            one_hot = _member(archive, path, max_pixels)
    except FlexsegError:
        raise
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise FlexsegError(_why_unreadable(path, "a .npz file", error)) from error
    if not np.isfinite(one_hot).all():
        raise FlexsegError(f'{path}: its array "{ONE_HOT_KEY}" holds values that are not finite.')
    ids = one_hot.argmax(-1).astype(np.uint8)
    ids[~one_hot.any(-1)] = IGNORE_ID
    return ids


def _member(archive: zipfile.ZipFile, path: str, max_pixels: int) -> np.ndarray:
    """The array `mask`, refused by its header where its size or type will not do."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if ONE_HOT_KEY not in names:
        raise FlexsegError(
            f'{path} has no array "{ONE_HOT_KEY}"; it holds {", ".join(names[:8]) or "nothing"}. '
            f"Save one-hot masks as numpy.savez_compressed(path, {ONE_HOT_KEY}=array)."
        )
    with archive.open(ONE_HOT_KEY + ".npy") as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):  # later ones only serve names of fields
            raise ValueError(f"version {version} of the .npy format")
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
    if dtype.kind not in _REAL:
        raise FlexsegError(f'{path}: its array "{ONE_HOT_KEY}" holds {dtype}; expected numbers.')
    if len(shape) != 3 or not 2 <= shape[2] <= MAX_CLASSES:
        raise FlexsegError(
            f'{path}: its array "{ONE_HOT_KEY}" has the shape {_shape(shape)}; expected [H, W, K] '
            f"with a channel for each of 2 to {MAX_CLASSES} classes, background included."
        )
    check_pixels(shape[0], shape[1], max_pixels, path)
    with archive.open(ONE_HOT_KEY + ".npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _why_unreadable(path: str, what: str, error: Exception) -> str:
    if not os.path.exists(path):
        return f"{path} is missing."
    if not os.path.getsize(path):
        return f"{path} is empty."
    if "pickle" in str(error) or "Python objects" in str(error):
        return f"{path} holds Python objects or is not {what}; expected an array of real numbers."
    return f"{path} is truncated, damaged, or not {what} ({error})."
