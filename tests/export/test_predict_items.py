"""What is to be segmented: every image and volume once, in one order, under a stem of its own."""

import shutil

import cv2
import numpy as np
import pytest

from export.predictions import items
from flexseg_errors import FlexsegError

pydicom = pytest.importorskip("pydicom")


def put(folder, name, array=None):
    """Writes an image, array or volume by its suffix."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(48, dtype=np.uint8).reshape(6, 8) if array is None else array
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix in (".nii", ".txt"):
        path.write_bytes(b"found by its name alone")
    else:
        assert cv2.imwrite(str(path), array)
    return path


@pytest.fixture
def found(tmp_path):
    """A function from a folder to {stem: kind}, in the order of the items."""

    def look(folder=tmp_path / "in", output=tmp_path / "out"):
        return {i.stem: i.kind for i in items.find_items(str(folder), str(output))}

    return look


def test_images_and_volumes_are_found_in_all_folders_sorted_by_stem(tmp_path, found):
    folder = tmp_path / "in"
    for name in ("z.png", "a/deep/b.JPG", "a/scan.nii", "a/notes.txt", ".hidden/x.png", ".x.png"):
        put(folder, name)
    put(folder, "flat.npy", np.zeros((5, 7, 3), np.uint8))
    put(folder, "stack.npy", np.zeros((5, 7, 4), np.uint8))
    assert list(found().items()) == [
        ("a/deep/b", "image"),
        ("a/scan", "volume"),
        ("flat", "image"),
        ("stack", "volume"),
        ("z", "image"),
    ]


@pytest.mark.parametrize(
    ("name", "stem", "kind"),
    [("a.b.png", "a.b", "image"), ("a.ppm.gz", "a", "image"), ("s.nii.gz", "s", "volume")],
)
def test_a_single_file_is_one_item_without_folders_in_its_stem(tmp_path, name, stem, kind):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_bytes(b"x")
    (item,) = items.find_items(str(path), str(tmp_path / "out"))
    assert (item.path, item.stem, item.kind) == (str(path), stem, kind)


def write_slices(folder, count, series):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{index}"
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SeriesInstanceUID, data.SOPInstanceUID = series, f"{series}.{index}"
        data.InstanceNumber = index + 1
        data.ImagePositionPatient = [0, 0, 2 * index]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.Rows, data.Columns = 4, 6
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        data.PixelData = bytes(24)
        data.save_as(folder / f"{series[-1]}{index}.dcm", enforce_file_format=True)


def test_a_folder_that_is_a_series_is_one_volume_and_so_are_series_below(tmp_path, found):
    write_slices(tmp_path / "in", 3, "1.2.7")
    write_slices(tmp_path / "in" / "patient", 2, "1.2.8")
    assert found() == {"in": "volume", "patient": "volume"}


def test_a_folder_of_slices_of_several_series_holds_as_many_volumes_as_files(tmp_path, found):
    write_slices(tmp_path / "in", 2, "1.2.7")
    write_slices(tmp_path / "in", 1, "1.2.8")
    assert found() == {"70": "volume", "71": "volume", "80": "volume"}


def test_what_changes_in_a_file_changes_its_state(tmp_path):
    path = put(tmp_path / "in", "a.png")
    write_slices(tmp_path / "in" / "patient", 2, "1.2.8")

    def states():
        return {i.stem: i.state for i in items.find_items(str(tmp_path / "in"), "out")}

    before = states()
    assert before == states()
    path.write_bytes(path.read_bytes() + b"1")
    (tmp_path / "in" / "patient" / "81.dcm").write_bytes(b"1")
    after = states()
    assert after["a"] != before["a"]
    assert after["patient"] != before["patient"]


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("b/a.png", "b/a.nii"), ("a.bmp", "a.npy")])
def test_two_files_of_one_stem_are_refused_by_name(tmp_path, found, names):
    paths = [put(tmp_path / "in", name) for name in names]
    with pytest.raises(FlexsegError, match="would get the same mask") as raised:
        found()
    assert all(str(path) in str(raised.value) for path in paths)


def test_an_output_inside_the_input_is_refused_also_through_a_link(tmp_path, found):
    put(tmp_path / "in", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for output in ("in", "in/below", "link/below"):
        with pytest.raises(FlexsegError, match="lies inside"):
            found(output=tmp_path / output)
    assert found(output=tmp_path / "in_too") == {"a": "image"}


def test_a_folder_without_images_is_told_with_what_was_looked_for(tmp_path, found):
    put(tmp_path / "in", "notes.txt")
    with pytest.raises(FlexsegError, match=r"There are no images in .*\.png .*\.nii"):
        found()
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(FlexsegError, match="there is no such folder or file"):
        found()


def test_no_file_that_is_read_is_written_over_and_none_is_written_twice():
    one, two = (items.Item(f"in/{n}.png", n, truth=f"masks/{n}.png") for n in ("a", "b"))
    items.refuse_collisions([one, two], [(one, "out/a.png"), (two, "out/b.png")])
    for target in ("in/b.png", "masks/b.png", "in/../in/a.png"):
        with pytest.raises(FlexsegError, match="would be overwritten"):
            items.refuse_collisions([one, two], [(one, target)])
    with pytest.raises(FlexsegError, match=r"in/a\.png and in/b\.png would both get out/x\.png"):
        items.refuse_collisions([one, two], [(one, "out/x.png"), (two, "out/x.png")])
