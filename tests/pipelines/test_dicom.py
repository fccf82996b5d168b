"""A DICOM series is the stack of its slices, in the order in which they lie in space."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import volumes

# No two axes alike, no symmetry, values below zero and above 8 bits.
STORED = np.random.default_rng(0).integers(-1000, 3000, (5, 7, 11), dtype=np.int16)
# Oblique, anisotropic, off centre: what a mistake in any axis would show in.
ANGLE = np.deg2rad(20)
TURN = np.array(
    [[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1.0]]
) @ np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]])
SPACING, ORIGIN = (0.5, 0.75, 3.0), (-10.0, 20.0, 30.0)


def optional(name: str) -> Any:
    return pytest.importorskip(name, reason=f'{name} comes with pip install "flexseg[volumes]"')


def write_slice(path: Path, pixels: np.ndarray, position: float | None = 0.0, **tags: Any) -> None:
    """One DICOM file, oriented by TURN's rows and columns; `position` along their normal."""
    pydicom = optional("pydicom")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = pydicom.uid.CTImageStorage
    data.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(path)])
    data.SeriesInstanceUID = "1.2.3"
    data.Modality = "CT"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    data.PixelSpacing = [SPACING[1], SPACING[0]]
    if position is not None:
        data.ImageOrientationPatient = [*TURN[:, 0], *TURN[:, 1]]
        place = np.array(ORIGIN) + position * np.cross(TURN[:, 0], TURN[:, 1])
        data.ImagePositionPatient = [f"{value:.12g}" for value in place]
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def write_series(folder: Path, array: np.ndarray, names: list[str] | None = None) -> None:
    folder.mkdir()
    for i, pixels in enumerate(array):
        name = names[i] if names else f"{i:03}.dcm"
        write_slice(folder / name, pixels, SPACING[2] * i, InstanceNumber=i + 1)


def test_a_dicom_series_lies_where_another_reader_puts_it(tmp_path):
    sitk = optional("SimpleITK")
    names = ["c.dcm", "a.dcm", "e.dcm", "b.dcm", "d.dcm"]
    write_series(tmp_path / "ct", STORED, names)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    image = reader.Execute()
    with volumes.open_volume(str(tmp_path / "ct")) as volume:
        space = volume.geometry
        np.testing.assert_allclose(space.spacing, image.GetSpacing(), atol=1e-5)
        np.testing.assert_allclose(space.origin, image.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(space.direction, image.GetDirection(), atol=1e-5)
        assert (np.stack(list(volume)) == sitk.GetArrayFromImage(image)).all()
        assert volume.geometry.uniform


def test_slices_are_ordered_by_their_place_not_by_name_or_number(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    for i, pixels in enumerate(STORED):
        write_slice(folder / f"{9 - i}.dcm", pixels, 2.0 * i, InstanceNumber=100 - i)
    with volumes.open_volume(str(folder)) as volume:
        assert (np.stack(list(volume)) == STORED).all()


def test_slices_without_a_place_are_ordered_by_their_number(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    for i, pixels in enumerate(STORED):
        write_slice(folder / f"{9 - i}.dcm", pixels, None, InstanceNumber=i + 8)
    with volumes.open_volume(str(folder)) as volume:
        assert (np.stack(list(volume)) == STORED).all()
        assert volume.geometry.affine is None


def test_a_series_of_which_one_slice_has_no_place_says_of_none(tmp_path):
    """A place for some of its slices alone would be made up for the others."""
    folder = tmp_path / "ct"
    folder.mkdir()
    for i, pixels in enumerate(STORED):
        place = None if i == 2 else 3.0 * i
        write_slice(folder / f"{9 - i}.dcm", pixels, place, InstanceNumber=i + 8)
    with volumes.open_volume(str(folder)) as volume:
        assert (np.stack(list(volume)) == STORED).all()
        assert volume.geometry.affine is None


def test_values_are_rescaled_by_the_tags_of_their_own_slice(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    write_slice(folder / "a", STORED[0], 0, RescaleSlope=2, RescaleIntercept=-1024)
    write_slice(folder / "b", STORED[1], 3, RescaleSlope=0.5, RescaleIntercept=7)
    with volumes.open_volume(str(folder)) as volume:
        assert (volume.slice(0) == 2.0 * STORED[0] - 1024).all()
        assert (volume.slice(1) == 0.5 * STORED[1] + 7).all()


@pytest.mark.parametrize("dtype", ["u1", "i2"])
@pytest.mark.parametrize("tags", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}])
def test_values_that_nothing_changes_keep_their_type(tmp_path, tags, dtype):
    write_slice(tmp_path / "a.dcm", STORED[0].astype(dtype), **tags)
    with volumes.open_volume(str(tmp_path / "a.dcm")) as volume:
        assert volume.slice(0).dtype == dtype
        assert (volume.slice(0) == STORED[0].astype(dtype)).all()


def test_a_single_file_is_a_volume_of_one_slice(tmp_path):
    write_slice(
        tmp_path / "a.dcm", STORED[0], SliceThickness=4, RescaleSlope=1, RescaleIntercept=-5
    )
    with volumes.open_volume(str(tmp_path / "a.dcm")) as volume:
        assert volume.shape == (1, *STORED.shape[1:])
        assert volume.geometry.spacing == pytest.approx((0.5, 0.75, 4))
        assert (volume.slice(0) == STORED[0] - 5.0).all()


def test_an_image_that_is_dark_where_values_are_large_is_turned_over(tmp_path):
    kind = {"PhotometricInterpretation": "MONOCHROME1"}
    pixels = (STORED[0] % 4096).astype(np.uint16)
    write_slice(tmp_path / "a.dcm", pixels, **kind, BitsStored=12, HighBit=11)
    write_slice(tmp_path / "b.dcm", STORED[0], **kind, RescaleSlope=2, RescaleIntercept=3)
    with volumes.open_volume(str(tmp_path / "a.dcm")) as volume:
        assert (volume.slice(0) == 4095 - pixels.astype(int)).all()
    with volumes.open_volume(str(tmp_path / "b.dcm")) as volume:
        assert (volume.slice(0) == 2.0 * (-1 - STORED[0]) + 3).all()


@pytest.mark.parametrize(
    ("positions", "uniform"), [([0, 3, 6], True), ([0, 3, 9], False), ([0, 3, 6.02], True)]
)
def test_gaps_in_a_series_are_told(tmp_path, positions, uniform):
    folder = tmp_path / "ct"
    folder.mkdir()
    for i, position in enumerate(positions):
        write_slice(folder / f"{i}.dcm", STORED[i], position)
    with volumes.open_volume(str(folder)) as volume:
        assert volume.geometry.uniform is uniform
        assert volume.geometry.spacing[2] == pytest.approx(positions[-1] / 2)


def test_what_lies_beside_the_slices_is_left_out(tmp_path):
    write_series(tmp_path / "ct", STORED, ["IM1", "1.2.840.3", "c.IMA", "d.dcm", "e.DCM"])
    (tmp_path / "ct" / "notes.txt").write_text("none")
    (tmp_path / "ct" / "README").write_text("none")
    (tmp_path / "ct" / ".hidden.dcm").write_text("none")
    shutil.copy(tmp_path / "ct" / "IM1", tmp_path / "ct" / "DICOMDIR")
    with volumes.open_volume(str(tmp_path / "ct")) as volume:
        assert (np.stack(list(volume)) == STORED).all()


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (
            {"SeriesInstanceUID": "9.9"},
            r"2 DICOM series: 1.2.3 \(4 files\), 9.9 \(1 files\)\. Move",
        ),
        ({"Rows": 6}, r"odd.dcm is 6x11, .*7x11; the slices of a series have one size"),
        ({"position": 6.0}, r"lie in the same place\. Remove copies"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, r"odd.dcm is oriented otherwise"),
        ({"position": None, "InstanceNumber": None}, r"odd.dcm has neither a place.*InstanceNum"),
        ({"NumberOfFrames": 2}, r"odd.dcm holds 2 frames; .*dcm2niix"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, r"odd.dcm holds colours \(PALETTE COLOR"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, r"odd.dcm holds colours"),
    ],
)
def test_a_folder_that_is_no_single_series_is_refused_with_its_reason(tmp_path, tags, message):
    write_series(tmp_path / "ct", STORED[:4])
    if tags.get("position", 0) is None:  # then none has a place, and numbers decide
        shutil.rmtree(tmp_path / "ct")
        (tmp_path / "ct").mkdir()
        write_slice(tmp_path / "ct" / "0.dcm", STORED[0], None, InstanceNumber=1)
    write_slice(tmp_path / "ct" / "odd.dcm", STORED[4], **{"position": 12.0, **tags})
    with pytest.raises(FlexsegError, match=message):
        volumes.open_volume(str(tmp_path / "ct"))


@pytest.mark.parametrize("name", ["IM1", "1.2.840.3", "a.ima"])
def test_a_single_file_needs_no_suffix_of_its_own(tmp_path, name):
    write_slice(tmp_path / name, STORED[0])
    assert volumes.is_volume(str(tmp_path / name))
    with volumes.open_volume(str(tmp_path / name)) as volume:
        assert (volume.slice(0) == STORED[0]).all()


def test_compressed_pixels_are_refused_by_name(tmp_path):
    pydicom = optional("pydicom")
    write_slice(tmp_path / "a.dcm", STORED[0])
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.compress(pydicom.uid.RLELossless)
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(FlexsegError, match=r"a.dcm is compressed \(RLE Lossless\).*dcmdjpeg"):
        volumes.open_volume(str(tmp_path / "a.dcm"))


def test_deflated_files_are_read(tmp_path):
    pydicom = optional("pydicom")
    write_slice(tmp_path / "a.dcm", STORED[0])
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with volumes.open_volume(str(tmp_path / "a.dcm")) as volume:
        assert (volume.slice(0) == STORED[0]).all()


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9, 0.999])
def test_a_truncated_slice_of_a_series_is_refused_by_name(tmp_path, share):
    write_series(tmp_path / "ct", STORED)
    data = (tmp_path / "ct" / "003.dcm").read_bytes()
    (tmp_path / "ct" / "003.dcm").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FlexsegError, match=r"003.dcm.*truncated"):
        list(volumes.open_volume(str(tmp_path / "ct")))
