"""A damaged record stops with file and byte, or is left out and counted; never without a word."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import batches, damage, manifest, records
from pipelines.batches import TrainInput
from pipelines.label_map import IGNORE_ID

COUNT = 24


@pytest.fixture(scope="module")
def whole(tmp_path_factory, save, colors, prepare_quietly):
    """Each image's value is its number; three records to a shard."""
    folder = tmp_path_factory.mktemp("damage")
    for split, first, count in (("train", 0, COUNT), ("valid", 100, 3)):
        for i in range(first, first + count):
            save(folder / f"data/{split}/images/{i}.png", np.full((8, 8, 3), i, np.uint8))
            save(folder / f"data/{split}/masks/{i}.png", colors[np.zeros((8, 8), int)])
    prepare_quietly(folder / "data", folder / "out")
    return folder / "out"


@pytest.fixture
def spoilt(whole, tmp_path):
    """`spoilt(damage, split)` damages the second record of a shard: (manifest, path, offset)."""

    def run(damage, split="train"):
        shutil.copytree(whole, tmp_path / "out")
        path = sorted((tmp_path / "out").glob(f"{split}-*"))[min(3, 7 if split == "train" else 1)]
        with open(path, "rb") as file:
            offsets = [offset for offset, _ in records.read_framed(file, "")]
        which = min(1, len(offsets) - 1)
        data = bytearray(path.read_bytes())
        path.write_bytes(damage(data, offsets[which]))
        return manifest.load(str(tmp_path / "out")), str(path), offsets[which], len(offsets)

    return run


def flip_data(data, offset):
    data[offset + 40] ^= 1
    return data


def flip_length(data, offset):
    data[offset + 1] ^= 1
    return data


def cut(data, offset):
    return data[: offset + 20]


def reframed(data, offset, change):
    (length,) = struct.unpack("<Q", data[offset : offset + 8])
    content = change(bytes(data[offset + 12 : offset + 12 + length]))
    return data[:offset] + b"".join(records.framed(content)) + data[offset + 16 + length :]


def no_example(data, offset):
    return reframed(data, offset, lambda content: b"\xff" * len(content))


def bad_pixels(data, offset):
    """Its checksum is right, but the image is not what it was when it was encoded."""

    def change(content):
        place = content.index(b"IDAT") + 10
        return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]

    return reframed(data, offset, change)


def bad_mask(data, offset):
    """The last chunk of the mask's PNG, and with it the file, ends without its end."""

    def change(content):
        place = content.rindex(b"IEND")
        return content[:place] + b"IEnD" + content[place + 4 :]

    return reframed(data, offset, change)


def no_png(data, offset):
    """Its image is of another format than its record says."""

    def change(content):
        place = content.index(b"PNG")
        return content[:place] + b"GIF" + content[place + 3 :]

    return reframed(data, offset, change)


DAMAGE = {
    flip_data: "has damaged data",
    flip_length: "has a damaged length",
    cut: "is cut off",
    no_example: "is no example",
    bad_pixels: "holds an image that is no whole png",
    no_png: "holds an image that is no whole png",
    bad_mask: "holds a mask that is no whole PNG",
}
TO_THE_END = (flip_length, cut)  # nobody knows where the next record begins


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_stops_with_file_and_byte(spoilt, damage):
    dataset, path, offset, _ = spoilt(damage)
    with pytest.raises(FlexsegError) as error, batches.explained(dataset, "train", "valid"):
        list(batches.train(dataset, TrainInput(COUNT)).take(1))
    assert f"{path}: the record at byte {offset} {DAMAGE[damage]}" in str(error.value)
    assert "data.on_corrupt=skip" in str(error.value)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_left_out_counted_and_costs_no_other_record(spoilt, damage):
    dataset, path, offset, in_shard = spoilt(damage)
    options = TrainInput(1, on_corrupt="skip")
    lost = in_shard - 1 if damage in TO_THE_END else 1
    found = batches.skipped(dataset, options)
    assert [(d.path, d.offset, d.lost) for d in found] == [(path, offset, lost)]
    assert f"left out of this epoch: {lost}. The first: {path}" in batches.describe_damage(found)
    length = COUNT - lost
    seen = [
        int(b["image"][0, 0, 0, 0])
        for b in batches.train(dataset, options).take(2 * length).as_numpy_iterator()
    ]
    assert len(set(seen[:length])) == length, "every other record, once"
    assert set(seen[:length]) == set(seen[length:])
    again = next(iter(batches.train(dataset, options, length + 2)))
    assert int(again["image"][0, 0, 0, 0]) == seen[length + 2], "and the order can be entered"


def test_without_damage_nothing_is_left_out_or_changed(whole):
    dataset = manifest.load(str(whole))
    options = TrainInput(4, seed=3, on_corrupt="skip")
    assert batches.skipped(dataset, options) == []
    streams = (batches.train(dataset, o).take(8) for o in (options, TrainInput(4, seed=3)))
    for one, other in zip(*streams, strict=True):
        assert (one["image"].numpy() == other["image"].numpy()).all()


def test_a_shard_that_is_gone_is_named_or_left_out(spoilt):
    dataset, path, _, in_shard = spoilt(lambda data, _: data)
    shutil.move(path, path + ".away")
    with pytest.raises(FlexsegError) as error, batches.explained(dataset, "train"):
        list(batches.train(dataset, TrainInput(COUNT)).take(1))
    assert path in str(error.value)
    (found,) = batches.skipped(dataset, TrainInput(1, on_corrupt="skip"))
    assert found.lost == in_shard
    assert str(found).startswith(f"{path} cannot be read: ")
    assert f". ({in_shard}" not in str(found)


def test_evaluation_stops_or_skips_as_training_does(spoilt):
    dataset, path, *_ = spoilt(flip_data, "valid")
    with pytest.raises(FlexsegError) as error, batches.explained(dataset, "valid"):
        list(batches.evaluation(dataset, "valid", 1))
    assert path in str(error.value)
    found = list(batches.evaluation(dataset, "valid", 2, on_corrupt="skip").as_numpy_iterator())
    counted = [b["image"][b["mask"] != IGNORE_ID] for b in found]
    assert sum(len(c) for c in counted) == 2 * 64


def test_an_error_that_is_not_of_the_data_passes_as_it_is(whole):
    dataset = manifest.load(str(whole))
    with pytest.raises(tf.errors.InvalidArgumentError), batches.explained(dataset, "train"):
        raise tf.errors.InvalidArgumentError(None, None, "something else")
    with pytest.raises(ZeroDivisionError), batches.explained(dataset, "train"):
        raise ZeroDivisionError


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_an_image_that_is_cut_off_within_its_record_is_found_in_every_encoding(
    tmp_path, save, colors, prepare_quietly, encoding
):
    save(tmp_path / "data/images/a.png", np.full((8, 8, 3), 7, np.uint8))
    save(tmp_path / "data/masks/a.png", colors[np.zeros((8, 8), int)])
    flags = ["--split=train:1", f"--image_encoding={encoding}"]
    prepare_quietly(tmp_path / "data", tmp_path / "out", *flags)
    dataset = manifest.load(str(tmp_path / "out"))
    assert not damage.survey(dataset.paths("train"), dataset.split("train").shards)
    (path,) = dataset.paths("train")
    with open(path, "rb") as file:
        ((_, content),) = records.read_framed(file, "")
    example = tf.train.Example.FromString(content)
    image = example.features.feature[records.ENCODED].bytes_list
    image.value[0] = image.value[0][:-1]
    with open(path, "wb") as file:
        file.writelines(records.framed(example.SerializeToString()))
    (found,) = damage.survey([path], dataset.split("train").shards)
    expected = f"{path}: the record at byte 0 holds an image that is no whole {encoding}"
    assert str(found) == expected
    with pytest.raises(FlexsegError) as error:  # there is no other record
        batches.skipped(dataset, TrainInput(1, on_corrupt="skip"))
    assert str(error.value) == f"No record could be read; the first: {expected}. Prepare again."


@pytest.mark.parametrize("change", [-2, -1, 1, 3])
def test_a_shard_that_is_not_the_one_noted_is_told_by_its_records(spoilt, change):
    """It is whole, but the manifest says otherwise: a file of an earlier or a later dataset."""

    def exchanged(data, offset):
        return data[:offset] if change < 0 else data + data[:offset] * change

    dataset, path, _, noted = spoilt(exchanged)
    held = 1 if change < 0 else noted + change
    lost = noted - held if change < 0 else noted  # of one with more, nothing is to be trusted
    told = f"{path} holds {held} records, but the dataset's manifest says {noted}"
    (found,) = batches.skipped(dataset, TrainInput(1, on_corrupt="skip"))
    assert found.lost == lost
    assert str(found).removesuffix(f" ({lost} records lost)") == told
    length = COUNT - lost
    stream = batches.train(dataset, TrainInput(1, on_corrupt="skip")).take(length)
    seen = {int(b["image"][0, 0, 0, 0]) for b in stream.as_numpy_iterator()}
    assert len(seen) == length
    with pytest.raises(FlexsegError) as error, batches.explained(dataset, "test", "train"):
        raise tf.errors.DataLossError(None, None, "whatever TensorFlow says")
    assert str(error.value).startswith(told)
