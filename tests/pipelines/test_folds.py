"""A run on one fold trains on all others and validates on it; every source is validated on once."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import folds, manifest
from pipelines.label_map import load as load_label_map
from pipelines.manifest import Manifest, Split, Tally
from pipelines.preparation import Preparation

CLASSES, CHANNELS, FOLDS = 3, 2, 3

# ---- Sums ----------------------------------------------------------------------------------------


def shard_of(name, sizes, seed):
    """What a shard says of itself, of records of those sizes, of two sources and groups each."""
    rng = np.random.default_rng(seed)
    tally = Tally(CLASSES, CHANNELS)
    for height, width in sizes:
        image = rng.integers(seed % 150, 256, (height, width, CHANNELS), np.uint8)
        ids = rng.integers(0, CLASSES, height * width)
        tally.add(image, np.bincount(ids, minlength=CLASSES))
    return {
        "name": name,
        "bytes": 100 + seed,
        "sha256": f"{seed:064x}",
        "tally": tally.to_dict(),
        "sources": 2,
        "groups": [f"g{seed}a", f"g{seed}b"],
        "class_sources": [2, seed % 3, 1],
        "unmatched_pixels": seed,
        "rejected": [],
    }


def shards_of(fold, sizes=((4, 6), (4, 6))):
    return [shard_of(f"{fold}-{i}", sizes, 7 * i + sum(map(ord, fold))) for i in range(2)]


def manifest_of(names, options=None):
    return Manifest(
        folder="records",
        label_map=load_label_map("{(0,0,0):0,(255,0,0):1,(0,255,0):2}"),
        channels=CHANNELS,
        preparation=Preparation(),
        options=options or {"image_encoding": "png"},
        fingerprint="f00",
        rejected=0,
        splits={name: manifest.summarize(shards_of(name)) for name in names},
    )


def test_no_field_of_a_split_is_forgotten():
    assert list(folds._COMBINE) == [f.name for f in dataclasses.fields(Split)]


@pytest.mark.parametrize("sizes", [[(4, 6), (4, 6)], [(4, 6), (9, 3), (30, 2)]])
def test_splits_are_joined_as_if_their_shards_had_been_summed_together(sizes):
    parts = [shards_of(name, sizes[: i + 1] * (i + 1)) for i, name in enumerate("abc")]
    joined = folds.join([manifest.summarize(p) for p in parts])
    expected = manifest.summarize([shard for p in parts for shard in p])
    for field in dataclasses.fields(Split):
        one, other = getattr(joined, field.name), getattr(expected, field.name)
        if field.name in ("channel_mean", "channel_std"):
            assert np.allclose(one, other, rtol=0, atol=2e-5)  # of figures of six decimals
        else:
            assert one == other
            assert repr(one) == repr(other), "of the same types"


def test_one_split_stays_what_it_is():
    split = manifest.summarize(shards_of("a"))
    assert folds.join([split]) == split


# ---- Views ---------------------------------------------------------------------------------------

PLAIN = ["fold0", "fold1", "fold2"]
WITH_TEST = ["test", *PLAIN]
WITH_FORMS = ["test", *(name for fold in PLAIN for name in (fold, f"{fold}_train"))]


@pytest.mark.parametrize("names", [PLAIN, WITH_TEST, WITH_FORMS])
@pytest.mark.parametrize("fold", range(FOLDS))
def test_a_view_trains_on_the_other_folds_and_validates_on_its_own(names, fold):
    whole = manifest_of(names)
    seen = folds.view(whole, fold)
    assert list(seen.splits) == ["train", "valid"] + ["test"] * ("test" in names)
    assert seen.split("valid") == whole.split(f"fold{fold}")
    form = "_train" if names is WITH_FORMS else ""
    others = [f"fold{i}{form}" for i in range(FOLDS) if i != fold]
    assert seen.split("train") == folds.join([whole.split(name) for name in others])
    assert seen.paths("train") == [path for name in others for path in whole.paths(name)]
    if "test" in names:
        assert seen.split("test") == whole.split("test")
    for field in dataclasses.fields(Manifest):
        if field.name not in ("splits", "fingerprint", "audit"):
            assert getattr(seen, field.name) == getattr(whole, field.name)


def test_folds_are_taken_by_number_and_not_by_name():
    whole = manifest_of([f"fold{i}" for i in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)])
    names = [shard.name for shard in folds.view(whole, 3).split("train").shards[::2]]
    assert names == [f"fold{i}-0" for i in range(11) if i != 3]


def test_each_view_has_a_fingerprint_of_its_own():
    whole = manifest_of(WITH_TEST)
    changed = dataclasses.replace(whole, fingerprint="f01")
    seen = [folds.view(m, fold).fingerprint for m in (whole, changed) for fold in range(FOLDS)]
    assert len({*seen, whole.fingerprint, changed.fingerprint}) == 2 * FOLDS + 2
    assert folds.view(whole, 1).fingerprint == seen[1]


def test_without_folds_and_without_asking_for_one_nothing_changes():
    whole = manifest_of(["train", "valid"])
    assert folds.view(whole, None) is whole
    assert folds.count(whole) == 0
    assert folds.count(manifest_of(WITH_FORMS)) == FOLDS


@pytest.mark.parametrize(
    ("names", "fold", "message"),
    [
        (WITH_TEST, None, "records has 3 folds; choose one with --config.data.fold=0 to 2"),
        (PLAIN, 3, "--config.data.fold=3: the dataset records has 3 folds; choose one with"),
        (PLAIN, -1, "--config.data.fold=-1: the dataset records has 3 folds"),
        (["train", "test"], 0, r"--config.data.fold=0: .* has no folds \(it has train, test\)"),
    ],
)
def test_a_fold_that_cannot_be_is_refused_with_the_choices(names, fold, message):
    with pytest.raises(FlexsegError, match=message):
        folds.view(manifest_of(names), fold)


# ---- A prepared dataset --------------------------------------------------------------------------

PATIENTS, SLICES = 11, 2


@pytest.fixture(scope="module", params=["as they are", "in training form"])
def prepared(request, tmp_path_factory, draw, prepare_quietly):
    """The drawn pairs, the folder of their records in tiles, and whether there are copies."""
    folder = tmp_path_factory.mktemp("folds")
    stems = [f"p{p:02d}_{i}" for p in range(PATIENTS) for i in range(SLICES)]
    pairs = draw(folder / "data", stems)
    flags = ["--folds=3", "--split=train:0.8,test:0.2", r"--group_regex=p\d+", "--tile_size=8"]
    if request.param == "in training form":
        (folder / "augment.yaml").write_text("variants: [hflip]\n")
        flags += [f"--augment={folder}/augment.yaml", "--add_reduced"]
    prepare_quietly(folder / "data", folder / "out", *flags)
    return pairs, folder / "out", request.param == "in training form"


def views(output):
    whole = manifest.load(str(output))
    return [folds.view(whole, fold) for fold in range(folds.count(whole))]


def test_every_source_is_in_exactly_one_valid_fold_or_the_test_set(prepared, read_shard):
    pairs, output, _ = prepared
    found = []
    for seen in views(output):
        for path in seen.paths("valid"):
            found += sorted({record["id"] for record in read_shard(path)})
    test = {r["id"] for path in seen.paths("test") for r in read_shard(path)}
    assert sorted([*found, *test]) == sorted(pairs)
    assert len(views(output)) == 3


def test_no_group_is_on_both_sides_of_a_view(prepared, read_shard):
    pairs, output, _ = prepared
    for seen in views(output):
        sides = {
            split: {r["id"][:3] for path in seen.paths(split) for r in read_shard(path)}
            for split in ("train", "valid", "test")
        }
        assert sum(map(len, sides.values())) == len(set.union(*sides.values())) == PATIENTS
        assert {s: seen.split(s).groups for s in sides} == {s: len(g) for s, g in sides.items()}


def test_what_is_validated_on_is_never_augmented_and_what_is_trained_on_is(prepared, read_shard):
    _, output, augmented = prepared
    for seen in views(output):
        for split in ("train", "valid", "test"):
            done = {
                r["image/augmentation"][0].decode()
                for path in seen.paths(split)
                for r in read_shard(path)
            }
            assert (len(done) > 1) == (augmented and split == "train"), f"{split}: {done}"
            assert "" in done, "sources as they are"


def test_the_sums_of_a_view_are_those_of_its_records(prepared, read_shard):
    _, output, _ = prepared
    for seen in views(output):
        for split in ("train", "valid"):
            records = [r for path in seen.paths(split) for r in read_shard(path)]
            said = seen.split(split)
            assert said.examples == len(records)
            assert said.sources == len({r["id"] for r in records})
            masks = np.stack([r["mask"] for r in records])
            assert said.class_pixels == tuple(np.bincount(masks.ravel(), minlength=4).tolist())
            images = np.stack([r["image"] for r in records])
            assert np.allclose(said.channel_mean, images.mean((0, 1, 2)), atol=2e-5)
            assert np.allclose(said.channel_std, images.std((0, 1, 2)), atol=2e-5)


def test_a_view_is_read_as_any_dataset(prepared):
    from pipelines import batches
    from pipelines.batches import TrainInput

    pairs, output, _ = prepared
    found = set()
    for seen in views(output):
        for source_id, image, mask in batches.whole_images(seen, "valid"):
            assert (image == pairs[source_id].image).all()
            assert (mask == pairs[source_id].ids).all()
            found.add(source_id)
    assert len(found) == sum(seen.split("valid").sources for seen in views(output))
    first = next(batches.train(seen, TrainInput(4)).as_numpy_iterator())
    assert first["image"].shape == (4, 8, 8, 3)
    pixels = sum(
        (batch["mask"] < 4).sum()
        for batch in batches.evaluation(seen, "valid", 5).as_numpy_iterator()
    )
    assert pixels == sum(seen.split("valid").class_pixels)


def test_the_groups_of_a_dataset_are_kept_with_their_folds(prepared):
    _, output, _ = prepared
    lines = (output / "groups.csv").read_text().splitlines()
    assert lines[0] == "group,split"
    assert len(lines) == PATIENTS + 1
    assert all(re.fullmatch(r"p\d\d,(fold[012]|test)", line) for line in lines[1:])
