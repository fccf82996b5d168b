"""NIfTI files, read by nibabel."""

from __future__ import annotations

import functools

import numpy as np

from pipelines.geometry import space_of_affine
from pipelines.volume_file import VolumeFile, cut, library, refuse_short

SUFFIXES = (".nii", ".nii.gz")

_REWINDS = 2  # a pass over all slices, perhaps two; more are slices in falling order


def open_file(path: str) -> VolumeFile:
    """Opens a NIfTI file.

    Zipped ones are held whole for slices along another axis than the last, and once slices were
    asked for in another order than the rising one: each step back unzips the file anew.

    Raises:
      FlexsegError: where it is truncated, or nibabel is not installed; nibabel's own errors else.
    """
    nibabel = library("nibabel", path)
    image = nibabel.load(path, mmap="r")
    told = image.dataobj
    shape = told.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    zipped = path.lower().endswith(".gz")
    if not zipped:
        refuse_short(path, told.offset + told.dtype.itemsize * int(np.prod(told.shape)))

    # A stream of our own, to be closed, and to stay where it is in a zipped file between slices.
    stream = nibabel.openers.ImageOpener(path)
    proxy = nibabel.arrayproxy.ArrayProxy(stream, (told.shape, told.dtype, told.offset, 1, 0))

    @functools.cache
    def whole() -> np.ndarray:  # mapped into memory where it is not zipped
        return (proxy if zipped else told).get_unscaled().reshape(shape, order="F")

    last = rewinds = 0

    def plane(axis: int, index: int) -> np.ndarray:
        nonlocal last, rewinds
        rewinds += index < last
        last = index
        if zipped and axis == 2 and rewinds <= _REWINDS:  # as they lie in the file
            place = (slice(None), slice(None), index) + (0,) * (len(told.shape) - 3)
            stored = np.asarray(proxy[place])
        else:
            stored = cut(whole(), axis, index)
        if zipped and index == shape[axis] - 1:
            stream.read(1)  # past the last voxel is the end, where the checksum is compared
        if (told.slope, told.inter) == (1, 0):
            return stored
        return stored.astype(np.float64) * told.slope + told.inter

    header = getattr(image, "nifti_header", image.header)  # CIFTI keeps it under another name
    space = space_of_affine(image.affine)
    space["assumed"] = not (header["sform_code"] or header["qform_code"])
    return VolumeFile("nifti", shape, told.dtype, plane, 2, space, close=stream.close)
