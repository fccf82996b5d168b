"""A volume's file as its library gives it, and what the readers of all formats share."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from flexseg_errors import FlexsegError


@dataclasses.dataclass(frozen=True)
class VolumeFile:
    """An open file, before anything is asked of it.

    Attributes:
      format: as in `geometry.Geometry`.
      shape: sizes of the stored axes, of which there may be more than three.
      dtype: of the stored values.
      plane: `plane(axis, index)` is [first, second] of the other two axes.
      axis: along which slices are taken unless told.
      space: the fields of `geometry.Geometry` that say where the voxels lie.
      array: name of the array, where a file may hold several.
      close: lets go of the file.
    """

    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    plane: Callable[[int, int], np.ndarray]
    axis: int = 0
    space: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    array: str = ""
    close: Callable[[], None] = lambda: None


def library(name: str, path: str) -> Any:
    """Imports the optional library that reads a file.

    Raises:
      FlexsegError: where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FlexsegError(
            f"{path} is read by {name}, which is not installed. Install it with: "
            'pip install "flexseg[volumes]"'
        ) from error


@contextlib.contextmanager
def told_as_damage(path: str) -> Iterator[None]:
    """Turns what the libraries raise at a damaged file, whatever it is, into one message."""
    try:
        yield
    except (FlexsegError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno and error.strerror:
            raise FlexsegError(f"{path} cannot be read: {error.strerror}.") from error
        why = str(error).strip().partition("\n")[0][:200].rstrip(".") or type(error).__name__
        raise FlexsegError(
            f"{path} is truncated, damaged, or not what its name says ({why})."
        ) from error


def refuse_short(path: str, expected: int) -> None:
    """Refuses a file that holds fewer bytes than its header says."""
    size = os.path.getsize(path)
    if size < expected:
        raise FlexsegError(
            f"{path} is truncated: it holds {size} bytes, by its header it should be {expected}."
        )


def cut(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A view. `take` would first copy the whole of an array that is not in row order."""
    return np.moveaxis(array, axis, 0)[index]
