"""A record is what the common TensorFlow schema says, gives the very pixels, and shows damage."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexseg_errors import FlexsegError
from pipelines import records
from pipelines.records import Record

NUM_CLASSES = 4


@st.composite
def made(draw: st.DrawFn) -> Record:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    channels = draw(st.sampled_from([1, 3]))
    return Record(
        image=draw(hnp.arrays(np.uint8, (height, width, channels))),
        mask=draw(hnp.arrays(np.uint8, (height, width), elements=st.integers(0, NUM_CLASSES - 1))),
        source_id=draw(st.text("abcäß漢/.", min_size=1, max_size=8)),
        filename="bücher/a.jpg",
        origin=(draw(st.integers(0, 9)), draw(st.integers(0, 9))),
        source_size=(height + 9, width + 9),
        augmentation=draw(st.sampled_from(["", "flip"])),
    )


def framed(*data: bytes) -> bytes:
    file = io.BytesIO()
    for one in data:
        file.writelines(records.framed(one))
    return file.getvalue()


def read(content: bytes) -> list[tuple[int, bytes]]:
    return list(records.read_framed(io.BytesIO(content), "train-0.tfrecord"))


@given(made())
@settings(max_examples=40)
def test_tensorflow_finds_every_feature_and_the_very_pixels(record):
    example = tf.train.Example.FromString(records.encode(record, NUM_CLASSES))
    features = {}
    for key, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[key] = (kind, list(getattr(feature, kind).value))
    height, width, channels = record.image.shape
    pixels = [int((record.mask == k).sum()) for k in range(NUM_CLASSES)]
    image = features.pop("image/encoded")[1][0]
    mask = features.pop("image/segmentation/class/encoded")[1][0]
    assert features == {
        "image/format": ("bytes_list", [b"png"]),
        "image/height": ("int64_list", [height]),
        "image/width": ("int64_list", [width]),
        "image/channels": ("int64_list", [channels]),
        "image/filename": ("bytes_list", [record.filename.encode()]),
        "image/source_id": ("bytes_list", [record.source_id.encode()]),
        "image/segmentation/class/format": ("bytes_list", [b"png"]),
        "image/segmentation/class/pixels": ("int64_list", pixels),
        "image/tile/origin": ("int64_list", list(record.origin)),
        "image/source/size": ("int64_list", list(record.source_size)),
        "image/augmentation": ("bytes_list", [record.augmentation.encode()]),
    }
    assert (tf.io.decode_png(image).numpy() == record.image).all()
    assert (tf.io.decode_png(mask).numpy() == record.mask[..., None]).all()


@given(made())
@settings(max_examples=20)
def test_a_record_comes_back_in_the_graph(record):
    parsed = records.parse(tf.constant(records.encode(record, NUM_CLASSES)))
    channels = record.image.shape[-1]
    assert (records.decode_image(parsed["image"], channels).numpy() == record.image).all()
    assert (records.decode_mask(parsed["mask"]).numpy() == record.mask).all()
    assert parsed["source_id"].numpy().decode() == record.source_id
    assert tuple(parsed["origin"].numpy()) == record.origin
    assert tuple(parsed["source_size"].numpy()) == record.source_size


@given(made())
@settings(max_examples=20)
def test_the_same_record_gives_the_same_bytes_in_any_memory_layout(record):
    import dataclasses

    wide = np.repeat(record.image, 2, axis=1)[:, ::2]  # the same pixels with gaps between them
    again = dataclasses.replace(record, image=wide, mask=np.asfortranarray(record.mask))
    data = records.encode(record, NUM_CLASSES)
    assert records.encode(again, NUM_CLASSES) == data
    sorted_keys = tf.train.Example.FromString(data).SerializeToString(deterministic=True)
    assert data == sorted_keys


@given(made())
@settings(max_examples=20)
def test_what_parses_without_tensorflow_is_what_tensorflow_parses(record):
    data = records.encode(record, NUM_CLASSES)
    theirs = {}
    for key, feature in tf.train.Example.FromString(data).features.feature.items():
        theirs[key] = list(getattr(feature, feature.WhichOneof("kind")).value)
    assert records.parse_features(data) == theirs


@given(st.lists(st.binary(max_size=50), max_size=6))
@settings(max_examples=40)
def test_files_are_those_that_tensorflow_writes(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("framing")
    with tf.io.TFRecordWriter(str(folder / "theirs")) as writer:
        for one in data:
            writer.write(one)
    content = framed(*data)
    assert content == (folder / "theirs").read_bytes()
    assert [one for _, one in read(content)] == data
    offsets = [16 * i + sum(map(len, data[:i])) for i in range(len(data))]
    assert [offset for offset, _ in read(content)] == offsets


def test_tensorflow_reads_the_files(tmp_path):
    data = [b"first", b"", b"third" * 100]
    (tmp_path / "ours").write_bytes(framed(*data))
    found = tf.data.TFRecordDataset(str(tmp_path / "ours")).as_numpy_iterator()
    assert list(found) == data


def test_a_flipped_bit_is_found_wherever_it_lies_and_its_record_is_named():
    content = framed(b"a" * 7, b"b" * 9)
    second = 16 + 7
    for position in range(len(content)):
        for bit in (0, 7):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            record = 0 if position < second else second
            what = "length" if position - record < 12 else "data"
            with pytest.raises(FlexsegError) as error:
                read(bytes(damaged))
            assert str(error.value) == (
                f"train-0.tfrecord: the record at byte {record} has a damaged {what}."
                if what == "length"
                else f"train-0.tfrecord: the record at byte {record} has damaged data."
            )


def test_a_file_that_is_cut_off_is_found_and_its_last_record_is_named():
    content = framed(b"a" * 7, b"b" * 9)
    second = 16 + 7
    for length in range(1, len(content)):
        if length == second:
            continue  # whole records alone; the manifest's count tells
        record = 0 if length < second else second
        with pytest.raises(FlexsegError, match=f"the record at byte {record} is cut off"):
            read(content[:length])


def test_what_comes_before_the_damage_is_read():
    content = framed(b"a", b"b")[:-1]
    found = records.read_framed(io.BytesIO(content), "x")
    assert next(found) == (0, b"a")
    with pytest.raises(FlexsegError):
        next(found)


def test_a_length_that_is_wrong_but_checked_is_cut_off():
    length = struct.pack("<Q", 1 << 40)
    import google_crc32c

    crc = google_crc32c.value(length)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    with pytest.raises(FlexsegError, match="byte 0 is cut off"):
        read(length + struct.pack("<I", masked) + b"little")


def test_pixels_of_classes_leave_out_the_ignore_id():
    mask = np.array([[0, 1, 1], [255, 3, 255]], np.uint8)
    assert records.class_pixels(mask, NUM_CLASSES).tolist() == [1, 2, 0, 1]


@pytest.mark.parametrize("count", [12, 13, 255])
def test_pixels_of_many_classes_are_counted_as_those_of_few(count):
    mask = np.random.default_rng(0).integers(0, count, (40, 50), dtype=np.uint8)
    mask[::7] = 255
    expected = np.bincount(mask.ravel(), minlength=256)[:count]
    assert records.class_pixels(mask, count).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("text", "expected"), [("jpeg", ("jpeg", 95)), ("jpeg:7", ("jpeg", 7)), ("png", ("png", 0))]
)
def test_an_encoding_has_its_quality(text, expected):
    assert records.parse_encoding(text) == expected
