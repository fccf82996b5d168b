"""Every supported file gives the pixels that it shows, and a damaged one is refused by name."""

from __future__ import annotations

import gzip
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from flexseg_errors import FlexsegError
from pipelines import readers

GRAY = np.random.default_rng(0).integers(0, 256, (21, 30), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (21, 30, 3), dtype=np.uint8)
RGBA = np.dstack([RGB, GRAY])
ORIENTATION = 274  # the EXIF tag
# What each orientation does to the stored pixels when they are displayed (EXIF 2.3, 4.6.4).
DISPLAYED = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: np.swapaxes(p, 0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(np.swapaxes(p, 0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "ppm", "PNG", "TIF"])
def test_lossless_color_files_give_their_very_pixels(tmp_path, save, suffix):
    path = tmp_path / f"a.{suffix}"
    save(path, RGB)
    assert readers.is_image(path.name)
    assert readers.read_header(str(path)) == readers.Header(21, 30, 3)
    assert (readers.read_image(str(path), 3) == RGB).all()
    assert (readers.read_mask(str(path)) == RGB).all()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm"])
def test_gray_files_keep_one_channel_and_can_be_repeated_to_three(tmp_path, save, suffix):
    path = tmp_path / f"a.{suffix}"
    save(path, GRAY)
    assert readers.read_header(str(path)) == readers.Header(21, 30, 1)
    assert (readers.read_image(str(path), 1) == GRAY[..., None]).all()
    assert (readers.read_image(str(path), 3) == GRAY[..., None].repeat(3, -1)).all()
    assert (readers.read_mask(str(path)) == GRAY).all()


def test_webp_and_jpeg_give_the_pixels_that_another_decoder_gives(tmp_path, save):
    save(tmp_path / "a.webp", RGB, lossless=True)
    assert (readers.read_image(str(tmp_path / "a.webp"), 3) == RGB).all()
    save(tmp_path / "a.jpg", RGB, quality=95)
    ours = readers.read_image(str(tmp_path / "a.jpg"), 3).astype(int)
    assert np.abs(ours - np.array(Image.open(tmp_path / "a.jpg"))).max() <= 2


def test_transparency_is_dropped(tmp_path, save):
    save(tmp_path / "a.png", RGBA)
    assert readers.read_header(str(tmp_path / "a.png")).channels == 3
    assert (readers.read_image(str(tmp_path / "a.png"), 3) == RGB).all()
    assert (readers.read_mask(str(tmp_path / "a.png")) == RGB).all()


def test_gray_with_transparency_is_gray(tmp_path, save):
    save(tmp_path / "a.png", np.dstack([GRAY, GRAY[::-1]]))
    assert readers.read_header(str(tmp_path / "a.png")) == readers.Header(21, 30, 1)
    assert (readers.read_image(str(tmp_path / "a.png"), 1) == GRAY[..., None]).all()


def test_a_palette_file_comes_out_in_the_colors_of_its_palette(tmp_path):
    ids = (GRAY % 3).astype(np.uint8)
    palette = np.array([[0, 0, 0], [255, 0, 0], [7, 8, 9]], np.uint8)
    image = Image.fromarray(ids, "P")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png")
    assert (readers.read_mask(str(tmp_path / "a.png")) == palette[ids]).all()


def test_a_file_of_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(GRAY > 99).save(tmp_path / "a.png")
    assert readers.read_header(str(tmp_path / "a.png")).channels == 1
    assert (readers.read_mask(str(tmp_path / "a.png")) == np.where(GRAY > 99, 255, 0)).all()


@pytest.mark.parametrize("orientation", DISPLAYED)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_pixels_and_header_are_as_displayed(tmp_path, save, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.zeros((16, 24, 3), np.uint8)  # flat blocks of 8, which JPEG keeps
    stored[:8, :8], stored[8:, 8:16], stored[:8, 16:] = 250, (250, 0, 0), (0, 0, 250)
    save(path, stored, exif=exif, **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    expected = DISPLAYED[orientation](stored)
    pixels = readers.read_image(str(path), 3)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 8
    header = readers.read_header(str(path))
    assert (header.height, header.width) == pixels.shape[:2]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_more_than_eight_bits_are_refused_unless_told_what_they_mean(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(path)
    with pytest.raises(FlexsegError, match=rf"deep.{suffix} holds uint16 values.* 8.bit"):
        readers.read_image(str(path), 1)


@pytest.mark.parametrize("orientation", DISPLAYED)
@pytest.mark.parametrize("how", [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})])
def test_class_ids_are_as_displayed_too(tmp_path, how, orientation):
    path = str(tmp_path / f"a.{how[0]}")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(GRAY).save(path, exif=exif, **how[1])
    expected = DISPLAYED[orientation](GRAY)
    assert np.array_equal(readers.read_index(path), expected)
    assert np.array_equal(readers.read_image(path, 1)[..., 0], expected), "or they do not fit"
    header = readers.read_header(path)
    assert (header.height, header.width) == expected.shape


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_class_ids_with_transparency_are_those_without(tmp_path, mode):
    image = Image.fromarray(GRAY)
    if mode == "PA":
        image = Image.merge("LA", (image, Image.fromarray(GRAY[::-1])))
        image = Image.frombytes("PA", image.size, image.tobytes())
    else:
        image = image.convert(mode)
        image.putalpha(Image.fromarray(GRAY[::-1]))
    image.save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as written:
        assert written.mode == mode
    assert (readers.read_index(str(tmp_path / "a.tif")) == GRAY).all()


def test_a_mask_of_class_ids_is_refused_for_what_a_mask_of_colors_is(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(GRAY).save(path, save_all=True, append_images=[Image.fromarray(GRAY[::-1])])
    for read in (readers.read_index, readers.read_mask):
        with pytest.raises(FlexsegError, match=r"a.tif holds 2 pages; one image per file"):
            read(str(path))
    Image.fromarray(GRAY).save(path)
    for read in (readers.read_index, readers.read_mask):
        with pytest.raises(FlexsegError, match=r"21x30, 630 pixels; .*--max_pixels=629"):
            read(str(path), 629)


@pytest.mark.parametrize("dtype", ["?", "u2", "i4", "f8"])
def test_an_array_of_another_type_is_a_mask_where_its_values_are(tmp_path, dtype):
    saved = (GRAY % 2 if dtype == "?" else GRAY).astype(dtype)
    np.save(tmp_path / "a.npy", saved)
    read = readers.read_mask(str(tmp_path / "a.npy"))
    assert read.dtype == np.uint8
    assert (read == saved).all()
    assert (readers.read_index(str(tmp_path / "a.npy")) == saved).all()


@pytest.mark.parametrize(
    ("value", "told"), [(0.5, "0.5 to 1"), (-1, "-1 to 1"), (256, "1 to 256"), (np.nan, "nan")]
)
def test_values_that_no_mask_has_are_told(tmp_path, value, told):
    np.save(tmp_path / "a.npy", np.array([[1, value]]))
    with pytest.raises(
        FlexsegError, match=rf"a.npy holds \w+ values from {told}.*; expected whole"
    ):
        readers.read_mask(str(tmp_path / "a.npy"))


def test_a_gzipped_file_says_what_it_is_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.pgm.gz"
    path.write_bytes(gzip.compress(b"P5\n30 21\n255\n" + GRAY.tobytes()))
    assert readers.read_header(str(path)) == readers.Header(21, 30, 1)
    assert (readers.read_index(str(path)) == GRAY).all()
    path.write_bytes(b"")
    with pytest.raises(FlexsegError, match=r"a.pgm.gz is empty"):
        readers.read_header(str(path))
    with pytest.raises(FlexsegError, match=r"gone.pgm.gz is missing"):
        readers.read_header(str(tmp_path / "gone.pgm.gz"))


def test_an_array_of_other_axes_is_no_image(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 3)))
    with pytest.raises(FlexsegError, match=r"a.npy is an array of 4 axes, not an image"):
        readers.read_header(str(tmp_path / "a.npy"))


def test_more_pixels_than_opencv_takes_are_told_with_the_remedy(tmp_path):
    path, side = tmp_path / "a.png", 1 << 16  # said by the header alone

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 99))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b""))
    with pytest.raises(FlexsegError, match=r"a.png cannot be .*OPENCV_IO_MAX_IMAGE_PIXELS"):
        readers.read_image(str(path), 1, max_pixels=side**2)


def test_a_color_image_is_never_reduced_to_gray(tmp_path, save):
    save(tmp_path / "a.png", RGB)
    with pytest.raises(FlexsegError, match=r"a.png has colours; a gray image was expected"):
        readers.read_image(str(tmp_path / "a.png"), 1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "ppm"])
def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path, save, suffix, share):
    path = tmp_path / f"cut.{suffix}"
    save(path, np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for read in (readers.read_mask, lambda p: readers.read_image(p, 3)):
        with pytest.raises(FlexsegError, match=rf"cut.{suffix} is (truncated|not a readable)"):
            read(str(path))


@pytest.mark.parametrize(("suffix", "missing"), [("jpg", 2), ("png", 12)])
def test_a_file_that_lacks_nothing_but_its_end_marker_is_truncated(tmp_path, save, suffix, missing):
    path = tmp_path / f"cut.{suffix}"
    save(path, RGB)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(FlexsegError, match=rf"cut.{suffix} is (truncated|not a readable)"):
        readers.read_image(str(path), 3)


def test_a_png_with_a_flipped_bit_is_refused_by_name(tmp_path, save):
    path = tmp_path / "flipped.png"
    save(path, RGB)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(FlexsegError, match=r"flipped.png is not a readable image"):
        readers.read_image(str(path), 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"no image at all", "is not a readable image")],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    for read in (readers.read_header, readers.read_mask, lambda p: readers.read_image(p, 3)):
        with pytest.raises(FlexsegError, match=rf"odd.png {reason}"):
            read(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FlexsegError, match=r"gone.png is missing"):
        readers.read_header(str(tmp_path / "gone.png"))
    with pytest.raises(FlexsegError, match=r"gone.png (is missing|cannot be read: No such file)"):
        readers.read_image(str(tmp_path / "gone.png"), 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", True),
        ("A.JPeG", True),
        ("a.b.TIFF", True),
        ("a.txt", False),
        ("png", False),
        (".a.png", False),
        ("a.png.bak", False),
    ],
)
def test_images_are_known_by_their_suffix_in_any_case(name, expected):
    assert readers.is_image(name) is expected
