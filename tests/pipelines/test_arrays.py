"""NumPy's files give the arrays that were saved, and nothing that is not an image or a mask."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import arrays

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 5, (9, 14), dtype=np.uint8)


def one_hot(dtype: type = np.float32) -> np.ndarray:
    return np.eye(5, dtype=dtype)[IDS]


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "<i2", "f4", ">f8", "?"])
@pytest.mark.parametrize("shape", [(7, 11), (7, 11, 1), (7, 11, 3)])
def test_an_image_is_read_as_it_was_saved(tmp_path, shape, dtype):
    saved = RNG.integers(0, 256, shape).astype(dtype)
    np.save(tmp_path / "a.npy", saved)
    assert arrays.read_shape(str(tmp_path / "a.npy")) == shape
    read = arrays.read_image(str(tmp_path / "a.npy"))
    assert read.dtype == saved.dtype.newbyteorder("=")
    assert read.dtype.isnative
    assert (read == (saved[..., 0] if shape[2:] == (1,) else saved)).all()


def test_an_array_in_column_order_is_read_as_it_was_saved(tmp_path):
    saved = np.asfortranarray(RNG.integers(0, 9, (7, 11, 3)))
    np.save(tmp_path / "a.npy", saved)
    read = arrays.read_image(str(tmp_path / "a.npy"))
    assert read.flags.c_contiguous
    assert (read == saved).all()


@pytest.mark.parametrize("shape", [(5,), (), (4, 5, 2), (4, 5, 6), (2, 3, 4, 3)])
def test_an_array_that_is_no_image_is_refused_with_its_shape(tmp_path, shape):
    np.save(tmp_path / "odd.npy", np.zeros(shape))
    with pytest.raises(FlexsegError, match=r"odd.npy has the shape \[.*\]; expected an image"):
        arrays.read_image(str(tmp_path / "odd.npy"))


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "odd.npy", np.array([{}, []], object), allow_pickle=True)
    with pytest.raises(FlexsegError, match=r"odd.npy holds Python objects"):
        arrays.read_image(str(tmp_path / "odd.npy"))
    np.savez(tmp_path / "odd.npz", mask=np.array([[[{}, {}]]], object))
    with pytest.raises(FlexsegError, match=r'odd.npz: its array "mask" holds object'):
        arrays.read_one_hot(str(tmp_path / "odd.npz"))


@pytest.mark.parametrize("dtype", [np.complex64, "U3", [("a", "i4")]])
def test_what_is_no_number_is_refused(tmp_path, dtype):
    np.save(tmp_path / "odd.npy", np.zeros((3, 4), dtype))
    with pytest.raises(FlexsegError, match=r"odd.npy holds .*; expected real numbers"):
        arrays.read_image(str(tmp_path / "odd.npy"))


@pytest.mark.parametrize("keep", [0, 3, 60, 130, -1])
def test_a_truncated_array_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "cut.npy"
    np.save(path, RNG.integers(0, 256, (30, 20), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:keep])
    for read in (arrays.read_image, arrays.read_shape):
        with pytest.raises(FlexsegError, match=r"cut.npy (is empty|is truncated|holds Python)"):
            read(str(path))


def test_a_missing_array_is_named(tmp_path):
    for read in (arrays.read_image, arrays.read_one_hot):
        with pytest.raises(FlexsegError, match=r"gone.np is missing"):
            read(str(tmp_path / "gone.np"))


def test_an_image_is_limited_by_its_pixels_before_it_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((10, 11), np.uint8))
    with pytest.raises(FlexsegError, match="--max_pixels=100"):
        arrays.read_image(str(tmp_path / "a.npy"), max_pixels=100)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32, np.float64, np.int8])
def test_a_one_hot_mask_becomes_the_ids_that_it_was_made_of(tmp_path, dtype, save):
    save(tmp_path / "a.npz", mask=one_hot(dtype))
    ids = arrays.read_one_hot(str(tmp_path / "a.npz"))
    assert ids.dtype == np.uint8
    assert (ids == IDS).all()


def test_pixels_of_no_class_are_ignored(tmp_path):
    mask = one_hot(np.int8)
    mask[2, 3:6] = 0
    np.savez(tmp_path / "a.npz", mask=mask)
    ids = arrays.read_one_hot(str(tmp_path / "a.npz"))
    assert (ids[2, 3:6] == 255).all()
    assert (ids == 255).sum() == 3


def test_soft_masks_become_the_class_of_the_greatest_share_and_ties_the_lowest(tmp_path):
    np.savez(tmp_path / "a.npz", mask=np.array([[[0.2, 0.5, 0.3], [0.1, 0.45, 0.45]]]))
    assert arrays.read_one_hot(str(tmp_path / "a.npz")).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": IDS}, r'odd.npz has no array "mask"; it holds labels\. Save one-hot masks'),
        ({}, r'odd.npz has no array "mask"; it holds nothing'),
        ({"mask": IDS}, r"has the shape \[9, 14\]; expected \[H, W, K\]"),
        ({"mask": one_hot()[..., :1]}, r"\[9, 14, 1\]; expected .* 2 to 255 classes"),
        ({"mask": one_hot()[None]}, r"expected \[H, W, K\]"),
        ({"mask": one_hot() * np.nan}, "values that are not finite"),
    ],
)
def test_what_is_no_one_hot_mask_is_refused_with_its_reason(tmp_path, arguments, message):
    np.savez(tmp_path / "odd.npz", **arguments)
    with pytest.raises(FlexsegError, match=message):
        arrays.read_one_hot(str(tmp_path / "odd.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_or_damaged_mask_is_refused_by_name(tmp_path, save):
    path = tmp_path / "cut.npz"
    save(path, mask=RNG.random((40, 30, 4)))
    data = path.read_bytes()
    for broken in (data[:-30], data[: len(data) // 2], data[:10], b"", b"no archive"):
        path.write_bytes(broken)
        with pytest.raises(FlexsegError, match=r"cut.npz is (truncated|empty)"):
            arrays.read_one_hot(str(path))
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 255
    path.write_bytes(flipped)
    with pytest.raises(FlexsegError, match=r"cut.npz is truncated, damaged"):
        arrays.read_one_hot(str(path))


def test_a_mask_is_limited_by_its_pixels_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", mask=np.zeros((50, 60, 3)))

    def unpack(*args, **kwargs):
        raise AssertionError("unpacked")

    monkeypatch.setattr(np.lib.format, "read_array", unpack)
    with pytest.raises(FlexsegError, match=r"50x60, 3,000 pixels.*--max_pixels=2999"):
        arrays.read_one_hot(str(tmp_path / "a.npz"), max_pixels=2999)


def test_an_archive_is_no_array_whatever_its_name(tmp_path):
    np.savez(tmp_path / "a.npz", one=IDS, two=IDS)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(FlexsegError, match=r"a.npy holds several arrays; expected a .npy file"):
        arrays.read_image(str(tmp_path / "a.npy"))


def test_an_archive_of_a_later_format_is_refused_by_its_version(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("mask.npy", "w") as file:
        np.lib.format.write_array(file, one_hot(), version=(3, 0))
    with pytest.raises(FlexsegError, match=r"a.npz is .*version \(3, 0\) of the .npy format"):
        arrays.read_one_hot(str(tmp_path / "a.npz"))
