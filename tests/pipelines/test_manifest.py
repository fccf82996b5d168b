"""`flexseg verify` holds every byte to the manifest, and a manifest that is none is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from pipelines import manifest, records
from pipelines.manifest import Tally


@pytest.fixture(scope="module")
def original(tmp_path_factory, draw, prepare_quietly):
    folder = tmp_path_factory.mktemp("manifest")
    draw(folder / "data", [f"s{i}" for i in range(12)])
    prepare_quietly(folder / "data", folder / "out", "--split=train:0.75,test:0.25")
    return folder / "out"


@pytest.fixture
def dataset(original, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(original, tmp_path / "out")
    return tmp_path / "out"


def test_a_dataset_as_it_was_made_is_well(dataset, command):
    result = command("verify", dataset)
    assert result.status == 0
    assert result.out == f"{dataset}: 12 records in 11 shards, all as they were made.\n"


def spoil_missing(dataset):
    (dataset / "test-00001-of-00003.tfrecord").unlink()
    return "test-00001-of-00003.tfrecord: is missing"


def spoil_length(dataset):
    path = dataset / "train-00002-of-00008.tfrecord"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    return f"{path.name}: the record at byte 0 has a damaged length."


def spoil_end(dataset):
    path = dataset / "train-00002-of-00008.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    return f"{path.name}: the record at byte 0 is cut off."


def spoil_count(dataset):
    path = dataset / "train-00002-of-00008.tfrecord"
    path.write_bytes(path.read_bytes() * 2)
    return f"{path.name}: holds 2 records, expected 1"


def spoil_emptied(dataset):
    path = dataset / "train-00002-of-00008.tfrecord"
    path.write_bytes(b"")
    return f"{path.name}: holds 0 records, expected 1"


def spoil_swapped(dataset):
    one, other = (dataset / f"train-0000{i}-of-00008.tfrecord" for i in (2, 3))
    shutil.copy(one, other)
    return f"{other.name}: its SHA-256 is not the one in dataset.json"


def spoil_content(dataset):
    path = dataset / "train-00002-of-00008.tfrecord"
    with open(path, "wb") as file:
        file.writelines(records.framed(b"no example"))
    return f"{path.name}: the record at byte 0 is not an example"


def spoil_stranger(dataset):
    (dataset / "train-00000-of-00099.tfrecord").write_bytes(b"")
    return "train-00000-of-00099.tfrecord: is not part of the dataset"


SPOILERS = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_what_is_not_as_it_was_made_is_named(dataset, command, spoil):
    problem = spoil(dataset)
    result = command("verify", dataset)
    assert result.status == 1
    assert problem in result.err
    assert "run `flexseg prepare` again to mend it" in result.err


def test_all_problems_are_shown_together(dataset, command):
    problems = {spoil(dataset) for spoil in (spoil_missing, spoil_length, spoil_stranger)}
    error = command("verify", dataset).err
    assert all(problem in error for problem in problems)
    assert len(manifest.verify(str(dataset))) == 3


def test_a_manifest_survives_its_file(dataset):
    loaded = manifest.load(str(dataset))
    assert manifest.dump(loaded) == (dataset / "dataset.json").read_text()
    assert loaded.folder == str(dataset)
    assert loaded.paths("test") == [
        str(dataset / f"test-0000{i}-of-00003.tfrecord") for i in range(3)
    ]
    assert loaded.split("train").examples == 9


def test_a_split_that_is_not_there_is_refused_with_those_that_are(dataset):
    with pytest.raises(FlexsegError, match=r'no split "valid"; it has train, test'):
        manifest.load(str(dataset)).split("valid")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "is no folder: it is not a dataset"),
        (lambda p: p.mkdir(), "holds no dataset.json: it is not a dataset, or `flexseg prepare`"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path, command, make, message):
    make(tmp_path / "x")
    result = command("verify", tmp_path / "x")
    assert result.status == 1
    assert message in result.err
    assert str(tmp_path / "x") in result.err


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"splits"', '"split"'),
        lambda text: text.replace('"sha256"', '"sha"'),
        lambda text: json.dumps({**json.loads(text), "splits": []}),
        lambda text: text.replace('"channels"', '"channels\xff"').encode("latin-1"),
    ],
)
def test_a_damaged_manifest_is_named_with_the_remedy(dataset, damage):
    path = dataset / "dataset.json"
    text = damage(path.read_text())
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FlexsegError, match=r"dataset.json is damaged .* run `flexseg prepare`"):
        manifest.load(str(dataset))


def test_a_manifest_of_another_format_is_refused(dataset):
    path = dataset / "dataset.json"
    path.write_text(path.read_text().replace("flexseg-dataset/1", "flexseg-dataset/9"))
    with pytest.raises(FlexsegError, match=r"format 'flexseg-dataset/9'; expected"):
        manifest.load(str(dataset))


@given(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(0, 2**32))
@settings(max_examples=25)
def test_a_tally_sums_up_as_numpy_does_however_the_records_lie_in_shards(count, channels, seed):
    rng = np.random.default_rng(seed)
    images = [
        rng.integers(0, 256, (*rng.integers(1, 9, 2), channels), np.uint8) for _ in range(count)
    ]
    masks = [rng.integers(0, 3, image.shape[:2]).astype(np.uint8) for image in images]
    parts = [Tally(4, channels) for _ in range(2)]
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        parts[i % 2].add(image, records.class_pixels(mask, 4))
    described = [
        {
            "name": f"{i}",
            "tally": part.to_dict(),
            "bytes": 1,
            "sha256": "",
            "sources": 1,
            "class_sources": [1, i, 0, 0],
            "groups": ["g", f"{i}"],
            "unmatched_pixels": i,
        }
        for i, part in enumerate(parts)
    ]
    split = manifest.summarize(described)
    flat = np.concatenate([image.reshape(-1, channels) for image in images])
    ids = np.concatenate([mask.ravel() for mask in masks])
    assert split.examples == count
    assert (split.sources, split.groups, split.unmatched_pixels) == (2, 3, 1)
    assert split.class_pixels == tuple(int((ids == k).sum()) for k in range(4))
    assert split.class_sources == (2, 1, 0, 0)
    assert split.class_examples == tuple(sum(k in mask for mask in masks) for k in range(4))
    assert np.allclose(split.channel_mean, flat.mean(0), atol=1e-6)
    assert np.allclose(split.channel_std, flat.std(0), atol=1e-5)
    sizes = np.array([mask.shape for mask in masks])
    assert split.min_size == tuple(sizes.min(0))
    assert split.max_size == tuple(sizes.max(0))


@pytest.mark.parametrize("span", [1, 2, 100, 256])
@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (700, 33), (2100, 2200)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sums_of_an_image_are_exact_in_views_too(size, channels, span):
    rng = np.random.default_rng(span)
    whole = rng.integers(256 - span, 256, (size[0] + 3, size[1] + 2, channels), np.uint8)
    image = whole[3:, 2:]
    wide = image.reshape(-1, channels).astype(np.int64)
    sums, squares = manifest._sums(image)
    assert (sums == wide.sum(0)).all()
    assert (squares == (wide * wide).sum(0)).all()
