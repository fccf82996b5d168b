"""Foreground oversampling and empty records: shares are kept, and the stream stays a function."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import batches, manifest, oversampling
from pipelines.batches import Part, TrainInput
from pipelines.online_augment import Augmentation

SIDE = 24
EMPTY, FULL = 12, 5  # records without and with foreground
EVERYTHING = Augmentation(True, True, True, 180.0, 0.3, shear=0.2, elastic=0.03)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, save, colors, prepare_quietly):
    """Each image's red is its number; foreground is a spot of one class, or of two."""
    folder = tmp_path_factory.mktemp("sampling") / "data"
    for i in range(EMPTY + FULL):
        ids = np.zeros((SIDE, SIDE), np.uint8)
        if i >= EMPTY:
            rng = np.random.default_rng(i)
            y, x = rng.integers(0, SIDE - 2, 2)
            ids[y : y + 2, x : x + 2] = 1 + i % 2
        save(folder / f"train/images/{i}.png", np.full((SIDE, SIDE, 3), i, np.uint8))
        save(folder / f"train/masks/{i}.png", colors[ids])
    prepare_quietly(folder, folder.parent / "out")
    return manifest.load(str(folder.parent / "out"))


def take(dataset, options, count, start=0, part=None):
    stream = batches.train(dataset, options, start, part).take(count)
    return list(stream.as_numpy_iterator())


def numbers(found):
    return [int(i) for batch in found for i in batch["image"][:, 0, 0, 0]]


@pytest.mark.parametrize("share", [0.25, 0.33, 0.5, 1.0])
@pytest.mark.parametrize("augmentation", [None, EVERYTHING], ids=["plain", "augmented"])
def test_a_share_of_every_batch_shows_foreground(dataset, share, augmentation):
    options = TrainInput(
        6, seed=2, crop_size=(10, 10), foreground_share=share, augmentation=augmentation
    )
    shown = [(b["mask"] > 0).any((1, 2)).sum() for b in take(dataset, options, 8)]
    assert min(shown) >= np.floor(6 * share)
    plain = take(dataset, TrainInput(6, seed=2, crop_size=(10, 10)), 8)
    assert sum(shown) > sum((b["mask"] > 0).any((1, 2)).sum() for b in plain)


def test_the_rest_is_the_stream_of_all_records_once_an_epoch(dataset):
    options = TrainInput(4, seed=2, foreground_share=0.25)
    found = numbers(take(dataset, options, 17 * 4 // 3 + 1))
    others = [n for place, n in enumerate(found) if place % 4 != 3]
    for epoch in (others[:17], others[17:34]):
        assert sorted(epoch) == list(range(17))
    forced = [n for place, n in enumerate(found) if place % 4 == 3]
    for epoch in (forced[:5], forced[5:10]):
        assert sorted(epoch) == list(range(EMPTY, EMPTY + FULL))


def test_classes_are_drawn_evenly_whatever_their_size():
    import tensorflow as tf

    mask = np.zeros((16, 16), np.uint8)
    mask[:8, :8], mask[15, 15], mask[0, 15] = 1, 2, 255
    found = collections.Counter()
    for place in range(200):
        y, x = oversampling.draw_focus(
            tf.constant(mask), tf.constant(True), (1, 2, 3), 0, tf.constant(place, tf.int64)
        ).numpy()
        found[int(mask[y, x])] += 1
    assert set(found) == {1, 2}
    assert 70 < found[1] < 130
    nothing = tf.zeros([4, 4], tf.uint8)
    for wanted in (True, False):
        place = tf.constant(0, tf.int64)
        focus = oversampling.draw_focus(nothing, tf.constant(wanted), (1,), 0, place)
        assert focus.numpy().tolist() == [-1, -1]


def test_a_class_alone_can_be_the_foreground(dataset):
    names = dataset.label_map.names
    for given in (("2",), (names[2],)):
        options = TrainInput(
            4, seed=2, crop_size=(10, 10), foreground_share=1.0, foreground_classes=given
        )
        for batch in take(dataset, options, 3):
            assert (batch["mask"] == 2).any((1, 2)).all()
    for wrong in ("9", "nonesuch"):
        with pytest.raises(FlexsegError, match=f'no class "{wrong}"; known are'):
            batches.check(dataset, TrainInput(4, foreground_classes=(wrong,)))


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_an_epoch_keeps_a_share_of_the_empty_records_and_each_epoch_others(dataset, rate):
    kept = round(rate * EMPTY)
    length = FULL + kept
    found = numbers(take(dataset, TrainInput(1, seed=4, empty_rate=rate), 6 * length))
    epochs = [found[i : i + length] for i in range(0, len(found), length)]
    full = set(range(EMPTY, EMPTY + FULL))
    for epoch in epochs:
        assert len(set(epoch)) == length
        assert full <= set(epoch)
    if kept:
        assert len({frozenset(epoch) - full for epoch in epochs}) >= 4
        assert set(found[: 4 * length]) == set(range(EMPTY + FULL)), (
            "after 1 / rate epochs all are seen"
        )


def test_nothing_left_is_an_error(dataset, tmp_path, save, colors, prepare_quietly):
    save(tmp_path / "data/train/images/a.png", np.zeros((8, 8, 3), np.uint8))
    save(tmp_path / "data/train/masks/a.png", colors[np.zeros((8, 8), int)])
    prepare_quietly(tmp_path / "data", tmp_path / "out")
    empty = manifest.load(str(tmp_path / "out"))
    with pytest.raises(FlexsegError, match=r"data.empty_rate leaves nothing"):
        batches.train(empty, TrainInput(1, empty_rate=0.0))
    with pytest.raises(FlexsegError, match=r"data.foreground_share needs records with foreground"):
        batches.train(empty, TrainInput(1, foreground_share=0.5))


ALL = {
    "crop_size": (10, 10),
    "foreground_share": 0.34,
    "empty_rate": 0.4,
    "augmentation": Augmentation(True, True, True, 30.0, 0.2, noise=0.1, elastic=0.02, cutmix=0.7),
}


@pytest.mark.parametrize("part", [None, Part(1, 2, "data"), Part(0, 2, "file")])
def test_with_everything_on_a_start_at_any_step_goes_on_as_an_unbroken_run(dataset, part):
    options = TrainInput(6, seed=3, **ALL)
    unbroken = take(dataset, options, 7, 0, part)
    for start in (1, 4):
        again = take(dataset, options, 7 - start, start, part)
        for one, other in zip(again, unbroken[start:], strict=True):
            assert all((one[key] == other[key]).all() for key in other)


@pytest.mark.parametrize("workers", [2, 3])
def test_with_everything_on_slices_by_data_are_the_stream_of_one_process(dataset, workers):
    options = TrainInput(6, seed=3, **ALL)
    whole = take(dataset, options, 4)
    parts = [take(dataset, options, 4, 0, Part(i, workers, "data")) for i in range(workers)]
    for step, expected in enumerate(whole):
        for key in expected:
            together = np.concatenate([part[step][key] for part in parts])
            assert (together == expected[key]).all()


def test_the_records_of_a_step_are_told_with_oversampling_too(dataset):
    options = TrainInput(5, seed=3, foreground_share=0.4, empty_rate=0.5)
    for step, batch in enumerate(take(dataset, options, 4)):
        assert batches.record_ids(dataset, options, step) == [
            f"train/{n}" for n in numbers([batch])
        ]


# ---- Cache ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "part", "start"),
    [("memory", None, 0), ("disk", Part(1, 2, "data"), 3), ("memory", Part(0, 2, "file"), 3)],
)
def test_a_cache_changes_nothing(dataset, kind, part, start):
    options = TrainInput(6, seed=3, shuffle_bytes=1500, **ALL)
    cached = TrainInput(6, seed=3, shuffle_bytes=1500, cache=kind, **ALL)
    one, other = (take(dataset, o, 4, start, part) for o in (options, cached))
    for a, b in zip(one, other, strict=True):
        assert all((a[key] == b[key]).all() for key in a)


def test_a_cache_reads_no_file_again(dataset, monkeypatch):
    options = TrainInput(4, seed=3, cache="memory")
    expected = take(dataset, TrainInput(4, seed=3), 12)
    stream = batches.train(dataset, options)
    monkeypatch.setattr(type(dataset), "paths", lambda *_: ["/gone"])
    for one, other in zip(stream.take(12).as_numpy_iterator(), expected, strict=True):
        assert (one["image"] == other["image"]).all()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_cache_that_has_no_room_is_refused(dataset, kind, monkeypatch):
    from pipelines import pixel_cache

    monkeypatch.setattr(pixel_cache, "_room", lambda _: 1000)
    with pytest.raises(FlexsegError, match=f"data.cache={kind} needs .* GiB"):
        batches.train(dataset, TrainInput(4, cache=kind))
