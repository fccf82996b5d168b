"""A bundle decodes image files to the bytes that the dataset job reads from them."""

import io
import struct

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from export.bundles import graph_decoding, graph_intensity, graph_orientation
from flexseg_errors import FlexsegError
from pipelines import intensity as intensities
from pipelines import readers
from pipelines.intensity import Intensity


@pytest.fixture(scope="module")
def decoders():
    """Decoders by (channels, intensity), each traced once, as in a bundle."""
    made = {}

    def decoder(channels=3, intensity="none"):
        key = channels, intensity
        if key not in made:
            kind = intensities.parse(intensity)
            spec = tf.TensorSpec([], tf.string)
            made[key] = tf.function(
                lambda data: graph_decoding.decode(data, channels, kind), input_signature=[spec]
            )
        return lambda data: made[key](data).numpy()

    return decoder


def written(image, form, orientation=None, mode=None, **options):
    """An image file, as bytes; Pillow's encoders, so that none of ours is at work."""
    picture = Image.fromarray(image.squeeze())
    picture = picture.convert(mode) if mode else picture
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][274] = orientation
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def read(tmp_path, data, suffix, channels, intensity="none"):
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(data)
    return readers.read_image(str(path), channels, intensities.parse(intensity))


FILES = {
    "jpeg": ("JPEG", {"quality": 80}),
    "jpeg, progressive, all chroma": ("JPEG", {"progressive": True, "subsampling": 0}),
    "jpeg, gray": ("JPEG", {"mode": "L"}),
    "png": ("PNG", {}),
    "png, gray": ("PNG", {"mode": "L"}),
    "png, 1 bit": ("PNG", {"mode": "1"}),
    "png, palette": ("PNG", {"mode": "P"}),
    "png, gray and alpha": ("PNG", {"mode": "LA"}),
    "png, alpha": ("PNG", {"mode": "RGBA"}),
    "bmp": ("BMP", {}),
    "bmp, gray": ("BMP", {"mode": "L"}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_decoded_to_the_bytes_that_are_learnt_from(decoders, draw_image, tmp_path, name):
    form, options = FILES[name]
    data = written(draw_image((37, 50)), form, **options)
    for channels in (3, 1):
        has_colors = options.get("mode", "RGB") in ("RGB", "P", "RGBA")
        if channels == 1 and has_colors:
            with pytest.raises(FlexsegError, match="has colours"):
                read(tmp_path, data, form.lower(), channels)
            with pytest.raises(tf.errors.InvalidArgumentError, match="has colours"):
                decoders(channels)(data)
        else:
            expected = read(tmp_path, data, form.lower(), channels)
            np.testing.assert_array_equal(decoders(channels)(data), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_an_image_is_turned_as_it_is_displayed(decoders, draw_image, form, orientation):
    data = written(draw_image((21, 34)), form, orientation)
    displayed = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    found = decoders()(data)
    assert found.shape == displayed.shape
    # Pillow's and TensorFlow's JPEG decoders may be builds of their own.
    assert abs(found.astype(int) - displayed).max() <= (2 if form == "JPEG" else 0)


def jpeg_with(segments, image):
    """A JPEG file with segments (marker, data) behind its first two bytes."""
    plain = written(image, "JPEG")
    head = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", 2 + len(data)) + data for marker, data in segments
    )
    return plain[:2] + head + plain[2:]


def exif(value, order="<", tag=0x0112, offset=8, count=1):
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, offset)
    entry = struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    return b"Exif\0\0" + head + struct.pack(order + "H", count) + entry + bytes(4)


@pytest.mark.parametrize(
    ("segments", "orientation"),
    [
        ([(0xE1, exif(6))], 6),
        ([(0xE1, exif(6, ">"))], 6),
        ([(0xE2, b"ICC" + bytes(60_000)), (0xFE, b"comment"), (0xE1, exif(8))], 8),
        ([(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), (0xE1, exif(3))], 3),
        ([(0xE1, exif(6)), (0xE1, exif(3))], 6),
        ([(0xE1, exif(6, tag=0x0113))], 1),
        ([(0xE1, exif(0))], 1),
        ([(0xE1, exif(9))], 1),
        ([(0xE1, exif(6, offset=60_000))], 1),
        ([(0xE1, exif(6, count=65_535))], 6),
        ([(0xE1, b"Exif\0\0")], 1),
        ([(0xE1, b"Exif\0\0II")], 1),
        ([], 1),
    ],
)
def test_exif_is_found_wherever_it_stands_and_nonsense_is_upright(
    draw_image, segments, orientation
):
    data = jpeg_with(segments, draw_image((9, 13)))
    found = graph_orientation.of_file(tf.io.decode_raw(data, tf.uint8))
    assert found.numpy() == orientation


@pytest.mark.parametrize("data", [b"\0", b"\xff\xd8", b"\x89PNG", b"\xff\xd8\xff\xe1", bytes(99)])
def test_what_is_no_image_has_no_orientation_and_does_not_loop(data):
    assert graph_orientation.of_file(tf.io.decode_raw(data, tf.uint8)).numpy() == 1


@pytest.mark.parametrize("padding", [1, 40])
def test_padding_between_segments_is_passed_over(draw_image, padding):
    data = jpeg_with([(0xE1, exif(5))], draw_image((9, 13)))
    data = data[:2] + b"\xff" * padding + data[2:]
    assert graph_orientation.of_file(tf.io.decode_raw(data, tf.uint8)).numpy() == 5


def deep(channels=1):
    rng = np.random.default_rng(3)
    shape = (19, 27, channels) if channels > 1 else (19, 27)
    return rng.normal(30_000, 9000, shape).clip(0, 65_535).astype(np.uint16)


KINDS = ["window:30000,20000", "minmax", "percentile:1,99", "percentile:0.5,97.25", "minmax-slice"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_files_become_the_bytes_that_are_learnt_from(decoders, tmp_path, kind, channels):
    data = cv2.imencode(".png", deep(channels))[1].tobytes()
    expected = read(tmp_path, data, "png", 3, kind)
    np.testing.assert_array_equal(decoders(3, kind)(data), expected)
    assert len(np.unique(expected)) > 50


def test_files_of_8_bits_are_mapped_too_as_the_readers_do(decoders, draw_image, tmp_path):
    data = written(draw_image((20, 30)), "PNG")
    expected = read(tmp_path, data, "png", 3, "window:100,90")
    np.testing.assert_array_equal(decoders(3, "window:100,90")(data), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 65_535]], np.uint16),
        np.full((3, 4), 7, np.uint16),
        np.arange(1000, dtype=np.int32).reshape(10, 100) * 61,
        np.array([[5]], np.uint8),
    ],
)
def test_the_map_in_the_graph_is_that_of_the_dataset_job(kind, values):
    expected = Intensity.apply(intensities.parse(kind), values)
    found = graph_intensity.to_uint8(tf.constant(values), intensities.parse(kind)).numpy()
    np.testing.assert_array_equal(found, expected)


def test_deep_files_are_refused_where_nothing_says_what_they_mean(decoders):
    data = cv2.imencode(".png", deep())[1].tobytes()
    with pytest.raises(tf.errors.InvalidArgumentError, match="The image has 16 bits"):
        decoders()(data)


@pytest.mark.parametrize("kind", ["no image", "empty", "cut PNG", "cut JPEG"])
def test_what_cannot_be_decoded_is_an_error(decoders, draw_image, kind):
    data = {"no image": b"hello, there", "empty": b""}.get(kind)
    if data is None:
        data = written(draw_image((60, 60)), kind[4:])
        data = data[: len(data) // 2]
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoders()(data)
