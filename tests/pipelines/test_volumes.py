"""A volume's slices are the stored array's, in its units, and lead back to it and into space."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import intensity, storage, volumes

# No two axes alike, no symmetry, values below zero and above 8 bits.
STORED = np.random.default_rng(0).integers(-1000, 3000, (5, 7, 11), dtype=np.int16)
# Oblique, anisotropic, off centre: what a mistake in any axis would show in.
ANGLE = np.deg2rad(20)
TURN = np.array(
    [[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1.0]]
) @ np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]])
SPACING, ORIGIN = (0.5, 0.75, 3.0), (-10.0, 20.0, 30.0)
AFFINE = np.vstack([np.column_stack([TURN * SPACING, ORIGIN]), [0, 0, 0, 1]])


# What a DICOM file begins with; no more is looked at to know it for one.
MARKED = bytes(128) + b"DICM"


def optional(name: str) -> Any:
    return pytest.importorskip(name, reason=f'{name} comes with pip install "flexseg[volumes]"')


def write_nifti(path: Path, array: np.ndarray) -> None:
    nibabel = optional("nibabel")
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


def write_metaimage(path: Path, array: np.ndarray, compress: bool = False) -> None:
    sitk = optional("SimpleITK")
    image = sitk.GetImageFromArray(array)
    if array.ndim == 3:
        image.SetSpacing(SPACING)
        image.SetOrigin(ORIGIN)
        image.SetDirection(TURN.ravel())
    sitk.WriteImage(image, str(path), compress)


def write_hdf5(path: Path, array: np.ndarray, **how: Any) -> None:
    with optional("h5py").File(path, "w") as file:
        file.create_dataset("scan/ct", data=array, **how)


def write_series(folder: Path, array: np.ndarray) -> None:
    """[slices, rows, columns] as DICOM files whose names are in the order of the slices."""
    sitk = optional("SimpleITK")
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for i, pixels in enumerate(array):
        image = sitk.GetImageFromArray(pixels[None])
        image.SetSpacing(SPACING)
        image.SetOrigin(np.array(ORIGIN) + i * SPACING[2] * TURN[:, 2])
        image.SetDirection(TURN.ravel())
        image.SetMetaData("0008|0060", "CT")
        image.SetMetaData("0020|000e", "1.2.3")
        writer.SetFileName(str(folder / f"{i:03}.dcm"))
        writer.Execute(image)


# Name -> how it is written, and the axis of its slices unless told.
FORMATS: dict[str, tuple[Callable[[Path, np.ndarray], None], int]] = {
    "a.nii": (write_nifti, 2),
    "a.nii.gz": (write_nifti, 2),
    "a.mha": (write_metaimage, 0),
    "zipped.mha": (lambda path, array: write_metaimage(path, array, compress=True), 0),
    "a.mhd": (write_metaimage, 0),
    "a.h5": (write_hdf5, 0),
    "chunked.hdf5": (lambda p, a: write_hdf5(p, a, chunks=(2, 3, 4), compression="gzip"), 0),
    "a.npy": (np.save, 0),
    "series": (write_series, 0),
}
FILES = [name for name in FORMATS if name != "series"]


@pytest.mark.parametrize("rotation", volumes.ROTATIONS)
@pytest.mark.parametrize("axis", volumes.AXES)
@pytest.mark.parametrize("name", FORMATS)
def test_slices_are_those_of_the_stored_array_and_lead_back_to_it(tmp_path, name, axis, rotation):
    write, default = FORMATS[name]
    write(tmp_path / name, STORED)
    along = default if axis == "auto" else int(axis)
    with volumes.open_volume(str(tmp_path / name), axis=axis, rotation=rotation) as volume:
        expected = [np.rot90(plane, rotation // 90) for plane in np.moveaxis(STORED, along, 0)]
        assert volume.shape == (len(expected), *expected[0].shape)
        assert len(volume) == STORED.shape[along]
        for index in (*range(len(volume)), 0):  # and back to the first
            found = volume.slice(index)
            assert found.flags.c_contiguous
            assert found.dtype.isnative
            assert found.shape == expected[index].shape
            assert (found == expected[index]).all()
            found[:] = 0  # and what is done to a slice is not done to the volume
        assert volume.geometry.shape == STORED.shape
        assert (volume.geometry.restore(volume) == STORED).all()


@pytest.mark.parametrize("name", FORMATS)
def test_there_is_no_slice_beyond_the_last_nor_before_the_first(tmp_path, name):
    FORMATS[name][0](tmp_path / name, STORED)
    with volumes.open_volume(str(tmp_path / name)) as volume:
        for index in (-1, len(volume)):
            with pytest.raises(IndexError, match="has no slice"):
                volume.slice(index)


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "u2", "i4", "<f4", ">f4", "f8"])
@pytest.mark.parametrize("name", FILES)
def test_stored_types_are_kept_in_the_byte_order_of_the_machine(tmp_path, name, dtype):
    array = (STORED % 256).astype(dtype)
    if name.endswith(("mha", "mhd")):  # SimpleITK writes in the byte order of the machine alone
        array = array.astype(array.dtype.newbyteorder("="))
    FORMATS[name][0](tmp_path / name, array)
    with volumes.open_volume(str(tmp_path / name), axis="0") as volume:
        assert volume.slice(1).dtype == array.dtype.newbyteorder("=")
        assert (volume.slice(1) == array[1]).all()


@pytest.mark.parametrize("slope", [2, 0.3])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_values_are_scaled_by_their_header_along_every_axis(tmp_path, suffix, slope):
    nibabel = optional("nibabel")
    image = nibabel.Nifti1Image(STORED, AFFINE)
    image.header.set_slope_inter(slope, -1024)
    nibabel.save(image, tmp_path / f"a{suffix}")
    real = nibabel.load(tmp_path / f"a{suffix}").get_fdata()
    np.testing.assert_allclose(real, slope * STORED - 1024.0, rtol=1e-6)
    for axis in range(3):
        with volumes.open_volume(str(tmp_path / f"a{suffix}"), axis=str(axis)) as volume:
            assert (volume.slice(2) == real.take(2, axis)).all()


def test_slices_in_falling_order_do_not_unzip_the_file_for_each(tmp_path, monkeypatch):
    write_nifti(tmp_path / "a.nii.gz", STORED)
    rewinds = []
    rewind = gzip._GzipReader._rewind
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda r: (rewinds.append(r), rewind(r)))
    with volumes.open_volume(str(tmp_path / "a.nii.gz")) as volume:
        for index in reversed(range(len(volume))):
            assert (volume.slice(index) == STORED[:, :, index]).all()
    assert len(rewinds) <= 4 < len(volume) - 1


def test_nifti_of_one_time_point_is_a_volume(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", STORED[..., None])
    for axis in range(3):
        with volumes.open_volume(str(tmp_path / "a.nii.gz"), axis=str(axis)) as volume:
            assert (volume.slice(3) == STORED.take(3, axis)).all()


def test_the_old_generators_slices_are_auto_turned_by_90_degrees(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", STORED)
    with volumes.open_volume(str(tmp_path / "a.nii.gz"), rotation=90) as volume:
        for i, found in enumerate(volume):
            assert (found == np.rot90(STORED[:, :, i])).all()


@pytest.mark.parametrize("name", FORMATS)
def test_an_open_volume_can_be_cut_along_other_axes(tmp_path, name):
    FORMATS[name][0](tmp_path / name, STORED)
    with volumes.open_volume(str(tmp_path / name)) as volume:
        for axis, rotation in ((2, 0), (0, 90), (1, 270)):
            other = volume.along(axis, rotation)
            assert other.shape[0] == STORED.shape[axis]
            assert other.slice(3).shape == other.shape[1:]
            assert (other.slice(3) == np.rot90(STORED.take(3, axis), rotation // 90)).all()
            assert (other.geometry.restore(other) == STORED).all()


@pytest.mark.parametrize("name", FORMATS)
def test_limits_are_taken_over_the_whole_volume(tmp_path, name):
    FORMATS[name][0](tmp_path / name, STORED)
    with volumes.open_volume(str(tmp_path / name), axis="1") as volume:
        assert intensity.parse("minmax").limits(volume) == (STORED.min(), STORED.max())
        limits = intensity.parse("percentile:1,99").limits(volume)
        np.testing.assert_allclose(limits, np.percentile(STORED, [1, 99]), rtol=1e-12)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.h5", "a.npy"])
def test_one_slice_at_a_time_is_in_memory(tmp_path, name):
    slices = np.zeros((64, 64, 400) if name.startswith("a.nii") else (400, 64, 64), np.int16)
    FORMATS[name][0](tmp_path / name, slices)
    with volumes.open_volume(str(tmp_path / name)) as volume:
        volume.slice(0)
        tracemalloc.start()
        total = sum(int(found.sum()) for found in volume)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert total == 0
    assert peak < slices.nbytes / 4


# ---- Space -------------------------------------------------------------------------------------


def itk_space(image: Any) -> tuple[np.ndarray, ...]:
    return tuple(map(np.array, (image.GetSpacing(), image.GetOrigin(), image.GetDirection())))


def assert_same_space(geometry: volumes.Geometry, image: Any) -> None:
    ours = (geometry.spacing, geometry.origin, geometry.direction)
    for found, expected in zip(ours, itk_space(image), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_nifti_label_volume_can_be_written_back(tmp_path):
    nibabel = optional("nibabel")
    write_nifti(tmp_path / "a.nii.gz", STORED)
    with volumes.open_volume(str(tmp_path / "a.nii.gz"), rotation=270) as volume:
        labels = volume.geometry.restore((s > 0).astype(np.uint8) for s in volume)
        affine = np.array(volume.geometry.affine)
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    written = nibabel.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(written.affine, nibabel.load(tmp_path / "a.nii.gz").affine)
    assert (np.asarray(written.dataobj) == (STORED > 0)).all()


def test_a_metaimage_label_volume_can_be_written_back(tmp_path):
    sitk = optional("SimpleITK")
    write_metaimage(tmp_path / "a.mha", STORED)
    with volumes.open_volume(str(tmp_path / "a.mha"), axis="1", rotation=90) as volume:
        labels = sitk.GetImageFromArray(volume.geometry.restore(s > 0 for s in volume).astype("u1"))
        labels.SetSpacing(volume.geometry.spacing)
        labels.SetOrigin(volume.geometry.origin)
        labels.SetDirection(volume.geometry.direction)
    image = sitk.ReadImage(str(tmp_path / "a.mha"))
    for found, expected in zip(itk_space(labels), itk_space(image), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (sitk.GetArrayFromImage(labels) == (sitk.GetArrayFromImage(image) > 0)).all()


def test_nifti_and_metaimage_of_one_scan_lie_in_one_place(tmp_path):
    nibabel, sitk = optional("nibabel"), optional("SimpleITK")
    write_metaimage(tmp_path / "a.mha", STORED)
    image = sitk.ReadImage(str(tmp_path / "a.mha"))
    sitk.WriteImage(image, str(tmp_path / "a.nii"))  # the conversion is ITK's, not ours
    for name in ("a.mha", "a.nii"):
        with volumes.open_volume(str(tmp_path / name)) as volume:
            assert_same_space(volume.geometry, image)
            affine = nibabel.load(tmp_path / "a.nii").affine
            np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_geometry_survives_json(tmp_path, name):
    FORMATS[name][0](tmp_path / name, STORED)
    with volumes.open_volume(str(tmp_path / name), rotation=90) as volume:
        data = json.loads(json.dumps(volume.geometry.to_dict()))
        assert volumes.Geometry.from_dict(data) == volume.geometry


@pytest.mark.parametrize("count", [0, 4, 6])
def test_slices_that_do_not_fill_the_volume_are_refused(count):
    geometry = volumes.Geometry("npy", STORED.shape, 0, 90)
    with pytest.raises(FlexsegError, match=rf"{count} slices do not make a volume that stores 5"):
        geometry.restore([np.zeros((11, 7))] * count)
    with pytest.raises(FlexsegError, match=r"5 slices, some of \(11, 7\), do not make"):
        geometry.restore([np.zeros((7, 11))] * 5)


# ---- What is refused ---------------------------------------------------------------------------


def read_all(path: Path) -> None:
    with volumes.open_volume(str(path)) as volume:
        for _ in volume:
            pass


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_by_name(tmp_path, name, share):
    noise = np.random.default_rng(1).integers(-1000, 1000, (16, 16, 16), dtype=np.int16)
    FORMATS[name][0](tmp_path / name, noise)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FlexsegError, match=rf"{name}.* is (truncated|missing)"):
        read_all(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"no volume at all " * 99], ids=["empty", "text"])
@pytest.mark.parametrize("name", [*FILES, "a.dcm"])
def test_what_is_no_volume_is_refused_by_name(tmp_path, name, content):
    if name != "a.npy":  # the message about a library that is missing is another
        optional({"nii": "nibabel", ".gz": "nibabel", "mha": "SimpleITK", "mhd": "SimpleITK",
                  ".h5": "h5py", "df5": "h5py", "dcm": "pydicom"}[name[-3:]])  # fmt: skip
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FlexsegError, match=rf"{name} (is empty|is truncated|holds Python objects)"):
        read_all(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.h5", "a.npy"])
def test_four_axes_are_refused_with_their_sizes(tmp_path, name):
    array = np.zeros((2, 3, 4, 5), np.int16)
    if name.endswith(("mha", "mhd")):
        sitk = optional("SimpleITK")
        image = sitk.JoinSeries([sitk.GetImageFromArray(part) for part in array])
        sitk.WriteImage(image, str(tmp_path / name))
    else:
        FORMATS[name][0](tmp_path / name, array)
    dataset = "scan/ct" if name == "a.h5" else None
    with pytest.raises(FlexsegError, match=rf"{name} has 4 axes, 2x3x4x5; expected a volume"):
        volumes.open_volume(str(tmp_path / name), dataset)


def test_two_axes_of_an_array_are_no_volume(tmp_path):
    np.save(tmp_path / "a.npy", STORED[0])
    with pytest.raises(FlexsegError, match=r"a.npy has 2 axes, 7x11; expected a volume of three"):
        volumes.open_volume(str(tmp_path / "a.npy"))


def test_colors_and_complex_numbers_are_refused(tmp_path):
    colors = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    write_nifti(tmp_path / "a.nii", colors)
    with pytest.raises(FlexsegError, match=r"a.nii holds colour voxels; expected one real number"):
        volumes.open_volume(str(tmp_path / "a.nii"))
    write_nifti(tmp_path / "c.nii", np.zeros((3, 4, 5), np.complex64))
    with pytest.raises(FlexsegError, match=r"c.nii holds complex64 voxels"):
        volumes.open_volume(str(tmp_path / "c.nii"))


def test_colors_in_metaimage_are_refused(tmp_path):
    sitk = optional("SimpleITK")
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    with pytest.raises(FlexsegError, match=r"a.mha holds 3 values per voxel \(colours"):
        volumes.open_volume(str(tmp_path / "a.mha"))


def test_a_metaimage_header_without_its_data_is_refused(tmp_path):
    write_metaimage(tmp_path / "a.mhd", STORED)
    (tmp_path / "a.raw").rename(tmp_path / "b.raw")
    with pytest.raises(FlexsegError, match=r"a.mhd: its data file .*a.raw is missing"):
        volumes.open_volume(str(tmp_path / "a.mhd"))
    text = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(text.replace("a.raw", "a%03d.raw 0 4 1"))
    with pytest.raises(FlexsegError, match=r"a.mhd spreads its slices over several files"):
        volumes.open_volume(str(tmp_path / "a.mhd"))


def test_the_array_of_an_hdf5_file_is_found_or_asked_for(tmp_path):
    path = str(tmp_path / "a.h5")
    with optional("h5py").File(path, "w") as file:
        file["scan/ct"] = STORED
        file["label"] = STORED[:, :, :1]
        file["ids"] = np.arange(3)
    for dataset in (None, "scan"):
        with pytest.raises(FlexsegError, match=r"a.h5 .*scan/ct \(5, 7, 11\)"):
            volumes.open_volume(path, dataset)
    with pytest.raises(FlexsegError, match=r'no array "lable".*Did you mean "label"'):
        volumes.open_volume(path, "lable")
    for dataset in ("scan/ct", "/scan/ct"):
        with volumes.open_volume(path, dataset) as volume:
            assert (np.stack(list(volume)) == STORED).all()
    with optional("h5py").File(path, "a") as file:
        file["image"] = STORED[::-1]
    with volumes.open_volume(path) as volume:
        assert (np.stack(list(volume)) == STORED[::-1]).all()


@pytest.mark.parametrize("name", ["a.npy", "a.h5"])
def test_a_volume_without_slices_is_refused(tmp_path, name):
    FORMATS[name][0](tmp_path / name, STORED[:0])
    with pytest.raises(FlexsegError, match=rf"{name} holds no slice"):
        volumes.open_volume(str(tmp_path / name))


def test_what_the_disk_objects_to_is_no_damage(tmp_path):
    np.save(tmp_path / "a.npy", STORED)

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    with volumes.open_volume(str(tmp_path / "a.npy")) as volume:
        broken = dataclasses.replace(volume, _plane=fail)
        with pytest.raises(FlexsegError, match=r"a.npy cannot be read: Permission denied\.$"):
            broken.slice(0)


def test_slices_are_limited_by_their_pixels(tmp_path):
    np.save(tmp_path / "a.npy", STORED)
    with pytest.raises(FlexsegError, match=r"a.npy is 11x7, 77 pixels.*--max_pixels=76"):
        volumes.open_volume(str(tmp_path / "a.npy"), rotation=90, max_pixels=76)


def test_an_unknown_axis_or_rotation_is_refused(tmp_path):
    with pytest.raises(FlexsegError, match=r"--volume_axis=3: expected one of auto, 0, 1, 2"):
        volumes.open_volume(str(tmp_path / "a.npy"), axis="3")
    with pytest.raises(FlexsegError, match=r"--volume_rotation=45: expected one of 0, 90, 180"):
        volumes.open_volume(str(tmp_path / "a.npy"), rotation=45)


def test_a_missing_file_an_image_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(FlexsegError, match=r"gone.nii is missing"):
        volumes.open_volume(str(tmp_path / "gone.nii"))
    (tmp_path / "a.png").write_bytes(b"png")
    with pytest.raises(FlexsegError, match=r"a.png is no volume; expected .nii, .nii.gz"):
        volumes.open_volume(str(tmp_path / "a.png"))
    optional("pydicom")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlexsegError, match=r"empty holds no DICOM file"):
        volumes.open_volume(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("a.nii", "nibabel"),
        ("a.nii.gz", "nibabel"),
        ("a.mha", "SimpleITK"),
        ("a.h5", "h5py"),
        ("a.dcm", "pydicom"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_remedy(
    tmp_path, monkeypatch, name, library
):
    (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, library, None)  # so that its import fails
    with pytest.raises(
        FlexsegError,
        match=rf'{name} is read by {library}, which is not installed.*"flexseg\[volumes\]"',
    ):
        volumes.open_volume(str(tmp_path / name))


# ---- By name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected", "stem"),
    [
        ("a.nii", True, "a"),
        ("a.b.NII.GZ", True, "a.b"),
        ("a.mha", True, "a"),
        ("A.MHD", True, "A"),
        ("a.h5", True, "a"),
        ("a.hdf5", True, "a"),
        ("a.dcm", True, "a"),
        ("a.ppm.gz", False, "a.ppm.gz"),
        ("a.png", False, "a.png"),
        (".a.nii", False, ".a"),
        ("nii", False, "nii"),
    ],
)
def test_volumes_are_known_by_their_suffix_in_any_case(name, expected, stem):
    assert volumes.is_volume(name) is expected
    assert volumes.stem(name) == stem


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 7, 11), True),
        ((5, 7, 3), False),
        ((5, 7, 1), False),
        ((5, 7), False),
        ((2,) * 4, False),
    ],
)
def test_an_array_is_a_volume_where_its_last_axis_is_no_channel_axis(tmp_path, shape, expected):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    assert volumes.is_volume(str(tmp_path / "a.npy")) is expected


def test_a_folder_is_a_volume_where_it_holds_dicom_files(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"png")
    (tmp_path / "photos" / "README").write_text("no DICM here")
    assert not volumes.is_volume(str(tmp_path / "photos"))
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "IM1").write_bytes(MARKED)
    assert volumes.is_volume(str(tmp_path / "ct"))
    assert volumes.stem(str(tmp_path / "ct")) == str(tmp_path / "ct")


def found_below(folder: Path) -> tuple[dict[str, str], set[str]]:
    stems, consumed = volumes.find_volumes(str(folder), list(storage.walk(str(folder))))
    assert list(stems) == sorted(stems)
    return {s: str(Path(p).relative_to(folder)) for s, p in stems.items()}, consumed


def put(folder: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_volumes_are_found_among_other_files(tmp_path):
    put(tmp_path, "a.nii.gz", "b.PNG", "deep/c.mha", "deep/c.png", "deep/d.MHD", "deep/d.raw")
    put(tmp_path, "e.h5", ".hidden.nii", "README", "LICENSE.txt", "f.tar.gz")
    np.save(tmp_path / "g.npy", STORED)
    np.save(tmp_path / "h.npy", STORED[..., :3])  # an image in colours
    put(tmp_path, "i.npy", content=b"no array")
    assert found_below(tmp_path) == (
        {
            "a": "a.nii.gz",
            "deep/c": "deep/c.mha",
            "deep/d": "deep/d.MHD",
            "e": "e.h5",
            "g": "g.npy",
        },
        {"a.nii.gz", "deep/c.mha", "deep/d.MHD", "e.h5", "g.npy"},
    )


def test_dicom_files_at_the_top_are_volumes_of_their_own_and_those_below_are_series(tmp_path):
    put(tmp_path, "a.dcm", "b.DICOM", "a.png", "p1/1.dcm", "p1/2.DCM", "p1/seen.png", "p1/m.nii")
    put(tmp_path, "IM7", "c.ima", "1.2.840.5", "p2/s1/IM1", "p2/s1/IM2", content=MARKED)
    put(tmp_path, "p1/DICOMDIR", "p2/s2/1.2.3", "p2/s2/x.IMA", content=MARKED)
    put(tmp_path, "p3/README", "p3/1.2.4", "p3/x.ima", content=b"no DICM here")
    stems, consumed = found_below(tmp_path)
    own = {"a": "a.dcm", "b": "b.DICOM", "IM7": "IM7", "c": "c.ima", "1.2.840.5": "1.2.840.5"}
    series = {"p1": "p1", "p2/s1": "p2/s1", "p2/s2": "p2/s2"}
    assert stems == {**own, **series, "p1/m": "p1/m.nii"}
    below = {"p1/1.dcm", "p1/2.DCM", "p2/s1/IM1", "p2/s1/IM2", "p2/s2/1.2.3", "p2/s2/x.IMA"}
    assert consumed == {*own.values(), *below, "p1/m.nii"}
    for path in stems.values():
        assert volumes.is_volume(str(tmp_path / path))


@pytest.mark.parametrize(
    "names", [("a.nii", "a.nii.gz"), ("p1/1.dcm", "p1.nii"), ("d/a.mha", "d/a.h5")]
)
def test_two_volumes_of_one_stem_are_refused_by_name(tmp_path, names):
    put(tmp_path, *names)
    with pytest.raises(FlexsegError, match=r'share the stem "(a|p1|d/a)"') as caught:
        found_below(tmp_path)
    for name in names:
        assert name.removesuffix("/1.dcm") in str(caught.value)


def test_any_change_of_a_volumes_files_is_a_change_of_its_state(tmp_path):
    write_series(tmp_path / "ct", STORED[:3])
    write_metaimage(tmp_path / "a.mhd", STORED)
    write_nifti(tmp_path / "a.nii", STORED)
    changes = {"ct": "ct/001.dcm", "a.mhd": "a.raw", "a.nii": "a.nii"}
    for name, changed in changes.items():
        before = volumes.state(str(tmp_path / name))
        assert json.loads(json.dumps(before)) == before == volumes.state(str(tmp_path / name))
        time = (tmp_path / changed).stat().st_mtime_ns
        os.utime(tmp_path / changed, ns=(time, time + 1_000_000_000))
        assert volumes.state(str(tmp_path / name)) != before
    assert volumes.state(str(tmp_path / "a.nii")) == storage.state(str(tmp_path / "a.nii"))
    before = volumes.state(str(tmp_path / "ct"))
    (tmp_path / "ct" / "001.dcm").unlink()
    assert volumes.state(str(tmp_path / "ct")) != before
    assert volumes.state(str(tmp_path / "none")) == [-1, -1]


def test_damage_within_a_zipped_file_is_told_when_it_is_met(tmp_path):
    write_nifti(tmp_path / "a.nii", np.random.default_rng(2).random((40, 40, 40)))
    data = bytearray(gzip.compress((tmp_path / "a.nii").read_bytes()))
    data[len(data) // 2] ^= 255
    (tmp_path / "b.nii.gz").write_bytes(data)
    with pytest.raises(FlexsegError, match=r"b.nii.gz is truncated, damaged"):
        read_all(tmp_path / "b.nii.gz")
