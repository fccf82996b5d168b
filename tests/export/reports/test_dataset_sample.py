"""Which records of a dataset are looked at, and which are shown."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.reports import dataset_sample
from export.reports.dataset_sample import Found
from flexseg_errors import FlexsegError
from pipelines import manifest as manifests
from pipelines.whole_images import whole_images


def record(index, classes, source=None):
    pixels = tuple(int(k in classes) for k in range(4))
    return Found(
        "train", "shard", index, f"r{index}", source or f"s{index}", "", False, (8, 8), pixels
    )


records = st.lists(st.sets(st.integers(0, 3)), max_size=40).map(
    lambda held: [record(i, classes, f"s{i % 7}") for i, classes in enumerate(held)]
)


@given(records, st.integers(0, 50))
def test_as_many_as_can_be_are_chosen_each_once_in_order(found, most):
    chosen = dataset_sample.choose(found, most)
    assert len(chosen) == min(most, len(found))
    assert [one for one in found if one in chosen] == chosen
    assert dataset_sample.choose(found, most) == chosen


@given(records, st.integers(5, 20))
def test_every_class_is_shown(found, most):
    held = {k for one in found for k in one.classes}
    shown = {k for one in dataset_sample.choose(found, most) for k in one.classes}
    assert shown == held


def test_a_class_of_one_record_is_not_lost_among_thousands():
    found = [record(i, {0, 1}) for i in range(3000)]
    found[1234] = record(1234, {0, 3})
    assert found[1234] in dataset_sample.choose(found, 5)


def test_many_sources_are_shown():
    found = [record(i, {0, 1}, f"s{i // 100}") for i in range(1000)]
    sources = [one.source for one in dataset_sample.choose(found, 20)]
    assert set(collections.Counter(sources).values()) == {2}


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 30), min_size=1), st.integers(0, 60)
)
def test_pictures_are_divided_evenly_and_none_is_wasted(available, total):
    shares = dataset_sample.shares(available, total)
    assert sum(shares.values()) == min(total, sum(available.values()))
    assert all(shares[name] <= available[name] for name in available)
    short = [shares[name] for name in available if shares[name] < available[name]]
    assert not short or max(shares.values()) - min(short) <= 1


@pytest.fixture
def manifest(dataset):
    return manifests.load(str(dataset))


def test_what_is_found_is_what_the_records_hold(manifest):
    for split in manifest.splits:
        whole = {name: (image, ids) for name, image, ids in whole_images(manifest, split)}
        found = dataset_sample.find(manifest, split)
        assert [one.source for one in found] == list(whole)
        for one in found:
            image, ids = whole[one.source]
            assert one.class_pixels == tuple(np.bincount(ids.ravel(), minlength=4))
            assert one.size == ids.shape
            for read, expected in zip(dataset_sample.pixels(one), (image, ids), strict=True):
                np.testing.assert_array_equal(read, expected)


def test_of_a_large_split_the_head_of_every_shard_is_read(manifest):
    shards = manifest.splits["train"].shards
    found = dataset_sample.find(manifest, "train", most=len(shards))
    assert [one.offset for one in found] == [0] * len(shards)
    assert len({one.path for one in found}) == len(shards)


def test_a_missing_shard_is_told(manifest):
    lost = manifests.Manifest(**{**vars(manifest), "folder": "/nowhere"})
    with pytest.raises(FlexsegError, match=r"is not there.*flexseg verify"):
        dataset_sample.find(lost, "train")
