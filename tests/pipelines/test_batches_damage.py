"""A damaged record stops with file and byte, or is left out and counted; never without a word."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import batches, manifest, records
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


DAMAGE = {
    flip_data: "has damaged data",
    flip_length: "has a damaged length",
    cut: "is cut off",
    no_example: "is no example",
    bad_pixels: "no whole png",
}
TO_THE_END = (flip_length, cut)  # nobody knows where the next record begins


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_stops_with_file_and_byte(spoilt, damage):
    dataset, path, offset, _ = spoilt(damage)
    with pytest.raises(FlexsegError) as error, batches.explained(dataset, "train", "valid"):
        list(batches.train(dataset, TrainInput(COUNT)).take(1))
    assert f"{path}: the record at byte {offset} {DAMAGE[damage]}" in str(error.value) or (
        damage is bad_pixels and DAMAGE[damage] in str(error.value)
    )
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
    found = batches.skipped(dataset, TrainInput(1, on_corrupt="skip"))
    assert sum(d.lost for d in found) == in_shard


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
