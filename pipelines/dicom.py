"""DICOM files, one slice each, and the series that they make; read by pydicom."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flexseg_errors import FlexsegError
from pipelines.geometry import space_of_itk
from pipelines.volume_file import VolumeFile, cut, library, told_as_damage

SUFFIXES = (".dcm", ".dicom")
SIEMENS_SUFFIX = ".ima"  # also of other formats

_SAME_PLACE = 1e-3  # millimetres
_MARK = slice(128, 132)  # the bytes that say so
_INDEX = "dicomdir"  # lists files, holds no image


@dataclasses.dataclass(frozen=True)
class _Head:
    """What a DICOM file says of its slice. Places and distances in millimetres, LPS+."""

    path: str
    series: str
    rows: int
    columns: int
    place: np.ndarray | None  # [3], centre of the first pixel
    orientation: np.ndarray | None  # [2, 3], directions of a row and of a column
    number: int | None
    spacing: tuple[float, float] | None  # between rows, between columns
    thickness: float


def told_by_name(name: str) -> bool | None:
    """Whether a file is DICOM by its name alone; None where that takes a look into it.

    That is so of names without a suffix, with that of a UID (digits), and with `.ima`.
    """
    name = os.path.basename(name).lower()
    suffix = os.path.splitext(name)[1]
    if name == _INDEX or name.startswith("."):
        return False
    if suffix in SUFFIXES:
        return True
    return None if suffix in ("", SIEMENS_SUFFIX) or suffix[1:].isdigit() else False


def is_dicom(path: str) -> bool:
    """Whether a file on this machine is DICOM, by its name, or else by the mark that it carries."""
    told = told_by_name(path)
    if told is not None:
        return told
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(_MARK.stop)[_MARK] == b"DICM"
    return False


def files_of(folder: str) -> Iterator[str]:
    """The DICOM files directly in a folder on this machine, in the order of their names."""
    paths = (os.path.join(folder, name) for name in sorted(os.listdir(folder)))
    return (path for path in paths if os.path.isfile(path) and is_dicom(path))


def open_file(path: str) -> VolumeFile:
    """Opens one slice, or the folder of a series; held whole for slices across all files.

    Raises:
      FlexsegError: where a file is truncated, compressed, in colours or of several frames, where
        they are no single series or cannot be ordered, and where pydicom is not installed.
    """
    pydicom = library("pydicom", path)
    heads = []
    for file in files_of(path) if os.path.isdir(path) else [path]:
        with told_as_damage(file):
            heads.append(_head(pydicom, file))
    if not heads:
        raise FlexsegError(f"{path} holds no DICOM file.")
    heads = _in_order(path, heads)

    @functools.cache
    def whole() -> np.ndarray:
        return np.stack([_pixels(pydicom, head.path) for head in heads])

    def plane(axis: int, index: int) -> np.ndarray:
        if axis == 0:
            return _pixels(pydicom, heads[index].path)
        return cut(whole(), axis, index)  # across all files: it takes them all

    shape = (len(heads), heads[0].rows, heads[0].columns)
    return VolumeFile("dicom", shape, np.dtype(np.float64), plane, 0, _space(heads))


def _head(pydicom: Any, path: str) -> _Head:
    data = pydicom.dcmread(path, stop_before_pixels=True)
    if "Rows" not in data or "Columns" not in data:
        raise FlexsegError(f"{path} holds no image (or is truncated); expected DICOM slices.")
    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed:
        raise FlexsegError(
            f"{path} is compressed ({syntax.name}), which is not decoded here. Write it "
            "uncompressed first, for example with dcmdjpeg of DCMTK or gdcmconv --raw of GDCM."
        )
    kind = data.get("PhotometricInterpretation", "MONOCHROME2")
    if data.get("SamplesPerPixel", 1) != 1 or not kind.startswith("MONOCHROME"):
        raise FlexsegError(
            f"{path} holds colours ({kind}); expected one real number per pixel. Convert it to "
            "gray values, or write it as PNG."
        )
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise FlexsegError(
            f"{path} holds {data.NumberOfFrames} frames; expected one slice per file. Convert it "
            "to NIfTI, for example with dcm2niix."
        )
    number = data.get("InstanceNumber")
    spacing = data.get("PixelSpacing")
    return _Head(
        path,
        str(data.get("SeriesInstanceUID", "")),
        int(data.Rows),
        int(data.Columns),
        _numbers(data.get("ImagePositionPatient"), (3,)),
        _numbers(data.get("ImageOrientationPatient"), (2, 3)),
        None if number is None else int(number),
        (float(spacing[0]), float(spacing[1])) if spacing else None,
        float(data.get("SpacingBetweenSlices") or data.get("SliceThickness") or 1),
    )


def _pixels(pydicom: Any, path: str) -> np.ndarray:
    """One slice, [rows, columns], rescaled as its file says, larger values the brighter."""
    with told_as_damage(path):
        data = pydicom.dcmread(path)
        stored = data.pixel_array
        if data.get("PhotometricInterpretation") == "MONOCHROME1":  # larger values are darker
            signed = data.PixelRepresentation == 1
            stored = (-1 if signed else (1 << data.BitsStored) - 1) - stored.astype(np.int64)
        scale = data.get("RescaleSlope"), data.get("RescaleIntercept")
        if scale == (1, 0) and "ModalityLUTSequence" not in data:
            return stored  # which would become float64, and 8 bits no longer be seen as such
        return importlib.import_module("pydicom.pixels").apply_modality_lut(stored, data)


def _in_order(path: str, heads: list[_Head]) -> list[_Head]:
    """The slices of one series, from the first to the last along their normal.

    Raises:
      FlexsegError: where they are of several series, sizes or orientations, or cannot be ordered.
    """
    series = Counter(head.series for head in heads)
    if len(series) > 1:
        shown = ", ".join(f"{uid} ({count} files)" for uid, count in series.most_common(4))
        raise FlexsegError(
            f"{path} holds {len(series)} DICOM series: {shown}. Move each into a folder of its own."
        )
    first = heads[0]
    for head in heads:
        if (head.rows, head.columns) != (first.rows, first.columns):
            raise FlexsegError(
                f"{path}: {head.path} is {head.rows}x{head.columns}, {first.path} "
                f"{first.rows}x{first.columns}; the slices of a series have one size."
            )
    if len(heads) == 1:
        return heads
    positions = _positions(path, heads)
    ordered = sorted(zip(positions, heads, strict=True), key=lambda pair: pair[0])
    for (one, before), (other, after) in itertools.pairwise(ordered):
        if other - one < _SAME_PLACE:
            raise FlexsegError(
                f"{path}: {before.path} and {after.path} lie in the same place. Remove copies; "
                "write each time point or echo to a folder of its own."
            )
    return [head for _, head in ordered]


def _positions(path: str, heads: Sequence[_Head]) -> list[float]:
    """What to order slices by: millimetres along their normal, else their numbers."""
    axes = heads[0].orientation
    if axes is not None and all(head.place is not None for head in heads):
        for head in heads:
            if head.orientation is None or not np.allclose(head.orientation, axes, atol=1e-3):
                raise FlexsegError(
                    f"{path}: {head.path} is oriented otherwise than {heads[0].path}; move "
                    "localizers and other views into folders of their own."
                )
        return [float(np.cross(*axes) @ head.place) for head in heads]
    numbers = [float(head.number) for head in heads if head.number is not None]
    if len(numbers) < len(heads):
        missing = next(head.path for head in heads if head.number is None)
        raise FlexsegError(
            f"{path}: the order of its slices is unknown: {missing} has neither a place "
            "(ImagePositionPatient and ImageOrientationPatient) nor an InstanceNumber."
        )
    return numbers


def _space(heads: Sequence[_Head]) -> dict[str, Any]:
    """The fields of Geometry that say where voxels lie; none where the files do not say."""
    first = heads[0]
    if first.orientation is None or first.spacing is None:
        return {}
    normal = np.cross(*first.orientation)
    places = np.array([head.place for head in heads if head.place is not None])
    if len(places) < len(heads):
        return {}
    steps = np.diff(places, axis=0)
    distance = float((steps @ normal).mean()) if len(steps) else first.thickness
    row, column = first.orientation
    space = space_of_itk(
        (first.spacing[1], first.spacing[0], distance),
        places[0],
        np.stack([row, column, normal], axis=1).ravel(),
    )
    uniform = np.allclose(steps, distance * normal, atol=0.01 * distance + _SAME_PLACE)
    return {**space, "uniform": bool(uniform)}


def _numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    return np.array(list(map(float, values))).reshape(shape) if values else None
