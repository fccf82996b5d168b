"""Volumes as stacks of slices: NIfTI, MetaImage, HDF5, `.npy` and DICOM, one slice in memory.

The libraries behind them are optional; each is imported when a file of its kind is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from flexseg_errors import FlexsegError, nearest
from pipelines import arrays, dicom, hdf5, metaimage, nifti, readers, storage
from pipelines.formats import MAX_PIXELS, check_pixels
from pipelines.geometry import Geometry, plane_shape
from pipelines.volume_file import VolumeFile, cut, told_as_damage

AXES = ("auto", "0", "1", "2")
ROTATIONS = (0, 90, 180, 270)
SUFFIXES = nifti.SUFFIXES + metaimage.SUFFIXES + hdf5.SUFFIXES + dicom.SUFFIXES


@dataclasses.dataclass(frozen=True)
class Volume:
    """An open volume. Use it in a `with` statement, or call `close`.

    Attributes:
      path: the file, or the folder of a DICOM series.
      shape: (slices, H, W), as `slice` gives them.
      geometry: how to get from the slices back to the file and into space.
      array: name of the array in an HDF5 file; "" of other formats.
    """

    path: str
    shape: tuple[int, int, int]
    geometry: Geometry
    array: str
    _plane: Callable[[int, int], np.ndarray] = dataclasses.field(repr=False, compare=False)
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
        with told_as_damage(self.path):
            plane = self._plane(self.geometry.axis, index)
        expected = plane_shape(self.geometry.shape, self.geometry.axis)
        if plane.shape != expected:
            raise FlexsegError(
                f"{self.path}: slice {index} has the shape {plane.shape}; expected {expected}."
            )
        turned = np.rot90(plane, self.geometry.rotation // 90)
        return np.array(turned, dtype=_native(plane.dtype), order="C")  # never a view of the file

    def along(self, axis: int, rotation: int = 0) -> Volume:
        """The same open file, cut along the stored axis 0, 1 or 2; closing one closes both."""
        geometry = dataclasses.replace(self.geometry, axis=axis, rotation=rotation)
        return dataclasses.replace(self, shape=_shape(geometry), geometry=geometry)

    def close(self) -> None:
        """Lets go of the file. No slice can be read afterwards."""
        self._close()


def is_volume(path: str) -> bool:
    """Whether a file is a volume by its suffix, in any case, or a folder holds DICOM files.

    A `.npy` file is looked into: three axes of which the last is no channel axis make a volume.
    So are files without suffix, with that of a UID, or `.ima`: they may be DICOM. What cannot be
    read is no volume. Of what lies elsewhere (`s3://`), only `.npy` files are looked into.
    """
    name = os.path.basename(path.rstrip("/"))
    if name.startswith("."):
        return False
    if _is_volume_file(path):
        return True
    if not storage.is_remote(path):
        return any(dicom.files_of(path)) if os.path.isdir(path) else dicom.is_dicom(path)
    if readers.is_mask(name):  # spares images a request
        return False
    return _is_remote_dicom(name) or any(map(_is_remote_dicom, storage.names(path)))


def stem(name: str) -> str:
    """A volume's name without its suffix, of which `.nii.gz` is one; a folder's name as it is."""
    known = (*SUFFIXES, dicom.SIEMENS_SUFFIX, arrays.IMAGE_SUFFIX)
    for suffix in sorted(known, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def find_volumes(folder: str, files: Sequence[storage.File]) -> tuple[dict[str, str], set[str]]:
    """Tells the volumes among the files below a folder, by their names wherever these suffice.

    Where DICOM files lie decides what they are. Those directly in `folder` are images of their own,
    volumes of one slice: `images/a.dcm` has the stem "a". Those directly in a folder further below
    are together one series: `images/patient1/*.dcm` is one volume with the stem "patient1". What
    else lies in the folder of a series stands for itself.

    Files without suffix, with that of a UID (digits) or `.ima`, which may or may not be DICOM, are
    looked into, and so are `.npy` files, which may be images; elsewhere (`s3://`) `.ima` counts as
    DICOM and the other two do not.

    Args:
      folder: the folder that was walked.
      files: all files below it, as `storage.walk` gives them.

    Returns:
      Stem (path below the folder, "/" separated, without suffix) -> path of the file or of the
      series' folder, in the order of the stems; and the names of the files that these consist of,
      which are no images of their own.

    Raises:
      FlexsegError: where two volumes share a stem.
    """
    found: dict[str, str] = {}
    consumed: set[str] = set()
    is_dicom = _is_remote_dicom if storage.is_remote(folder) else dicom.is_dicom
    for file in files:
        parent = file.name.rpartition("/")[0]
        if is_dicom(file.path) and parent:
            name, path = parent, storage.join(folder, *parent.split("/"))
        elif is_dicom(file.path) or _is_volume_file(file.path):
            name, path = stem(file.name), file.path
        else:
            continue
        if found.setdefault(name, path) != path:
            raise FlexsegError(
                f'{found[name]} and {path} share the stem "{name}", so that it is not clear which '
                "is meant. Remove or rename one of them."
            )
        consumed.add(file.name)
    return {name: found[name] for name in sorted(found)}, consumed


def state(path: str) -> list:
    """`storage.state` of a volume with all its files: a series', and the data of a `.mhd` header.

    Returns:
      [bytes, version], plain data: another where a file's size or version is; [-1, -1] where there
      is no file.
    """
    single = storage.state(path)
    there = single[0] >= 0 and not os.path.isdir(path)
    if there and not path.lower().endswith(".mhd"):
        return single
    if there:
        base = os.path.splitext(path)[0]
        states = [single, *(storage.state(base + suffix) for suffix in metaimage.DATA_SUFFIXES)]
    else:
        states = [[file.size, file.version, file.name] for file in storage.walk(path)]
    if not states:
        return [-1, -1]
    digest = hashlib.sha256(json.dumps(states).encode()).hexdigest()
    return [sum(max(0, size) for size, *_ in states), digest[:32]]


def check_reading(axis: str, rotation: int) -> None:
    """Refuses an axis or a rotation that there is not, before any volume is opened."""
    if str(axis) not in AXES:
        hint = nearest(str(axis), AXES)
        raise FlexsegError(f"--volume_axis={axis}: expected one of {', '.join(AXES)}.{hint}")
    if rotation not in ROTATIONS:
        known = ", ".join(map(str, ROTATIONS))
        raise FlexsegError(f"--volume_rotation={rotation}: expected one of {known} degrees.")


def open_volume(
    path: str,
    dataset: str | None = None,
    axis: str = "auto",
    rotation: int = 0,
    max_pixels: int = MAX_PIXELS,
    role: str = "image",
) -> Volume:
    """Opens a volume on this machine and reads what it says of itself, but no slice.

    One slice at a time is in memory, but for zipped MetaImage, and for `.nii.gz` and DICOM along
    another axis than their own: these are held whole.

    Args:
      path: `.nii`, `.nii.gz`, `.mha`, `.mhd`, `.h5`, `.hdf5`, `.npy`, `.dcm`, or a folder that
        holds one DICOM series.
      dataset: name of the array in an HDF5 file; None takes the only one with three axes, or else
        the one called "image" (that is, like the role).
      axis: "0", "1" or "2": the stored axis along which slices are taken; "auto" takes the last
        of NIfTI (x, y, z), the first of everything else. A slice's rows are the first of the
        other two axes.
      rotation: 0, 90, 180 or 270 degrees by which each slice is turned counter-clockwise.
      max_pixels: the largest slice that is read.
      role: "image" or "mask": what is looked for in an HDF5 file.

    Returns:
      The open volume.

    Raises:
      FlexsegError: where the file is missing, truncated, of another kind, in colours, not of three
        axes; where DICOM is compressed or a folder holds no single series; and where the library
        for its format is not installed.
    """
    check_reading(axis, rotation)
    if not os.path.exists(path):
        raise FlexsegError(f"{path} is missing.")
    if os.path.isfile(path) and not os.path.getsize(path):
        raise FlexsegError(f"{path} is empty.")
    with told_as_damage(path):
        opened = _open(path, dataset, role)
    try:
        return _volume(path, opened, axis, rotation, max_pixels)
    except FlexsegError:
        opened.close()
        raise


def _open(path: str, dataset: str | None, role: str) -> VolumeFile:
    name = path.lower()
    if os.path.isdir(path):
        return dicom.open_file(path)
    if name.endswith(nifti.SUFFIXES):
        return nifti.open_file(path)
    if name.endswith(metaimage.SUFFIXES):
        return metaimage.open_file(path)
    if name.endswith(hdf5.SUFFIXES):
        return hdf5.open_file(path, dataset, role)
    if name.endswith(arrays.IMAGE_SUFFIX):
        array = arrays.load(path)
        return VolumeFile("npy", array.shape, array.dtype, functools.partial(cut, array))
    if dicom.is_dicom(path):
        return dicom.open_file(path)
    known = ", ".join((*SUFFIXES, arrays.IMAGE_SUFFIX))
    raise FlexsegError(f"{path} is no volume; expected {known} or a folder of DICOM files.")


def _volume(path: str, opened: VolumeFile, axis: str, rotation: int, max_pixels: int) -> Volume:
    if opened.dtype.kind not in "buif":
        raise FlexsegError(
            f"{path} holds {_kind(opened.dtype)} voxels; expected one real number per voxel. "
            "Convert it to gray values first."
        )
    if len(opened.shape) != 3:
        raise FlexsegError(
            f"{path} has {len(opened.shape)} axes, {'x'.join(map(str, opened.shape))}; expected a "
            "volume of three. Write each time point or channel to a volume of its own."
        )
    along = opened.axis if axis == "auto" else int(axis)
    stored = (opened.shape[0], opened.shape[1], opened.shape[2])
    geometry = Geometry(opened.format, stored, along, rotation, **opened.space)
    shape = _shape(geometry)
    check_pixels(shape[1], shape[2], max_pixels, path)
    if not shape[0]:
        raise FlexsegError(f"{path} holds no slice.")
    return Volume(path, shape, geometry, opened.array, opened.plane, opened.close)


def _shape(geometry: Geometry) -> tuple[int, int, int]:
    """Of the slices: (slices, H, W)."""
    height, width = plane_shape(geometry.shape, geometry.axis)
    if geometry.rotation % 180:
        height, width = width, height
    return geometry.shape[geometry.axis], height, width


def _array_shape(path: str) -> tuple[int, ...]:
    """The shape of a `.npy` array, here or elsewhere, by its header."""
    if not storage.is_remote(path):
        return arrays.read_shape(path)
    with storage.open_read(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            return read(file)[0]
        except ValueError as error:
            raise FlexsegError(f"{path} is truncated, damaged, or not a .npy file.") from error


def _is_volume_file(path: str) -> bool:
    name = os.path.basename(path).lower()
    if name.startswith("."):
        return False
    if name.endswith(arrays.IMAGE_SUFFIX):
        with contextlib.suppress(FlexsegError, FileNotFoundError):
            shape = _array_shape(path)
            return len(shape) == 3 and shape[2] not in arrays.CHANNELS
        return False
    return name.endswith(SUFFIXES)


def _is_remote_dicom(name: str) -> bool:
    """By the name alone: a look into it would be a request of its own."""
    told = dicom.told_by_name(name)
    return name.lower().endswith(dicom.SIEMENS_SUFFIX) if told is None else told


def _native(dtype: np.dtype) -> np.dtype:
    """The same numbers in this machine's byte order, at most float64."""
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype.newbyteorder("=")


def _kind(dtype: np.dtype) -> str:
    return "colour" if dtype.fields else str(dtype)
