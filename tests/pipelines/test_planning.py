"""Which source goes into which shard: small, pure, and by the size of the pixels."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import warnings

import cv2
import numpy as np
import pytest

from pipelines import planning, readers, shards, sources, storage
from pipelines.augment import load as load_augment
from pipelines.label_map import load
from pipelines.masks import MaskReading
from pipelines.preparation import Preparation
from pipelines.shards import Options

OPTIONS = Options(
    label_map=load("{(0,0,0):0,(255,0,0):1}"),
    preparation=Preparation(),
    masks=MaskReading(color_tolerance=10.0),
)
MIB, GIB = 1 << 20, 1 << 30


def stems(count: int) -> list[str]:
    return [f"s{i:02d}" for i in range(count)]


@pytest.fixture
def found(tmp_path, draw):
    """Sources of two splits, train and test, in turn."""
    draw(tmp_path, stems(20))
    layout = sources.Layout("", str(tmp_path / "images"), str(tmp_path / "masks"))
    paired = sources.pair(layout, None).sources
    return [dataclasses.replace(s, split=("train", "test")[i % 2]) for i, s in enumerate(paired)]


def test_a_plan_is_small_and_pure(found):
    """It never holds pixels and does not depend on the order in which files are found."""
    plans = planning.plan(found, OPTIONS)
    assert planning.plan(found[::-1], OPTIONS) == plans
    assert sorted(s.id for p in plans for s in p.sources) == stems(20)
    for split in ("train", "test"):
        own = [p for p in plans if p.split == split]
        assert [p.name for p in own] == [f"{split}-{i:05d}-of-00008.tfrecord" for i in range(8)]
        sizes = [len(p.sources) for p in own]
        assert max(sizes) - min(sizes) <= 1


def test_a_fold_is_written_in_training_form_too_where_that_differs(found):
    folds = [dataclasses.replace(s, split=f"fold{i % 2}") for i, s in enumerate(found)]
    found = [*folds[:18], *(dataclasses.replace(s, split="test") for s in folds[18:])]
    plain = dataclasses.replace(OPTIONS, folds=2)
    assert {p.split for p in planning.plan(found, plain)} == {"fold0", "fold1", "test"}
    augmented = dataclasses.replace(plain, augment=load_augment("seed-lung"))
    plans = planning.plan(found, augmented)
    assert {p.split for p in plans} == {"fold0", "fold1", "test", "fold0_train", "fold1_train"}
    assert {p.split for p in plans if p.training} == {"fold0_train", "fold1_train"}

    def held(split):
        return sorted(s.id for p in plans if p.split == split for s in p.sources)

    assert held("fold0") == held("fold0_train")
    assert held("fold1") == held("fold1_train")


@pytest.mark.parametrize(
    ("encoding", "decoded", "count", "options", "wanted"),
    [
        ("raw", 1, 100, {}, 8),  # at least eight
        ("raw", 1, 5, {}, 5),  # one source cannot lie in two
        ("raw", 20 * 64 * MIB, 10**6, {}, 16),  # 16 MiB more than 64 each
        ("png", 20 * 128 * MIB, 10**6, {}, 16),  # a PNG is half as large as its pixels
        ("raw", 100 * GIB * 5 // 4, 10**6, {}, 1024),  # 100 MiB each
        ("raw", 1025 * GIB * 5 // 4, 10**6, {}, 2048),  # 1024 would have more than 1 GiB each
        ("raw", 20 * 64 * MIB, 10**6, {"num_shards": 3}, 3),
        ("raw", 125 * 10**6, 10**6, {"shard_size_mb": 10}, 10),
        ("raw", 1, 10**6, {"shard_size_mb": 10}, 1),
    ],
)
def test_the_number_of_shards_follows_the_bytes(encoding, decoded, count, options, wanted):
    options = dataclasses.replace(OPTIONS, image_encoding=encoding, **options)
    assert planning.shard_count(decoded, count, options) == wanted


def test_copies_count_too(found, monkeypatch):
    seen = []
    monkeypatch.setattr(planning, "shard_count", lambda size, *_: seen.append(size) or 1)
    planning.plan(found, dataclasses.replace(OPTIONS, augment=load_augment("seed-lung")))
    train, test = seen
    assert test == 10 * 12 * 16 * 4  # images with their masks
    assert train == test * load_augment("seed-lung").examples_per_source


def test_options_survive_the_plan():
    for augment in (None, load_augment("seed-lung")):
        options = dataclasses.replace(OPTIONS, augment=augment, preparation=Preparation((3, 4)))
        assert Options.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_a_fingerprint_changes_with_options_and_files_alone(found, tmp_path):
    plan = planning.plan(found, OPTIONS)[0]
    before = plan.fingerprint(OPTIONS, {})
    assert plan.fingerprint(OPTIONS, {}) == before
    assert plan.fingerprint(dataclasses.replace(OPTIONS, tile_size=8), {}) != before
    other = shards.ShardPlan(plan.name, plan.split, plan.channels, plan.sources[1:])
    assert other.fingerprint(OPTIONS, {}) != before
    with open(plan.sources[0].mask, "ab") as file:
        file.write(b" ")
    assert plan.fingerprint(OPTIONS, {}) != before


def test_colors_that_the_preprocessing_needs_are_planned_for_gray_images(tmp_path, draw):
    draw(tmp_path, stems(2), gray=True)
    layout = sources.Layout("train", str(tmp_path / "images"), str(tmp_path / "masks"))
    gray = sources.pair(layout, None).sources
    assert {p.channels for p in planning.plan(gray, OPTIONS)} == {1}
    for text, channels in (("gamma=2", 1), ("color=BGR2HSV", 3)):
        options = dataclasses.replace(OPTIONS, preparation=Preparation(preprocessing=text))
        assert {p.channels for p in planning.plan(gray, options)} == {channels}


@pytest.mark.parametrize(
    ("suffix", "whole"), [("png", 0), ("jpg", 0), ("webp", 1), ("bmp", 0), ("tif", 1), ("npy", 1)]
)
def test_of_an_image_elsewhere_no_more_is_fetched_than_its_header_takes(
    tmp_path, monkeypatch, suffix, whole
):
    path, fetched = str(tmp_path / f"a.{suffix}"), []
    pixels = np.random.default_rng(0).integers(0, 256, (211, 307, 3), dtype=np.uint8)
    if suffix == "npy":
        np.save(path, pixels)
    else:
        cv2.imwrite(path, pixels)

    @contextlib.contextmanager
    def fetch(path):
        fetched.append(path)
        yield path

    monkeypatch.setattr(storage, "local_copy", fetch)
    monkeypatch.setattr(storage, "open_read", functools.partial(open, mode="rb"))
    monkeypatch.setattr(storage, "is_remote", lambda _: True)
    source = sources.Source("a", f"a.{suffix}", path, "", "a")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert planning._headers([source], OPTIONS) == {path: readers.Header(211, 307, 3)}
    assert not told, "of what is cut off, Pillow would warn the user"
    assert fetched == [path] * whole  # its header is at its end, or is held to its size
    with open(path, "wb") as file:
        file.write(b"no image")
    assert planning._headers([source], OPTIONS) == {}, "the worker says what is wrong"
