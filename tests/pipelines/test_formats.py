"""Files that would unpack to too much, hold several images, or wrap PNM are met as they should."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from flexseg_errors import FlexsegError
from pipelines import formats

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (13, 21), dtype=np.uint8)
RGB = RNG.integers(0, 256, (13, 21, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (13, 21), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 4096, (13, 21, 3), dtype=np.uint16)


def pnm(pixels: np.ndarray, max_value: int, plain: bool = False) -> bytes:
    """Written by the definition of the format, comments and all."""
    kind = (2 if pixels.ndim == 2 else 3) + (0 if plain else 3)
    head = f"P{kind}\n# made by a test, 3 x 4\n{pixels.shape[1]} {pixels.shape[0]}\n{max_value}\n"
    if plain:
        return (head + " ".join(map(str, pixels.ravel()))).encode()
    return head.encode() + pixels.astype(">u2" if max_value > 255 else np.uint8).tobytes()


EXAMPLES = [
    pytest.param(GRAY, 255, id="gray"),
    pytest.param(RGB, 255, id="rgb"),
    pytest.param(GRAY // 64, 3, id="few values"),
    pytest.param(DEEP, 65535, id="deep gray"),
    pytest.param(DEEP_RGB, 4095, id="deep rgb"),
]


@pytest.mark.parametrize("packed", [False, True], ids=["bare", "gzipped"])
@pytest.mark.parametrize(("pixels", "max_value"), EXAMPLES)
def test_pnm_gives_its_very_pixels(pixels, max_value, packed):
    data = pnm(pixels, max_value)
    data = gzip.compress(data) if packed else data
    header = formats.pnm_header(data, "a.ppm")
    assert (header.height, header.width) == pixels.shape[:2]
    assert header.channels == (3 if pixels.ndim == 3 else 1)
    assert header.max_value == max_value
    decoded = formats.decode_pnm(data, "a.ppm")
    assert decoded.dtype == pixels.dtype
    assert (decoded == pixels).all()


@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_pnm_in_plain_text_gives_its_very_pixels(pixels):
    data = pnm(pixels, 255, plain=True)
    for file in (data, data + b"\n", gzip.compress(data)):
        assert (formats.decode_pnm(file, "a.ppm") == pixels).all()


def test_what_pillow_writes_is_read(tmp_path):
    path = tmp_path / "a.pbm"
    Image.fromarray(GRAY > 127).save(path)
    for data in (path.read_bytes(), gzip.compress(path.read_bytes())):
        assert (formats.decode_pnm(data, "a.pbm") == np.where(GRAY > 127, 255, 0)).all()
    Image.fromarray(RGB).save(tmp_path / "a.ppm")
    assert (formats.decode_pnm((tmp_path / "a.ppm").read_bytes(), "a.ppm") == RGB).all()


def test_a_header_is_read_from_the_beginning_of_a_file():
    data = gzip.compress(pnm(RNG.integers(0, 65536, (500, 400), dtype=np.uint16), 65535))
    assert formats.pnm_header(data[: 1 << 12], "a.pgm.gz").height == 500


@pytest.mark.parametrize("packed", [False, True], ids=["bare", "gzipped"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
@pytest.mark.parametrize(("pixels", "max_value"), EXAMPLES)
def test_truncated_pnm_is_refused_by_name(pixels, max_value, packed, share):
    data = pnm(pixels, max_value)
    data = gzip.compress(data) if packed else data
    with pytest.raises(FlexsegError, match=r"cut.ppm is truncated"):
        formats.decode_pnm(data[: int(len(data) * share)], "cut.ppm")


def test_gzipped_pnm_with_a_flipped_bit_is_refused_by_name():
    data = bytearray(gzip.compress(pnm(RGB, 255)))
    data[-6] ^= 1  # in the checksum
    with pytest.raises(FlexsegError, match=r"odd.ppm is damaged: it cannot be unzipped"):
        formats.decode_pnm(bytes(data), "odd.ppm")


@pytest.mark.parametrize(
    "data",
    [b"", b"P5", b"P5\n3\n", b"P7\nWIDTH 2\n", b"P5 3 x 255\n...", gzip.compress(b"P5 9", mtime=0)],
)
def test_what_is_no_pnm_is_refused_by_name(data):
    with pytest.raises(FlexsegError, match=r"odd.pgm is not a readable image: expected a PNM"):
        formats.decode_pnm(data, "odd.pgm")


@pytest.mark.parametrize("value", [0, 65536])
def test_a_greatest_value_out_of_range_is_refused(value):
    with pytest.raises(FlexsegError, match=rf"odd.pgm: its greatest value is {value}"):
        formats.decode_pnm(b"P5 1 1 %d\n\0\0" % value, "odd.pgm")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    bomb = gzip.compress(b"P5 60000 60000 255\n" + bytes(1 << 20))
    unpacked = []
    inflate = formats._inflate

    def watch(data, limit, *args, **kwargs):
        unpacked.append(limit)
        return inflate(data, limit, *args, **kwargs)

    monkeypatch.setattr(formats, "_inflate", watch)
    with pytest.raises(FlexsegError, match=r"60000x60000, 3,600,000,000 pixels.*--max_pixels"):
        formats.decode_pnm(bomb, "bomb.pgm.gz")
    assert sum(unpacked) < 1 << 20


def test_what_follows_the_image_is_not_unpacked():
    padded = gzip.compress(pnm(GRAY, 255) + bytes(1 << 24))
    assert (formats.decode_pnm(padded, "a.pgm.gz") == GRAY).all()


def test_pixels_are_limited_by_their_number():
    formats.check_pixels(10, 10, 100, "a.png")
    with pytest.raises(FlexsegError, match=r"a.png is 10x11, 110 pixels.*--max_pixels=100 .*raise"):
        formats.check_pixels(10, 11, 100, "a.png")
    with pytest.raises(FlexsegError, match=r"a.png is 0x11: it holds no pixel"):
        formats.check_pixels(0, 11, 100, "a.png")


@pytest.mark.parametrize(("suffix", "what"), [("tif", "pages"), ("webp", "frames")])
def test_a_file_of_several_images_is_refused(tmp_path, suffix, what):
    path = tmp_path / f"many.{suffix}"
    pages = [Image.fromarray(np.ascontiguousarray(RGB[:, ::step])) for step in (1, -1, 1)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with (
        Image.open(path) as image,
        pytest.raises(FlexsegError, match=rf"many.{suffix} holds 3 {what}; one image per file"),
    ):
        formats.refuse_several_pages(image, str(path))


@pytest.mark.parametrize("suffix", ["tif", "webp", "png", "jpg"])
def test_a_file_of_one_image_passes(tmp_path, suffix):
    path = tmp_path / f"one.{suffix}"
    Image.fromarray(RGB).save(path)
    with Image.open(path) as image:
        formats.refuse_several_pages(image, str(path))


def test_the_preview_that_a_camera_adds_to_a_jpeg_is_no_page(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(RGB).save(
        path, format="MPO", save_all=True, append_images=[Image.fromarray(RGB[::2, ::2].copy())]
    )
    with Image.open(path) as image:
        assert image.n_frames == 2
        formats.refuse_several_pages(image, str(path))
