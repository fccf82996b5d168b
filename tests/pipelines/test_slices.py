"""A mask's slice lies on its image's, however each is stored; volumes open once and are let go."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import intensity, object_stores, slices, storage, volumes
from pipelines.formats import MAX_PIXELS
from pipelines.slices import VolumeReading

# Each voxel a class of its own choosing: no symmetry. Of a cube, sizes tell nothing of the axes.
CUBE = np.random.default_rng(0).integers(0, 25, (6, 6, 6), dtype=np.uint8)
BOX = np.random.default_rng(1).integers(0, 25, (4, 6, 7), dtype=np.uint8)
SHAPES = {"cube": CUBE, "box": BOX}
# Oblique, anisotropic, off centre; voxel (x, y, z) -> millimetres, RAS+.
ANGLE = np.deg2rad(20)
TURN = np.array(
    [[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1.0]]
) @ np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]])
SPACING, ORIGIN = (0.5, 0.75, 3.0), (-10.0, 20.0, 30.0)
AFFINE = np.vstack([np.column_stack([TURN * SPACING, ORIGIN]), [0, 0, 0, 1]])
LPS = np.diag([-1.0, -1, 1, 1])

# Nibabel's way to say where an axis goes, and whether reversed.
ORIENTATIONS = {
    "same": [[0, 1], [1, 1], [2, 1]],
    "flipped": [[0, -1], [1, 1], [2, -1]],
    "turned": [[2, -1], [0, 1], [1, -1]],
}
AS_IS = intensity.Intensity()
PLAIN = VolumeReading()


def optional(name: str) -> Any:
    return pytest.importorskip(name, reason=f'{name} comes with pip install "flexseg[volumes]"')


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    """Writes [x, y, z] with its place as the path's suffix says; without one, as DICOM series."""
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel = optional("nibabel")
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
        return str(path)
    sitk = optional("SimpleITK")
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection((lps[:3, :3] / spacing).ravel())
    if path.suffix:
        sitk.WriteImage(image, str(path))
        return str(path)
    path.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(array.shape[2]):
        part = image[:, :, k : k + 1]
        part.SetMetaData("0008|0060", "CT")  # else no place is written
        part.SetMetaData("0020|000e", "1.2.3")
        writer.SetFileName(str(path / f"{(k * 5) % 7}-{k}.dcm"))
        writer.Execute(part)
    return str(path)


def reoriented(array: np.ndarray, orientation: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The same scan with its axes in another order: array and affine, by nibabel."""
    nibabel = optional("nibabel")
    image = nibabel.Nifti1Image(array, AFFINE).as_reoriented(np.array(orientation))
    return np.asarray(image.dataobj), image.affine


def read_by_itk(path: str) -> Any:
    sitk = optional("SimpleITK")
    if not os.path.isdir(path):
        return sitk.ReadImage(path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(path))
    return reader.Execute()


def pairs(image: str, mask: str, reading: VolumeReading = PLAIN) -> list[tuple[Any, Any]]:
    """All slices of both."""
    count = slices.shape(image, reading, MAX_PIXELS)[0]
    return [
        (
            slices.read_image(image, i, reading, AS_IS, MAX_PIXELS),
            slices.read_mask(image, mask, i, reading, MAX_PIXELS),
        )
        for i in range(count)
    ]


VARIANTS = [
    f"{orientation}{suffix}"
    for orientation in ORIENTATIONS
    for suffix in (".nii.gz", ".mha", "")  # and a DICOM series
]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    """FOLDER/{images,masks}/VARIANT: one scan in many ways; the image is ten times the mask."""
    folder = tmp_path_factory.mktemp("phantom")
    for kind, factor in (("images", 10), ("masks", 1)):
        (folder / kind).mkdir()
        for (shape, array), name in itertools.product(SHAPES.items(), VARIANTS):
            orientation = ORIENTATIONS[name.partition(".")[0]]
            turned, affine = reoriented(array * np.uint8(factor), orientation)
            write(folder / kind / f"{shape}-{name}", turned, affine)
    return folder


@pytest.mark.parametrize("mask", VARIANTS)
@pytest.mark.parametrize("image", VARIANTS)
@pytest.mark.parametrize("shape", ["cube", "box"])
def test_a_mask_is_laid_on_its_image_as_resampling_would_lay_it(phantom, shape, image, mask):
    image, mask = f"{shape}-{image}", f"{shape}-{mask}"
    sitk = optional("SimpleITK")
    image_path, mask_path = str(phantom / "images" / image), str(phantom / "masks" / mask)
    resampled = sitk.Resample(
        read_by_itk(mask_path), read_by_itk(image_path), sitk.Transform(), sitk.sitkNearestNeighbor,
        255.0,
    )  # fmt: skip
    expected = sitk.GetArrayFromImage(resampled)  # z y x
    found = pairs(image_path, mask_path)
    assert len(found) == len(expected)
    for (pixels, ids), plane in zip(found, expected, strict=True):
        plane = plane.T if image.endswith(".nii.gz") else plane
        assert ids.dtype.kind in "iu"
        assert (ids == plane).all()
        assert (pixels == 10 * ids).all()  # and the image's own slice is the one meant


@pytest.mark.parametrize("rotation", volumes.ROTATIONS)
@pytest.mark.parametrize("axis", volumes.AXES)
@pytest.mark.parametrize("image", ["box-turned.nii.gz", "box-turned.mha", "box-turned"])
def test_a_mask_follows_its_image_along_every_axis_and_turn(phantom, image, axis, rotation):
    reading = VolumeReading(axis, rotation)
    for mask in ("box-flipped.nii.gz", "box-flipped.mha"):
        paths = str(phantom / "images" / image), str(phantom / "masks" / mask)
        for pixels, ids in pairs(*paths, reading):
            assert pixels.shape == slices.shape(paths[0], reading, MAX_PIXELS)[1:]
            assert (pixels == 10 * ids).all()
            assert ids.flags.c_contiguous


def test_a_mask_may_be_stored_in_any_of_the_48_orders(tmp_path):
    image = write(tmp_path / "image.mha", CUBE * np.uint8(10))
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            array, affine = reoriented(CUBE, list(map(list, zip(axes, signs, strict=True))))
            mask = write(tmp_path / "mask.nii", array, affine)
            for pixels, ids in pairs(image, mask):
                assert (pixels == 10 * ids).all()


# ---- What does not lie on the image ------------------------------------------------------------


def moved(voxels: tuple[float, float, float]) -> np.ndarray:
    step = np.eye(4)
    step[:3, 3] = voxels
    return AFFINE @ step


def turned(degrees: float) -> np.ndarray:
    turn, angle = np.eye(4), np.deg2rad(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ AFFINE


ELSEWHERE = {
    "a third of a voxel": (moved((0.3, 0, 0)), r"0\.15 mm \(0\.3 voxels\)"),
    "a whole slice": (moved((0, 0, 1)), r"3 mm \(1 voxels\)"),
    "just too far": (moved((0, 0.011, 0)), r"0\.00825 mm \(0\.011 voxels\)"),
    "wider voxels": (AFFINE @ np.diag([1.02, 1, 1, 1]), r"voxels\)"),
    "turned": (turned(5), r"voxels\)"),
    "the identity, for want of a place": (np.eye(4), r"voxels\)"),
}


@pytest.mark.parametrize("suffix", [".nii", ".mha"])
@pytest.mark.parametrize("how", ELSEWHERE)
def test_a_mask_that_lies_elsewhere_is_refused_with_its_distance_until_resampled(
    tmp_path, how, suffix
):
    sitk = optional("SimpleITK")
    affine, distance = ELSEWHERE[how]
    image = write(tmp_path / "image.nii", CUBE * np.uint8(10))
    mask = write(tmp_path / f"mask{suffix}", CUBE, affine)
    with pytest.raises(FlexsegError, match=distance) as caught:
        slices.read_mask(image, mask, 0, PLAIN, MAX_PIXELS)
    for said in (image, mask, "SimpleITK.Resample(mask, image"):
        assert said in str(caught.value)
    resampled = sitk.Resample(
        sitk.ReadImage(mask), sitk.ReadImage(image), sitk.Transform(), sitk.sitkNearestNeighbor
    )
    sitk.WriteImage(resampled, str(tmp_path / "resampled.nii"))
    for i in range(6):
        ids = slices.read_mask(image, str(tmp_path / "resampled.nii"), i, PLAIN, MAX_PIXELS)
        assert (ids == sitk.GetArrayFromImage(resampled)[i].T).all()


@pytest.mark.parametrize("axis", range(3))
def test_what_a_header_rounds_is_no_distance(tmp_path, axis):
    image = write(tmp_path / "image.mha", CUBE * np.uint8(10))
    mask = write(tmp_path / "mask.nii", CUBE, moved(tuple(0.009 * np.eye(3)[axis])))
    for pixels, ids in pairs(image, mask):
        assert (pixels == 10 * ids).all()


@pytest.mark.parametrize("suffix", [".nii", ".mha"])
def test_a_mask_of_another_number_of_voxels_is_refused(tmp_path, suffix):
    image = write(tmp_path / "image.nii", CUBE)
    mask = write(tmp_path / f"mask{suffix}", CUBE[:, :, :5])
    shown = "6x6x5 voxels (x y z)" if suffix == ".nii" else "5x6x6 voxels (z y x)"
    with pytest.raises(FlexsegError) as caught:
        slices.read_mask(image, mask, 0, PLAIN, MAX_PIXELS)
    assert f"{mask} has {shown}, {image} has 6x6x6 voxels (x y z)" in str(caught.value)


def without_place(path: Path, array: np.ndarray) -> str:
    """Writes [x, y, z] or, of other formats than NIfTI, [z, y, x]; no file says where it lies."""
    if path.suffix == ".nii":
        nibabel = optional("nibabel")
        nibabel.save(nibabel.Nifti1Image(array, None), path)
    elif path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".h5":
        with optional("h5py").File(path, "w") as file:
            file["any"] = array
    else:
        sitk = optional("SimpleITK")
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path.with_suffix(".mha")))
        data = path.with_suffix(".mha").read_bytes()
        lines = data.split(b"\n", 12)
        kept = [x for x in lines if not x.startswith((b"Offset", b"TransformMatrix"))]
        path.with_suffix(".mha").write_bytes(b"\n".join(kept))
    return str(path)


@pytest.mark.parametrize("mask", [".nii", ".npy", ".h5", ".mha"])
@pytest.mark.parametrize("image", [".nii", ".npy", ".h5", ".mha"])
def test_without_a_place_only_formats_of_one_order_and_size_make_a_pair(tmp_path, image, mask):
    image_path = without_place(tmp_path / f"image{image}", CUBE * np.uint8(10))
    mask_path = without_place(tmp_path / f"mask{mask}", CUBE)
    if (image == ".nii") != (mask == ".nii"):
        with pytest.raises(FlexsegError, match=r"one is stored as [xyz] y [xyz], the other") as e:
            slices.read_mask(image_path, mask_path, 0, PLAIN, MAX_PIXELS)
        assert "does not say where its voxels lie" in str(e.value)
        return
    for pixels, ids in pairs(image_path, mask_path):
        assert (pixels == 10 * ids).all()
    short = without_place(tmp_path / f"short{mask}", CUBE[:, 1:])
    with pytest.raises(FlexsegError, match=r"short.* has 6x5x6 voxels"):
        slices.read_mask(image_path, short, 0, PLAIN, MAX_PIXELS)


@pytest.mark.parametrize(("image", "mask"), [(".mha", ".nii"), (".nii", ".mha"), (".nii", ".npy")])
def test_a_place_on_one_side_alone_does_not_tell_the_order_of_axes(tmp_path, image, mask):
    with_place = write(tmp_path / f"image{image}", CUBE)
    silent = without_place(tmp_path / f"mask{mask}", CUBE)
    for one, other in ((with_place, silent), (silent, with_place)):
        with pytest.raises(FlexsegError, match=r"cannot be laid on") as caught:
            slices.read_mask(one, other, 0, PLAIN, MAX_PIXELS)
        assert f"{silent} does not say" in str(caught.value)


def test_of_one_format_a_mask_without_place_is_taken_as_stored(tmp_path):
    image = write(tmp_path / "image.nii", BOX * np.uint8(10))
    mask = without_place(tmp_path / "mask.nii", BOX)
    for pixels, ids in pairs(image, mask, VolumeReading("1", 90)):
        assert (pixels == 10 * ids).all()


# ---- HDF5, values ------------------------------------------------------------------------------


def write_hdf5(path: Path, **stored: np.ndarray) -> str:
    with optional("h5py").File(path, "w") as file:
        for name, array in stored.items():
            file[name] = array
    return str(path)


@pytest.mark.parametrize(
    ("names", "reading"),
    [
        (("image", "mask"), PLAIN),
        (("image", "seg"), VolumeReading(mask_dataset="seg")),
        (("ct", "seg"), VolumeReading("2", 180, "ct", "seg")),
        (("ct", "mask"), VolumeReading(dataset="/ct")),
    ],
)
def test_one_hdf5_file_may_hold_image_and_mask(tmp_path, names, reading):
    path = write_hdf5(tmp_path / "a.h5", **dict(zip(names, (BOX * np.uint8(10), BOX), strict=True)))
    for pixels, ids in pairs(path, path, reading):
        assert (pixels == 10 * ids).all()


def test_a_mask_is_never_its_own_image(tmp_path):
    both = {"image": BOX, "seg": BOX}
    path = write_hdf5(tmp_path / "a.h5", **both)
    with pytest.raises(FlexsegError, match=r"a.h5 holds image .*, seg .*--mask_dataset=NAME which"):
        slices.read_mask(path, path, 0, PLAIN, MAX_PIXELS)  # "image" is none
    alone = write_hdf5(tmp_path / "b.h5", image=BOX)
    for file, reading in (
        (path, VolumeReading(mask_dataset="image")),
        (path, VolumeReading(dataset="seg", mask_dataset="/seg")),
        (alone, PLAIN),
        (write(tmp_path / "c.nii", CUBE), PLAIN),
    ):
        with pytest.raises(FlexsegError, match=r"is both image and mask, .*--mask_dataset"):
            slices.read_mask(file, file, 0, reading, MAX_PIXELS)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", ">i4", "u8", "f4", ">f8"])
def test_class_ids_are_whole_numbers_of_any_type(tmp_path, dtype):
    ids = (CUBE % 2 if dtype == "?" else CUBE).astype(dtype)
    image, mask = str(tmp_path / "image.npy"), str(tmp_path / "mask.npy")
    np.save(image, CUBE)
    np.save(mask, ids)
    for i, expected in enumerate(ids):
        found = slices.read_mask(image, mask, i, PLAIN, MAX_PIXELS)
        assert found.dtype.kind in "iu"
        assert (found == expected.astype(int)).all()


@pytest.mark.parametrize("value", [0.5, 1.01, -0.25, np.nan, np.inf, -np.inf, 1e300])
def test_what_is_no_class_id_is_refused_by_name_and_slice(tmp_path, value):
    ids = CUBE.astype(np.float64)
    ids[2, 3, 4] = value
    np.save(tmp_path / "image.npy", CUBE)
    np.save(tmp_path / "mask.npy", ids)
    paths = str(tmp_path / "image.npy"), str(tmp_path / "mask.npy")
    slices.read_mask(*paths, 1, PLAIN, MAX_PIXELS)
    with pytest.raises(FlexsegError, match=r"mask.npy: its slice on the image's slice 2 holds"):
        slices.read_mask(*paths, 2, PLAIN, MAX_PIXELS)


def test_class_ids_survive_the_scale_that_a_nifti_header_rounds(tmp_path):
    nibabel = optional("nibabel")
    image = write(tmp_path / "image.nii", CUBE)
    scaled = nibabel.Nifti1Image(CUBE.astype(np.float64), AFFINE, dtype=np.int16)
    nibabel.save(scaled, tmp_path / "mask.nii")
    stored = nibabel.load(tmp_path / "mask.nii")
    assert (stored.get_fdata() != CUBE).any()  # what is tested is there
    for i in range(6):
        found = slices.read_mask(image, str(tmp_path / "mask.nii"), i, PLAIN, MAX_PIXELS)
        assert (found == CUBE[:, :, i]).all()


DEEP = np.random.default_rng(2).integers(-1000, 3000, (5, 7, 11), dtype=np.int16)


@pytest.mark.parametrize("kind", ["minmax", "percentile:5,90", "window:40,400"])
def test_gray_means_the_same_in_all_slices_and_is_found_once(tmp_path, monkeypatch, kind):
    np.save(tmp_path / "a.npy", DEEP)
    mapping = intensity.parse(kind)
    calls = []
    read = volumes.Volume.slice
    monkeypatch.setattr(volumes.Volume, "slice", lambda v, i: (calls.append(i), read(v, i))[1])
    found = [
        slices.read_image(str(tmp_path / "a.npy"), i, PLAIN, mapping, MAX_PIXELS) for i in range(5)
    ]
    low, high = {
        "minmax": (DEEP.min(), DEEP.max()),
        "percentile:5,90": np.percentile(DEEP, [5, 90]),
        "window:40,400": (-160, 240),
    }[kind]
    expected = (np.clip(DEEP.astype(float), low, high) - low) * 255 / (float(high) - low)
    assert np.abs(np.array(found) - expected).max() <= 0.5 + 1e-9
    assert np.array(found).dtype == np.uint8
    assert len(calls) == (5 if kind.startswith("window") else 10)


def test_limits_of_a_slice_are_its_own_where_that_is_wanted(tmp_path):
    np.save(tmp_path / "a.npy", np.sort(DEEP, axis=0))
    mapping = intensity.parse("minmax-slice")
    for i in range(5):
        found = slices.read_image(str(tmp_path / "a.npy"), i, PLAIN, mapping, MAX_PIXELS)
        assert (found.min(), found.max()) == (0, 255)


def test_deep_values_need_a_meaning(tmp_path):
    np.save(tmp_path / "a.npy", DEEP)
    with pytest.raises(FlexsegError, match=r"a.npy holds int16 values.*--intensity"):
        slices.read_image(str(tmp_path / "a.npy"), 0, PLAIN, AS_IS, MAX_PIXELS)


# ---- What is open ------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch) -> dict[str, int]:
    """File name -> how often it was opened, less how often closed; "" -> opened in all."""
    counts: dict[str, int] = {"": 0}
    open_volume = volumes.open_volume

    def counted(path: str, *given: Any, **named: Any) -> volumes.Volume:
        volume = open_volume(path, *given, **named)
        name = os.path.basename(path)
        counts[name] = counts.get(name, 0) + 1
        counts[""] += 1

        def close() -> None:
            counts[name] -= 1
            volume.close()

        return dataclasses.replace(volume, _close=close)

    monkeypatch.setattr(volumes, "open_volume", counted)
    return counts


def names_of(tmp_path: Path, names: str) -> list[str]:
    paths = [str(tmp_path / f"{name}.npy") for name in names]
    for path in paths:
        np.save(path, CUBE)
    return paths


def test_a_volume_is_opened_once_for_its_slices_and_the_last_two_stay_open(tmp_path, opened):
    a, b, c, d = names_of(tmp_path, "abcd")
    for i in range(6):
        slices.read_image(a, i, PLAIN, AS_IS, MAX_PIXELS)
        slices.read_mask(a, b, i, PLAIN, MAX_PIXELS)
    assert opened == {"": 2, "a.npy": 1, "b.npy": 1}
    slices.read_image(c, 0, PLAIN, AS_IS, MAX_PIXELS)
    slices.read_image(a, 0, PLAIN, AS_IS, MAX_PIXELS)
    slices.read_image(d, 0, PLAIN, AS_IS, MAX_PIXELS)  # c was used longest ago
    assert opened == {"": 4, "a.npy": 1, "b.npy": 1, "c.npy": 0, "d.npy": 1}
    slices.read_mask(a, c, 0, PLAIN, MAX_PIXELS)
    slices.read_mask(a, d, 0, PLAIN, MAX_PIXELS)
    assert opened == {"": 6, "a.npy": 1, "b.npy": 0, "c.npy": 1, "d.npy": 2}


def test_another_reading_is_another_volume(tmp_path):
    np.save(tmp_path / "a.npy", BOX)
    for reading in (PLAIN, VolumeReading("2", 90), PLAIN):
        found = slices.read_image(str(tmp_path / "a.npy"), 1, reading, AS_IS, MAX_PIXELS)
        expected = BOX[1] if reading == PLAIN else np.rot90(BOX[:, :, 1])
        assert (found == expected).all()


@pytest.mark.parametrize("which", ["image", "mask"])
@pytest.mark.parametrize("suffix", [".npy", ".nii", ".mhd", ""])
def test_a_file_that_has_changed_is_opened_anew(tmp_path, which, suffix):
    def put(name: str, array: np.ndarray, time: int) -> str:
        path = tmp_path / f"{name}{suffix}"
        if path.is_dir():
            shutil.rmtree(path)
        if suffix == ".npy":
            np.save(path, array)
        else:
            write(path, array)
        for file in [path, path.with_suffix(".raw"), *path.glob("*")]:
            if file.is_file():
                os.utime(file, ns=(time, time))
        return str(path)

    paths = {name: put(name, CUBE, 10**18) for name in ("image", "mask")}
    before = pairs(paths["image"], paths["mask"])
    put(which, CUBE // 2, 10**18 + 1)
    after = pairs(paths["image"], paths["mask"])
    index = ("image", "mask").index(which)
    for old, new in zip(before, after, strict=True):
        assert (new[index] == old[index] // 2).all()
        assert (new[1 - index] == old[1 - index]).all()


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path, opened):
    a, _ = names_of(tmp_path, "ab")
    np.save(tmp_path / "b.npy", CUBE[:5])
    with pytest.raises(FlexsegError, match="one value for each voxel"):
        slices.read_mask(a, str(tmp_path / "b.npy"), 0, PLAIN, MAX_PIXELS)
    assert opened["b.npy"] == 0
    assert slices.shape(a, PLAIN, MAX_PIXELS) == (6, 6, 6)
    assert opened["a.npy"] == 1  # the image of the mask; not that of `shape`


def test_threads_do_not_close_what_others_read_and_close_all_when_they_end(tmp_path, opened):
    a, *others = names_of(tmp_path, "abcd")
    slices.read_image(a, 0, PLAIN, AS_IS, MAX_PIXELS)

    def read() -> None:
        for path in (*others, a):
            slices.read_image(path, 0, PLAIN, AS_IS, MAX_PIXELS)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    gc.collect()
    slices.read_image(a, 1, PLAIN, AS_IS, MAX_PIXELS)
    assert opened == {"": 5, "a.npy": 1, "b.npy": 0, "c.npy": 0, "d.npy": 0}


def test_no_slice_is_read_for_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr(volumes.Volume, "slice", None)
    path = write(tmp_path / "a.nii.gz", BOX)
    assert slices.shape(path, PLAIN, MAX_PIXELS) == (7, 4, 6)
    assert slices.shape(path, VolumeReading("0", 90), MAX_PIXELS) == (4, 7, 6)
    with pytest.raises(FlexsegError, match=r"a.nii.gz is 4x6, 24 pixels.*--max_pixels=23"):
        slices.shape(path, PLAIN, 23)


# ---- Elsewhere ---------------------------------------------------------------------------------


class Shelf:
    """A store that keeps `shelf://bucket/NAME` in a folder; writes are made to the folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _local(self, path: str) -> Path:
        return self.folder / path.removeprefix("shelf://bucket").strip("/")

    def stat(self, path: str) -> tuple[int, int] | None:
        file = self._local(path)
        return (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None

    def holds(self, folder: str) -> bool:
        return self._local(folder).is_dir()

    def names(self, folder: str) -> set[str]:
        here = self._local(folder)
        return {path.name for path in here.iterdir()} if here.is_dir() else set()

    def entries(self, folder: str) -> Any:
        for file in sorted(self._local(folder).rglob("*")):
            if file.is_file():
                path = "shelf://bucket/" + str(file.relative_to(self.folder))
                yield path, self.stat(path)

    def open(self, path: str) -> Any:
        return open(self._local(path), "rb")


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """What is put into this folder lies at shelf://bucket/; copies of it in tmp_path/copies."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(object_stores, "store", lambda path: Shelf(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    return folder


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".mhd", ""])
def test_volumes_elsewhere_are_copied_for_as_long_as_they_are_open(shelf, tmp_path, suffix):
    write(shelf / f"image{suffix}", BOX * np.uint8(10))
    write(shelf / f"mask{suffix}", BOX)
    paths = [f"shelf://bucket/{name}{suffix}" for name in ("image", "mask")]
    assert slices.shape(paths[0], PLAIN, MAX_PIXELS)[0] == 7
    assert not list((tmp_path / "copies").iterdir())
    for pixels, ids in pairs(*paths):
        assert (pixels == 10 * ids).all()
    assert len(list((tmp_path / "copies").iterdir())) == 2
    a, b, c = names_of(tmp_path, "abc")
    for path in (b, c):
        slices.read_image(path, 0, PLAIN, AS_IS, MAX_PIXELS)
        slices.read_mask(a, path, 0, PLAIN, MAX_PIXELS)
    assert not list((tmp_path / "copies").iterdir())


def test_a_header_elsewhere_may_hold_its_data_itself(shelf):
    write(shelf / "a.mha", BOX)
    text = (shelf / "a.mha").read_bytes()
    assert b"ElementDataFile = LOCAL" in text
    (shelf / "a.mhd").write_bytes(text)
    assert slices.shape("shelf://bucket/a.mhd", PLAIN, MAX_PIXELS) == BOX.shape[::-1]


def test_what_is_said_of_a_copy_names_the_file_itself(shelf, tmp_path):
    image, mask = "shelf://bucket/d/image.nii", "shelf://bucket/d/mask.nii"
    with pytest.raises(FlexsegError, match=rf"^{image} is missing"):
        slices.read_image(image, 0, PLAIN, AS_IS, MAX_PIXELS)
    (shelf / "d").mkdir()
    write(shelf / "d" / "image.nii", CUBE)
    write(shelf / "d" / "mask.nii", CUBE, moved((1, 0, 0)))
    with pytest.raises(FlexsegError, match=rf"^{mask} does not lie on {image}: by"):
        slices.read_mask(image, mask, 0, PLAIN, MAX_PIXELS)
    with pytest.raises(IndexError, match=rf"^{image} has no slice 6"):
        slices.read_image(image, 6, PLAIN, AS_IS, MAX_PIXELS)
    (shelf / "d" / "image.nii").write_bytes(b"no volume")
    with pytest.raises(FlexsegError, match=rf"^{image} is truncated, damaged"):
        slices.shape(image, PLAIN, MAX_PIXELS)
    write(shelf / "a.mhd", CUBE)
    (shelf / "a.raw").unlink()
    with pytest.raises(FlexsegError, match=r"^shelf://bucket/a.mhd: its data file a.raw is missin"):
        slices.shape("shelf://bucket/a.mhd", PLAIN, MAX_PIXELS)
    text = (shelf / "a.mhd").read_text()
    (shelf / "a.mhd").write_text(text.replace("a.raw", "../a.raw"))
    with pytest.raises(FlexsegError, match=r"its data file \.\./a.raw must lie beside it"):
        slices.shape("shelf://bucket/a.mhd", PLAIN, MAX_PIXELS)


def test_volumes_elsewhere_are_found_by_name(shelf, monkeypatch):
    np.save(shelf / "a.npy", BOX)
    np.save(shelf / "b.npy", BOX[..., :3])
    with open(shelf / "later.npy", "wb") as file:
        np.lib.format.write_array(file, BOX, version=(2, 0))
    for name, size in (("cut.npy", 30), ("odd.npy", 3), ("none.npy", 0)):
        (shelf / name).write_bytes((shelf / "a.npy").read_bytes()[:size])
    (shelf / "p1").mkdir()
    for name in ("c.nii.gz", "d.png", "p1/1.dcm", "p1/2.ima", "p1/README"):
        (shelf / name).write_bytes(b"anything")
    root = "shelf://bucket"
    stems, consumed = volumes.find_volumes(root, list(storage.walk(root)))
    arrays = {"a": f"{root}/a.npy", "later": f"{root}/later.npy"}
    assert stems == {**arrays, "c": f"{root}/c.nii.gz", "p1": f"{root}/p1"}
    assert consumed == {"a.npy", "later.npy", "c.nii.gz", "p1/1.dcm", "p1/2.ima"}
    for path in stems.values():
        assert volumes.is_volume(path)
    for name in ("b.npy", "cut.npy", "odd.npy", "none.npy", "d.png", "p1/README", "none"):
        assert not volumes.is_volume(f"{root}/{name}")
    monkeypatch.setattr(Shelf, "names", None)
    assert not volumes.is_volume(f"{root}/d.png")  # without a request
    before = volumes.state(f"{root}/p1")
    (shelf / "p1" / "1.dcm").write_bytes(b"another")
    assert volumes.state(f"{root}/p1") != before


# ---- Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [-1, 6, 100])
@pytest.mark.parametrize("mask", ["cube-same.nii.gz", "cube-flipped.mha", "cube-turned"])
def test_there_is_no_slice_beyond_the_volume(phantom, index, mask):
    image = str(phantom / "images" / "cube-same.mha")
    with pytest.raises(IndexError, match=rf"cube-same.mha has no slice {index}; it has 6"):
        slices.read_image(image, index, PLAIN, AS_IS, MAX_PIXELS)
    with pytest.raises(IndexError, match=rf"cube-same.mha has no slice {index}; it has 6"):
        slices.read_mask(image, str(phantom / "masks" / mask), index, PLAIN, MAX_PIXELS)


@pytest.mark.parametrize("share", [0, 0.1, 0.7])
@pytest.mark.parametrize("damaged", ["image", "mask"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha"])
def test_what_is_damaged_is_named(tmp_path, suffix, damaged, share):
    for name in ("image", "mask"):
        write(tmp_path / f"{name}{suffix}", CUBE)
    path = tmp_path / f"{damaged}{suffix}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(FlexsegError, match=rf"{damaged}{suffix} is (empty|truncated)"):
        pairs(*(str(tmp_path / f"{name}{suffix}") for name in ("image", "mask")))


def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "nibabel", None)  # so that its import fails
    with pytest.raises(FlexsegError, match=r"a.nii is read by nibabel, which is not installed"):
        slices.read_image(str(tmp_path / "a.nii"), 0, PLAIN, AS_IS, MAX_PIXELS)


def test_a_reading_is_plain_data_and_is_checked_when_it_is_made():
    reading = VolumeReading("1", 270, "ct", "seg")
    assert VolumeReading.from_dict(dataclasses.asdict(reading)) == reading
    with pytest.raises(FlexsegError, match="--volume_axis=3"):
        VolumeReading("3")
    with pytest.raises(FlexsegError, match="--volume_rotation=45"):
        VolumeReading(rotation=45)
