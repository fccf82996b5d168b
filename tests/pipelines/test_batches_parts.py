"""Several hosts see together what one would see, and a batch can be told by its records' names."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import batches, manifest
from pipelines.batches import Part, TrainInput
from pipelines.label_map import IGNORE_ID
from pipelines.online_augment import Augmentation

HEIGHT, WIDTH = 10, 14
COUNTS = {"train": 11, "valid": 5}
EVERYTHING = Augmentation(True, True, True, 20.0, 0.25, 0.1, 0.2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, save, colors, prepare_quietly):
    """Records whose every pixel says which source, row and column it is."""
    folder = tmp_path_factory.mktemp("parts")
    y, x = np.indices((HEIGHT, WIDTH))
    numbers = itertools.count()
    for split, count in COUNTS.items():
        for i in range(count):
            index = next(numbers)
            image = np.stack([np.full_like(y, index), y, x], -1).astype(np.uint8)
            ids = np.random.default_rng(index).integers(0, 4, (HEIGHT, WIDTH), np.uint8)
            save(folder / "data" / split / "images" / f"{i}.png", image)
            save(folder / "data" / split / "masks" / f"{i}.png", colors[ids])
    prepare_quietly(folder / "data", folder / "out")
    return manifest.load(str(folder / "out"))


def take(dataset, options, count, start=0, part=None):
    stream = batches.train(dataset, options, start, part).take(count)
    return list(stream.as_numpy_iterator())


def records_in(found):
    return [i for batch in found for i in batch["image"][:, 0, 0, 0].tolist()]


# ---- By data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 4])
def test_slices_by_data_put_together_are_the_stream_of_one_process(dataset, workers, start):
    options = TrainInput(6, seed=3, crop_size=(8, 8), augmentation=EVERYTHING)
    whole = take(dataset, options, 4, start)
    parts = [take(dataset, options, 4, start, Part(i, workers, "data")) for i in range(workers)]
    for step, expected in enumerate(whole):
        for key in expected:
            together = np.concatenate([part[step][key] for part in parts])
            assert together.shape == expected[key].shape
            assert (together == expected[key]).all()


# ---- By file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_by_file_read_shards_of_their_own_once_an_epoch(dataset, workers):
    shards = dataset.split("train").shards
    seen = []
    for index in range(workers):
        own = sum(s.examples for s in shards[index::workers])
        found = take(dataset, TrainInput(workers, seed=3), 2 * own, 0, Part(index, workers, "file"))
        assert all(len(batch["image"]) == 1 for batch in found)
        order = records_in(found)
        assert sorted(order[:own]) == sorted(order[own:]) == sorted(set(order))
        seen += order[:own]
    assert sorted(seen) == list(range(COUNTS["train"])), "all records, each with one worker"


def test_a_worker_by_file_goes_on_at_any_step(dataset):
    options = TrainInput(4, seed=3, augmentation=EVERYTHING)
    part = Part(1, 2, "file")
    unbroken = take(dataset, options, 7, 0, part)
    for start in range(1, 7):
        again = take(dataset, options, 7 - start, start, part)
        for one, other in zip(again, unbroken[start:], strict=True):
            assert all((one[key] == other[key]).all() for key in other)


def test_no_two_workers_by_file_draw_the_same_augmentation(tmp_path, save, colors, prepare_quietly):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for i in range(8):
        # One image under many names: blank but for a pixel, lest it be found twice.
        save(tmp_path / f"data/train/images/{i}.png", image)
        save(tmp_path / f"data/train/masks/{i}.png", colors[np.zeros((16, 16), int)])
    prepare_quietly(tmp_path / "data", tmp_path / "out")
    same = manifest.load(str(tmp_path / "out"))
    options = TrainInput(2, augmentation=Augmentation(rotation=180.0))
    draws = [
        picture.tobytes()
        for index in (0, 1)
        for batch in take(same, options, 6, 0, Part(index, 2, "file"))
        for picture in batch["image"]
    ]
    assert len(set(draws)) == len(draws) == 12


# ---- The choice ----------------------------------------------------------------------------------


def test_files_are_dealt_out_where_there_are_two_for_each_worker(dataset):
    shards = len(dataset.split("train").shards)
    for count in range(1, shards + 2):
        expected = "file" if shards >= 2 * count else "data"
        for index in range(count):
            assert batches.choose_part(dataset, index, count) == Part(index, count, expected)


def test_a_batch_that_cannot_be_divided_is_refused(dataset):
    for by in ("file", "data"):
        with pytest.raises(FlexsegError, match=r"data.batch_size=4 cannot be divided among 3"):
            batches.train(dataset, TrainInput(4), 0, Part(0, 3, by))
    with pytest.raises(FlexsegError, match="Worker 2 of 2"):
        Part(2, 2, "data")


# ---- Evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["file", "data"])
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("batch_size", [6, 12])
@pytest.mark.parametrize("crop", [None, (8, 8), (16, 16), (4, 5)])
def test_workers_evaluate_every_pixel_once_in_equally_many_batches(
    dataset, workers, batch_size, crop, by
):
    one = list(batches.evaluation(dataset, "valid", batch_size, crop).as_numpy_iterator())
    parts = [
        list(
            batches.evaluation(
                dataset, "valid", batch_size, crop, Part(i, workers, by)
            ).as_numpy_iterator()
        )
        for i in range(workers)
    ]
    assert {len(part) for part in parts} == {len(one)}
    for step, expected in enumerate(one):
        for key in expected:
            together = np.concatenate([part[step][key] for part in parts])
            assert (together == expected[key]).all()
    counted = [
        tuple(place)
        for part in parts
        for batch in part
        for place in batch["image"][batch["mask"] != IGNORE_ID].tolist()
    ]
    indices = range(COUNTS["train"], COUNTS["train"] + COUNTS["valid"])
    assert sorted(counted) == list(itertools.product(indices, range(HEIGHT), range(WIDTH)))


# ---- Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [None, Part(1, 2, "data"), Part(1, 2, "file")])
def test_the_records_of_a_step_are_those_of_its_batch(dataset, part):
    options = TrainInput(6, seed=8)
    for step, batch in enumerate(take(dataset, options, 5, 0, part)):
        names = batches.record_ids(dataset, options, step, part)
        assert names == [f"train/{i}" for i in records_in([batch])]


def test_tiles_and_augmented_copies_are_told_apart(tmp_path, draw, prepare_quietly):
    draw(tmp_path / "data/train", ["a", "b"], (20, 16))
    (tmp_path / "augment.yaml").write_text("variants:\n  - hflip\n")
    prepare_quietly(
        tmp_path / "data", tmp_path / "out", "--tile_size=10", f"--augment={tmp_path}/augment.yaml"
    )
    tiled = manifest.load(str(tmp_path / "out"))
    count = tiled.split("train").examples
    names = batches.record_ids(tiled, TrainInput(count), 0)
    assert len(set(names)) == count, names
    origins = {f"({y}, {x})" for y in (0, 10) for x in (0, 6)}
    for stem in "ab":
        own = [n for n in names if n.startswith(f"train/{stem} ")]
        plain = [n.removeprefix(f"train/{stem} ") for n in own if "[" not in n]
        assert set(plain) == origins
        assert {n.removeprefix(f"train/{stem} ").partition(" [")[0] for n in own} == origins
