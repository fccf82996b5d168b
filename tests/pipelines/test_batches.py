"""Step k sees the same batch however it was reached; evaluation counts every pixel once.

The images say where they come from: the channels of a pixel are its record, its row, its column.
"""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import batches, manifest
from pipelines.batches import TrainInput
from pipelines.label_map import IGNORE_ID
from pipelines.online_augment import Augmentation

HEIGHT, WIDTH = 10, 14
COUNTS = {"train": 11, "valid": 5, "test": 3}
EVERYTHING = Augmentation(True, True, True, 20.0, 0.25, 0.1, 0.2)


def coded(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    y, x = np.indices((height, width))
    return np.stack([np.full_like(y, index), y, x], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def truth(tmp_path_factory, save, colors, prepare_quietly):
    """The dataset's folder, and record -> mask of class ids."""
    folder = tmp_path_factory.mktemp("batches")
    masks = {}
    for split, count in COUNTS.items():
        for i in range(count):
            index = len(masks)
            masks[index] = np.random.default_rng(index).integers(0, 4, (HEIGHT, WIDTH), np.uint8)
            save(folder / "data" / split / "images" / f"{i}.png", coded(index))
            save(folder / "data" / split / "masks" / f"{i}.png", colors[masks[index]])
    prepare_quietly(folder / "data", folder / "out")
    return folder / "out", masks


@pytest.fixture(scope="module")
def dataset(truth):
    return manifest.load(str(truth[0]))


def take(dataset, options, count, start=0):
    """Steps `start` to `count` - 1 as NumPy."""
    stream = batches.train(dataset, options, start).take(count - start)
    return list(stream.as_numpy_iterator())


def order(dataset, options, examples):
    """The records of the first examples of the stream."""
    steps = -(-examples // options.batch_size)
    found = [i for b in take(dataset, options, steps) for i in b["image"][:, 0, 0, 0].tolist()]
    return found[:examples]


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            assert (a[key] == b[key]).all()


# ---- Training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        TrainInput(4, seed=3),
        TrainInput(4, seed=3, crop_size=(8, 8), augmentation=EVERYTHING),
        TrainInput(25, seed=3, augmentation=EVERYTHING),
        TrainInput(3, seed=3, crop_size=(16, 12), shuffle_bytes=2000),
    ],
    ids=["plain", "crop and augmentation", "batch above dataset", "small buffer"],
)
def test_a_start_at_any_step_goes_on_as_an_unbroken_run(dataset, options):
    steps = 6  # beyond two epochs
    unbroken = take(dataset, options, steps)
    same(take(dataset, options, steps), unbroken)
    for start in range(1, steps):
        same(take(dataset, options, steps, start), unbroken[start:])


def test_a_start_far_into_training_is_reached(dataset):
    options = TrainInput(1, seed=1)
    step = 11 * 1_000_000 + 5
    first = next(iter(batches.train(dataset, options, step)))["image"].numpy()
    epoch = list(batches.train(dataset, options, 11 * 1_000_000).take(11).as_numpy_iterator())
    assert (first == epoch[5]["image"]).all()


@pytest.mark.parametrize("batch_size", [1, 4, 11, 25])
def test_every_record_is_seen_exactly_once_in_each_epoch(dataset, batch_size):
    seen = order(dataset, TrainInput(batch_size, seed=5), 44)
    epochs = [seen[i : i + 11] for i in range(0, 44, 11)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(11))
    assert len({tuple(epoch) for epoch in epochs}) == 4, "each in an order of its own"


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else(dataset):
    orders = {
        seed: [order(dataset, TrainInput(size, seed=seed), 33) for size in (1, 3, 4, 33)]
        for seed in (0, 1, 2)
    }
    for found in orders.values():
        assert all(one == found[0] for one in found), "whatever the batch"
    assert len({tuple(found[0]) for found in orders.values()}) == 3, "each seed has its own"


def test_the_programs_global_seeds_change_nothing(dataset):
    options = TrainInput(4, seed=3, crop_size=(8, 8), augmentation=EVERYTHING)
    unbroken = take(dataset, options, 4)
    try:
        for seed in (0, 5):
            tf.random.set_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            same(take(dataset, options, 4), unbroken)
    finally:
        tf.random.set_seed(None)


def test_two_streams_read_at_once_do_not_disturb_each_other(dataset):
    options = TrainInput(4, seed=3)
    alone = take(dataset, options, 6)
    both = zip(batches.train(dataset, options), batches.train(dataset, options), strict=True)
    for (one, other), expected in zip(itertools.islice(both, 6), alone, strict=True):
        assert (one["image"].numpy() == expected["image"]).all()
        assert (other["image"].numpy() == expected["image"]).all()


def test_unaugmented_examples_are_their_records(dataset, truth):
    for batch in take(dataset, TrainInput(4), 6):
        assert batch["image"].dtype == batch["mask"].dtype == np.uint8
        assert batch["image"].shape == (4, HEIGHT, WIDTH, 3)
        for image, mask in zip(batch["image"], batch["mask"], strict=True):
            index = image[0, 0, 0]
            assert (image == coded(index)).all()
            assert (mask == truth[1][index]).all()


def test_crops_are_windows_of_their_records_and_lie_everywhere(dataset, truth):
    corners = set()
    for batch in take(dataset, TrainInput(11, crop_size=(7, 8)), 30):
        for image, mask in zip(batch["image"], batch["mask"], strict=True):
            index, y, x = image[0, 0].tolist()
            assert (image == coded(index)[y : y + 7, x : x + 8]).all()
            assert (mask == truth[1][index][y : y + 7, x : x + 8]).all()
            corners.add((y, x))
    assert corners == set(itertools.product(range(HEIGHT - 6), range(WIDTH - 7)))


def test_an_example_is_augmented_differently_in_each_epoch(dataset):
    options = TrainInput(11, augmentation=Augmentation(rotation=90.0))
    first, second = ({i.tobytes() for i in b["image"]} for b in take(dataset, options, 2))
    assert len(first | second) == 22


def test_shapes_are_known_to_the_graph(dataset):
    spec = batches.train(dataset, TrainInput(4, crop_size=(8, 6))).element_spec
    assert spec["image"].shape == (4, 8, 6, 3)
    assert spec["mask"].shape == (4, 8, 6)


# ---- Evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize(
    "crop",
    [None, (10, 14), (8, 8), (3, 5), (1, 14), (16, 16), (10, 9), (4, 20)],
    ids=lambda c: "whole" if c is None else f"{c[0]}x{c[1]}",
)
def test_every_pixel_of_a_split_counts_once_and_in_order(dataset, truth, batch_size, crop):
    seen = []
    for batch in batches.evaluation(dataset, "valid", batch_size, crop).as_numpy_iterator():
        assert batch["image"].shape == (batch_size, *(crop or (HEIGHT, WIDTH)), 3)
        assert batch["image"].dtype == batch["mask"].dtype == np.uint8
        counts = batch["mask"] != IGNORE_ID
        places, labels = batch["image"][counts].tolist(), batch["mask"][counts].tolist()
        for (index, y, x), label in zip(places, labels, strict=True):
            assert label == truth[1][index][y, x], "mask and image are of the same place"
            seen.append((index, y, x))
    first = COUNTS["train"]
    expected = range(first, first + COUNTS["valid"])
    assert sorted(seen) == list(itertools.product(expected, range(HEIGHT), range(WIDTH)))
    records = [index for index, _ in itertools.groupby(index for index, _, _ in seen)]
    names = [i for i, *_ in batches.whole_images(dataset, "valid")]
    assert records == [first + int(name.partition("/")[2]) for name in names], "in their order"


def test_the_last_batch_is_filled_up_with_what_does_not_count(dataset):
    last = list(batches.evaluation(dataset, "valid", 4))[-1]
    assert (last["mask"].numpy()[1:] == IGNORE_ID).all()
    assert (last["mask"].numpy()[0] != IGNORE_ID).all()


def test_evaluation_is_the_same_each_time(dataset):
    one, other = (
        list(batches.evaluation(dataset, "valid", 2, (8, 8)).as_numpy_iterator()) for _ in "ab"
    )
    same(one, other)


def test_whole_images_are_the_prepared_sources(dataset, truth):
    for split in COUNTS:
        found = list(batches.whole_images(dataset, split))
        assert len(found) == COUNTS[split]
        for _, image, mask in found:
            index = image[0, 0, 0]
            assert (image == coded(index)).all()
            assert (mask == truth[1][index]).all()


# ---- Gray, several sizes, damage -----------------------------------------------------------------


def test_gray_records_stay_one_channel(tmp_path, draw, prepare_quietly):
    pairs = draw(tmp_path / "data", ["a", "b", "c"], gray=True)
    prepare_quietly(tmp_path / "data", tmp_path / "out")
    gray = manifest.load(str(tmp_path / "out"))
    images = [pair.image.tolist() for pair in pairs.values()]
    assert next(iter(batches.train(gray, TrainInput(1))))["image"].numpy()[0].tolist() in images
    assert next(iter(batches.evaluation(gray, "test", 1)))["image"].shape == (1, 12, 16, 1)
    assert next(batches.whole_images(gray, "valid"))[1].tolist() in images


@pytest.fixture
def uneven(tmp_path, draw, prepare_quietly):
    draw(tmp_path / "data/train", ["a", "b"], (10, 14))
    draw(tmp_path / "data/train", ["c"], (9, 20))
    draw(tmp_path / "data/test", ["d"], (30, 8))
    prepare_quietly(tmp_path / "data", tmp_path / "out")
    return manifest.load(str(tmp_path / "out"))


def test_records_of_several_sizes_need_a_crop_and_the_message_says_so(uneven):
    for read in (
        lambda: batches.train(uneven, TrainInput(2)),
        lambda: batches.evaluation(uneven, "test", 2),
    ):
        with pytest.raises(FlexsegError, match=r"several sizes \(9x14 to 30x8\)") as error:
            read()
        assert "Set data.crop_size" in str(error.value)
        assert "--image_size or --tile_size" in str(error.value)


def test_records_of_several_sizes_can_be_cropped(uneven):
    batch = next(iter(batches.train(uneven, TrainInput(6, crop_size=(12, 12)))))
    assert batch["image"].shape == (6, 12, 12, 3)
    found = list(batches.evaluation(uneven, "test", 2, (12, 12)).as_numpy_iterator())
    counted = sum((batch["mask"] != IGNORE_ID).sum() for batch in found)
    assert counted == 30 * 8


def test_a_split_that_is_not_there_is_named(uneven):
    with pytest.raises(FlexsegError, match=r'no split "valid"; it has train, test'):
        batches.evaluation(uneven, "valid", 1, (8, 8))


def drop_a_record(path):
    data = path.read_bytes()
    length = 16 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[length:])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_the_end(path):
    path.write_bytes(path.read_bytes()[:-5])


def repeat_a_record(path):
    path.write_bytes(path.read_bytes() * 2)


@pytest.mark.parametrize("damage", [drop_a_record, flip_a_bit, cut_the_end, repeat_a_record])
def test_a_damaged_shard_stops_the_reading_and_is_never_passed_over(tmp_path, truth, damage):
    shutil.copytree(truth[0], tmp_path / "out")
    for split in COUNTS:
        damage(sorted((tmp_path / "out").glob(f"{split}-*"))[1])
    spoilt = manifest.load(str(tmp_path / "out"))
    with pytest.raises(tf.errors.OpError):
        take(spoilt, TrainInput(11), 2)
    with pytest.raises(tf.errors.OpError):
        list(batches.evaluation(spoilt, "valid", 1))


@pytest.mark.parametrize("damage", [flip_a_bit, cut_the_end])
def test_a_damaged_shard_of_whole_images_is_named(tmp_path, truth, damage):
    shutil.copytree(truth[0], tmp_path / "out")
    damage(tmp_path / "out/valid-00002-of-00005.tfrecord")
    with pytest.raises(FlexsegError, match=r"valid-00002-of-00005.tfrecord: the record at byte 0"):
        list(batches.whole_images(manifest.load(str(tmp_path / "out")), "valid"))
