"""Volumes as stacks of slices: NIfTI, MetaImage, HDF5, `.npy` and DICOM, one slice in memory.

The libraries behind them are optional; each is imported when a file of its kind is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flexseg_errors import FlexsegError, nearest
from pipelines import arrays
from pipelines.formats import MAX_PIXELS, check_pixels

AXES = ("auto", "0", "1", "2")
ROTATIONS = (0, 90, 180, 270)

_NIFTI = (".nii", ".nii.gz")
_METAIMAGE = (".mha", ".mhd")
_HDF5 = (".h5", ".hdf5")
_DICOM = (".dcm", ".dicom")
SUFFIXES = _NIFTI + _METAIMAGE + _HDF5 + _DICOM

_DEFAULT_DATASET = "image"  # of an HDF5 file
_CHUNK_CACHE = 1 << 26  # bytes; HDF5's own 1 MiB unpacks a chunk of slices once for each of them
_SAME_PLACE = 1e-3  # millimetres

# LPS (x to the left, y to the back), of DICOM and ITK, to RAS, of NIfTI, and back.
_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where a volume's slices lie in its file, and where its voxels lie in space: plain data.

    Attributes:
      format: "nifti", "metaimage", "hdf5", "npy" or "dicom".
      shape: sizes of the three stored axes: (x, y, z) in NIfTI, (z, y, x) in MetaImage and DICOM,
        as stored in HDF5 and `.npy`.
      axis: the stored axis along which slices are taken.
      rotation: degrees by which each slice was turned counter-clockwise.
      affine: 4x4, voxel (x, y, z) -> millimetres in RAS+ (NIfTI's convention); None where the file
        does not say. So are the next three, which tell the same in the convention of DICOM and ITK.
      spacing: millimetres between voxels along x, y, z.
      origin: place of the first voxel, millimetres in LPS+.
      direction: 3x3 by rows; its columns are the directions of x, y, z in LPS+.
      uniform: whether the slices of a DICOM series follow one another straight along their normal
        at equal distances; where not (gaps, a tilted gantry), the spacing along z is the mean
        distance, and what is said of space holds only nearly.
    """

    format: str
    shape: tuple[int, int, int]
    axis: int
    rotation: int
    affine: tuple[tuple[float, ...], ...] | None = None
    spacing: tuple[float, ...] | None = None
    origin: tuple[float, ...] | None = None
    direction: tuple[float, ...] | None = None
    uniform: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Geometry:
        """The inverse of `to_dict`, also after a passage through JSON or YAML."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        if values.get("affine") is not None:
            values["affine"] = tuple(map(tuple, values["affine"]))
        return cls(**values)

    def restore(self, slices: Iterable[np.ndarray]) -> np.ndarray:
        """Puts slices back the way they are stored: the inverse of taking them.

        Args:
          slices: [H, W] each, as many and of the size that the volume gave; class ids, say.

        Returns:
          The stack in the stored axes and orientation, of the slices' type.

        Raises:
          FlexsegError: where the slices are too few, too many, or of another size.
        """
        planes = [np.rot90(turned, -self.rotation // 90) for turned in slices]
        size = _plane_shape(self.shape, self.axis)
        odd = {plane.shape for plane in planes} - {size}
        if len(planes) != self.shape[self.axis] or odd:
            raise FlexsegError(
                f"{len(planes)} slices{f', some of {odd.pop()},' if odd else ''} do not make a "
                f"volume that stores {self.shape[self.axis]} of {size}."
            )
        return np.stack(planes, self.axis)


@dataclasses.dataclass(frozen=True)
class Volume:
    """An open volume. Use it in a `with` statement, or call `close`.

    Attributes:
      path: the file, or the folder of a DICOM series.
      shape: (slices, H, W), as `slice` gives them.
      geometry: how to get from the slices back to the file and into space.
    """

    path: str
    shape: tuple[int, int, int]
    geometry: Geometry
    _plane: Callable[[int], np.ndarray] = dataclasses.field(repr=False, compare=False)
    _close: Callable[[], None] = dataclasses.field(repr=False, compare=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.slice(index) for index in range(len(self)))

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def slice(self, index: int) -> np.ndarray:
        """Reads one slice. Rising indices are the fast order where the file is compressed.

        Args:
          index: 0 to `shape[0]` - 1.

        Returns:
          [H, W] real numbers in the units of the file, scaled by what the file says of itself.

        Raises:
          FlexsegError: where the file is truncated or damaged there.
          IndexError: where there is no such slice.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has no slice {index}; it has {len(self)}.")
        with _told_as_damage(self.path):
            plane = self._plane(index)
        expected = _plane_shape(self.geometry.shape, self.geometry.axis)
        if plane.shape != expected:
            raise FlexsegError(
                f"{self.path}: slice {index} has the shape {plane.shape}; expected {expected}."
            )
        turned = np.rot90(plane, self.geometry.rotation // 90)
        return np.array(turned, dtype=_native(plane.dtype), order="C")  # never a view of the file

    def close(self) -> None:
        """Lets go of the file. No slice can be read afterwards."""
        self._close()


def is_volume(path: str) -> bool:
    """Whether a file is a volume by its suffix, in any case, or a folder holds DICOM files.

    A `.npy` file is looked into: three axes of which the last is no channel axis make a volume.
    What cannot be read is no volume.
    """
    name = os.path.basename(path).lower()
    if name.startswith("."):
        return False
    if name.endswith(arrays.IMAGE_SUFFIX):
        with contextlib.suppress(FlexsegError):
            shape = arrays.read_shape(path)
            return len(shape) == 3 and shape[2] not in arrays.CHANNELS
        return False
    if os.path.isdir(path):
        return any(_is_dicom(file) for file in _files(path))
    return name.endswith(SUFFIXES)


def stem(name: str) -> str:
    """A volume's name without its suffix, of which `.nii.gz` is one; a folder's name as it is."""
    for suffix in sorted((*SUFFIXES, arrays.IMAGE_SUFFIX), key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def open_volume(
    path: str,
    dataset: str | None = None,
    axis: str = "auto",
    rotation: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Volume:
    """Opens a volume and reads what it says of itself, but no slice.

    One slice at a time is in memory, but for zipped MetaImage, and for `.nii.gz` and DICOM along
    another axis than their own: these are held whole.

    Args:
      path: `.nii`, `.nii.gz`, `.mha`, `.mhd`, `.h5`, `.hdf5`, `.npy`, `.dcm`, or a folder that
        holds one DICOM series.
      dataset: name of the array in an HDF5 file; None takes the only one with three axes, or else
        the one called "image".
      axis: "0", "1" or "2": the stored axis along which slices are taken; "auto" takes the last
        of NIfTI (x, y, z), the first of everything else. A slice's rows are the first of the
        other two axes.
      rotation: 0, 90, 180 or 270 degrees by which each slice is turned counter-clockwise.
      max_pixels: the largest slice that is read.

    Returns:
      The open volume.

    Raises:
      FlexsegError: where the file is missing, truncated, of another kind, in colours, not of three
        axes; where DICOM is compressed or a folder holds no single series; and where the library
        for its format is not installed.
    """
    if str(axis) not in AXES:
        hint = nearest(str(axis), AXES)
        raise FlexsegError(f"--volume_axis={axis}: expected one of {', '.join(AXES)}.{hint}")
    if rotation not in ROTATIONS:
        known = ", ".join(map(str, ROTATIONS))
        raise FlexsegError(f"--volume_rotation={rotation}: expected one of {known} degrees.")
    if not os.path.exists(path):
        raise FlexsegError(f"{path} is missing.")
    if os.path.isfile(path) and not os.path.getsize(path):
        raise FlexsegError(f"{path} is empty.")
    with _told_as_damage(path):
        stored = _open(path, dataset)
    try:
        return _volume(path, stored, axis, rotation, max_pixels)
    except FlexsegError:
        stored.close()
        raise


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A file as its library gives it: `plane(axis, index)` is [first, second] of the other axes."""

    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    plane: Callable[[int, int], np.ndarray]
    axis: int = 0  # along which slices are taken unless told
    space: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # fields of Geometry
    close: Callable[[], None] = lambda: None


def _open(path: str, dataset: str | None) -> _Stored:
    name = path.lower()
    if os.path.isdir(path):
        return _open_dicom(path, [file for file in _files(path) if _is_dicom(file)])
    if name.endswith(_NIFTI):
        return _open_nifti(path)
    if name.endswith(_METAIMAGE):
        return _open_metaimage(path)
    if name.endswith(_HDF5):
        return _open_hdf5(path, dataset)
    if name.endswith(_DICOM):
        return _open_dicom(path, [path])
    if name.endswith(arrays.IMAGE_SUFFIX):
        array = arrays.load(path)
        return _Stored("npy", array.shape, array.dtype, functools.partial(_cut, array))
    known = ", ".join((*SUFFIXES, arrays.IMAGE_SUFFIX))
    raise FlexsegError(f"{path} is no volume; expected {known} or a folder of DICOM files.")


def _volume(path: str, stored: _Stored, axis: str, rotation: int, max_pixels: int) -> Volume:
    if stored.dtype.kind not in "buif":
        raise FlexsegError(
            f"{path} holds {_kind(stored.dtype)} voxels; expected one real number per voxel. "
            "Convert it to gray values first."
        )
    if len(stored.shape) != 3:
        raise FlexsegError(
            f"{path} has {len(stored.shape)} axes, {'x'.join(map(str, stored.shape))}; expected a "
            "volume of three. Write each time point or channel to a volume of its own."
        )
    along = stored.axis if axis == "auto" else int(axis)
    depth, (height, width) = stored.shape[along], _plane_shape(stored.shape, along)
    if rotation % 180:
        height, width = width, height
    check_pixels(height, width, max_pixels, path)
    if not depth:
        raise FlexsegError(f"{path} holds no slice.")
    shape = (stored.shape[0], stored.shape[1], stored.shape[2])
    return Volume(
        path,
        (depth, height, width),
        Geometry(stored.format, shape, along, rotation, **stored.space),
        functools.partial(stored.plane, along),
        stored.close,
    )


# ---- NIfTI -------------------------------------------------------------------------------------


def _open_nifti(path: str) -> _Stored:
    nibabel = _library("nibabel", path)
    image = nibabel.load(path, mmap="r")
    told = image.dataobj
    shape = told.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    zipped = path.lower().endswith(".gz")
    if not zipped:
        _refuse_short(path, told.offset + told.dtype.itemsize * int(np.prod(told.shape)))

    # A stream of our own, to be closed, and to stay where it is in a zipped file between slices.
    stream = nibabel.openers.ImageOpener(path)
    proxy = nibabel.arrayproxy.ArrayProxy(stream, (told.shape, told.dtype, told.offset, 1, 0))

    @functools.cache
    def whole() -> np.ndarray:  # mapped into memory where it is not zipped
        return (proxy if zipped else told).get_unscaled().reshape(shape, order="F")

    def plane(axis: int, index: int) -> np.ndarray:
        if zipped and axis == 2:  # slices as they lie in the file; all others would unzip it anew
            place = (slice(None), slice(None), index) + (0,) * (len(told.shape) - 3)
            stored = np.asarray(proxy[place])
        else:
            stored = _cut(whole(), axis, index)
        if zipped and index == shape[axis] - 1:
            stream.read(1)  # past the last voxel is the end, where the checksum is compared
        if (told.slope, told.inter) == (1, 0):
            return stored
        return stored.astype(np.float64) * told.slope + told.inter

    return _Stored(
        "nifti", shape, told.dtype, plane, 2, _space_of_affine(image.affine), stream.close
    )


def _space_of_affine(affine: np.ndarray) -> dict[str, Any]:
    """The fields of Geometry that say where voxels lie, by NIfTI's matrix."""
    lps = _LPS_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    space: dict[str, Any] = {"affine": tuple(tuple(map(float, row)) for row in affine)}
    if np.isfinite(lps).all() and spacing.all():  # else there are no directions
        space["spacing"] = tuple(map(float, spacing))
        space["origin"] = tuple(map(float, lps[:3, 3]))
        space["direction"] = tuple(map(float, (lps[:3, :3] / spacing).ravel()))
    return space


# ---- MetaImage ---------------------------------------------------------------------------------


def _open_metaimage(path: str) -> _Stored:
    sitk = _library("SimpleITK", path)
    fields, offset = _metaimage_header(path)
    zipped = fields.get("CompressedData", "").lower() == "true"
    data = fields["ElementDataFile"]
    if data == "LIST" or "%" in data:
        raise FlexsegError(
            f"{path} spreads its slices over several files; write it as one .mha file."
        )
    local = data == "LOCAL"
    data = path if local else os.path.join(os.path.dirname(path), data)
    if not os.path.exists(data):
        raise FlexsegError(f"{path}: its data file {data} is missing; the two belong together.")

    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.SetImageIO("MetaImageIO")
    reader.ReadImageInformation()
    size = reader.GetSize()
    if reader.GetNumberOfComponents() > 1:
        raise FlexsegError(
            f"{path} holds {reader.GetNumberOfComponents()} values per voxel (colours or vectors); "
            "expected one real number per voxel. Convert it to gray values first."
        )
    dtype = sitk.GetArrayFromImage(sitk.Image([1] * 3, reader.GetPixelID())).dtype
    bytes_stored = dtype.itemsize * int(np.prod(size))
    if zipped:
        bytes_stored = int(fields.get("CompressedDataSize", 0))
    _refuse_short(data, bytes_stored + (offset if local else 0))

    @functools.cache
    def whole() -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(path, imageIO="MetaImageIO"))

    def plane(axis: int, index: int) -> np.ndarray:
        if zipped:  # every slice would unzip the file anew
            return _cut(whole(), axis, index)
        start, extent = [0, 0, 0], list(size)
        start[2 - axis], extent[2 - axis] = index, 1
        reader.SetExtractIndex(start)
        reader.SetExtractSize(extent)
        return _cut(sitk.GetArrayFromImage(reader.Execute()), axis, 0)

    space = {}
    if len(size) == 3:
        space = _space_of_itk(reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    return _Stored("metaimage", tuple(size[::-1]), dtype, plane, 0, space)


def _metaimage_header(path: str) -> tuple[dict[str, str], int]:
    """The lines `Key = value`, and the number of bytes that they take."""
    fields, offset = {}, 0
    with open(path, "rb") as file:
        for line in file.read(1 << 16).splitlines(keepends=True):
            offset += len(line)
            key, _, value = line.decode("latin-1").partition("=")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile" and line.endswith((b"\n", b"\r")):
                return fields, offset
    raise FlexsegError(
        f"{path} is truncated or no MetaImage: its header has no line ElementDataFile."
    )


def _space_of_itk(
    spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> dict[str, Any]:
    """The fields of Geometry that say where voxels lie, as ITK and DICOM say it."""
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(direction, (3, 3)) * np.asarray(spacing)
    lps[:3, 3] = origin
    return {
        "affine": tuple(tuple(map(float, row)) for row in _LPS_RAS @ lps),
        "spacing": tuple(map(float, spacing)),
        "origin": tuple(map(float, origin)),
        "direction": tuple(map(float, direction)),
    }


# ---- HDF5 --------------------------------------------------------------------------------------


def _open_hdf5(path: str, dataset: str | None) -> _Stored:
    h5py = _library("h5py", path)
    file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)
    try:
        array = file[_hdf5_name(h5py, file, path, dataset)]
    except FlexsegError:
        file.close()
        raise

    def plane(axis: int, index: int) -> np.ndarray:
        place: list[Any] = [slice(None)] * 3
        place[axis] = index
        return array[tuple(place)]

    return _Stored("hdf5", array.shape, array.dtype, plane, close=file.close)


def _hdf5_name(h5py: Any, file: Any, path: str, dataset: str | None) -> str:
    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item.shape or ()

    file.visititems(visit)
    listed = ", ".join(f"{name} {shape}" for name, shape in list(found.items())[:8]) or "nothing"
    if dataset is not None:
        if dataset.strip("/") not in found:
            hint = nearest(dataset, found)
            raise FlexsegError(f'{path} has no array "{dataset}"; it holds {listed}.{hint}')
        return dataset
    volumes = [name for name, shape in found.items() if len(shape) == 3]
    if len(volumes) == 1:
        return volumes[0]
    if _DEFAULT_DATASET in found:
        return _DEFAULT_DATASET
    raise FlexsegError(
        f"{path} holds {listed}; say with --volume_dataset=NAME which is the volume (expected one "
        f'array of three axes, or one called "{_DEFAULT_DATASET}").'
    )


# ---- DICOM -------------------------------------------------------------------------------------


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


def _open_dicom(path: str, files: Sequence[str]) -> _Stored:
    pydicom = _library("pydicom", path)
    heads = []
    for file in files:
        with _told_as_damage(file):
            heads.append(_dicom_head(pydicom, file))
    if not heads:
        raise FlexsegError(f"{path} holds no DICOM file.")
    heads = _in_order(path, heads)

    @functools.cache
    def whole() -> np.ndarray:
        return np.stack([_dicom_pixels(pydicom, head.path) for head in heads])

    def plane(axis: int, index: int) -> np.ndarray:
        if axis == 0:
            return _dicom_pixels(pydicom, heads[index].path)
        return _cut(whole(), axis, index)  # across all files: it takes them all

    shape = (len(heads), heads[0].rows, heads[0].columns)
    return _Stored("dicom", shape, np.dtype(np.float64), plane, 0, _space_of_heads(heads))


def _dicom_head(pydicom: Any, path: str) -> _Head:
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


def _dicom_pixels(pydicom: Any, path: str) -> np.ndarray:
    """One slice, [rows, columns], rescaled as its file says, larger values the brighter."""
    with _told_as_damage(path):
        data = pydicom.dcmread(path)
        stored = data.pixel_array
        if data.get("PhotometricInterpretation") == "MONOCHROME1":  # larger values are darker
            signed = data.PixelRepresentation == 1
            stored = (-1 if signed else (1 << data.BitsStored) - 1) - stored.astype(np.int64)
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


def _space_of_heads(heads: Sequence[_Head]) -> dict[str, Any]:
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
    space = _space_of_itk(
        (first.spacing[1], first.spacing[0], distance),
        places[0],
        np.stack([row, column, normal], axis=1).ravel(),
    )
    uniform = np.allclose(steps, distance * normal, atol=0.01 * distance + _SAME_PLACE)
    return {**space, "uniform": bool(uniform)}


def _numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    return np.array(list(map(float, values))).reshape(shape) if values else None


def _is_dicom(path: str) -> bool:
    """By suffix; without one, or with that of a UID, by the mark that a DICOM file carries."""
    name = os.path.basename(path).lower()
    if name == "dicomdir":  # an index, not an image
        return False
    suffix = os.path.splitext(name)[1]
    if suffix in _DICOM:
        return True
    if suffix and suffix != ".ima" and not suffix[1:].isdigit():
        return False
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"
    return False


# ---- For all -----------------------------------------------------------------------------------


def _library(name: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FlexsegError(
            f"{path} is read by {name}, which is not installed. Install it with: "
            'pip install "flexseg[volumes]"'
        ) from error


@contextlib.contextmanager
def _told_as_damage(path: str) -> Iterator[None]:
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


def _refuse_short(path: str, expected: int) -> None:
    size = os.path.getsize(path)
    if size < expected:
        raise FlexsegError(
            f"{path} is truncated: it holds {size} bytes, by its header it should be {expected}."
        )


def _files(folder: str) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return [path for path in (os.path.join(folder, n) for n in names) if os.path.isfile(path)]


def _cut(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A view. `take` would first copy the whole of an array that is not in row order."""
    return np.moveaxis(array, axis, 0)[index]


def _plane_shape(shape: Sequence[int], axis: int) -> tuple[int, int]:
    """The sizes of the other two of three axes."""
    first, second = (size for i, size in enumerate(shape) if i != axis)
    return first, second


def _native(dtype: np.dtype) -> np.dtype:
    """The same numbers in this machine's byte order, at most float64."""
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype.newbyteorder("=")


def _kind(dtype: np.dtype) -> str:
    return "colour" if dtype.fields else str(dtype)
