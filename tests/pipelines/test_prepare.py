"""`flexseg prepare`: what folders of images and masks become, and what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines import batches, manifest
from pipelines.tiles import TileGrid

SPLITS = ("train", "valid", "test")
FEATURES = {  # as the design lists them, and the size of the prepared source
    "image/encoded",
    "image/format",
    "image/height",
    "image/width",
    "image/channels",
    "image/filename",
    "image/source_id",
    "image/segmentation/class/encoded",
    "image/segmentation/class/format",
    "image/segmentation/class/pixels",
    "image/tile/origin",
    "image/source/size",
    "image/augmentation",
}


def stems(count: int) -> list[str]:
    return [f"s{i:02d}" for i in range(count)]


# ---- What is written -------------------------------------------------------------------------


def test_records_hold_the_very_pixels_of_their_sources(tmp_path, draw, prepare, read_split):
    pairs = draw(tmp_path / "data", [*stems(9), "sub/folder.x"])
    assert prepare().status == 0
    seen = []
    for split in SPLITS:
        for record in read_split(tmp_path / "out", split):
            assert set(record) - {"image", "mask", "id"} == FEATURES
            pair = pairs[record["id"]]
            assert (record["image"] == pair.image).all()
            assert (record["mask"] == pair.ids).all()
            assert record["image/filename"] == [f"{record['id']}.png".encode()]
            assert record["image/tile/origin"] == [0, 0]
            assert record["image/source/size"] == [12, 16]
            assert record["image/segmentation/class/pixels"] == [
                int((pair.ids == k).sum()) for k in range(4)
            ]
            seen.append(record["id"])
    assert sorted(seen) == sorted(pairs), "every source once"


def test_the_folder_holds_shards_manifest_and_rejected_and_nothing_else(
    tmp_path, draw, prepare, read_manifest
):
    draw(tmp_path / "data", stems(12))
    prepare("--split=train:0.75,test:0.25")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    shards = {f"train-{i:05d}-of-00008.tfrecord" for i in range(8)}
    shards |= {f"test-{i:05d}-of-00003.tfrecord" for i in range(3)}
    assert names == shards | {"dataset.json", "groups.csv", "rejected.jsonl", ".shards"}
    assert (tmp_path / "out" / "rejected.jsonl").read_bytes() == b""
    splits = read_manifest(tmp_path / "out")["splits"]
    assert {s["name"] for split in splits.values() for s in split["shards"]} == shards


def test_the_manifest_holds_what_numpy_counts_in_the_sources(
    tmp_path, draw, prepare, read_manifest, read_split
):
    pairs = draw(tmp_path / "data", [f"p{i % 6}_{i}" for i in range(14)])
    prepare("--group_regex=^p\\d")
    described = read_manifest(tmp_path / "out")
    assert described["channels"] == 3
    assert described["rejected"] == 0
    preparation = described["preparation"]
    assert (preparation["image_size"], preparation["scale"]) == (None, 1.0)
    assert [c["id"] for c in described["label_map"]["classes"]] == [0, 1, 2, 3]
    assert list(described["splits"]) == list(SPLITS)
    for name, split in described["splits"].items():
        ids = [r["id"] for r in read_split(tmp_path / "out", name)]
        images = np.stack([pairs[i].image for i in ids])
        masks = np.stack([pairs[i].ids for i in ids])
        assert split["examples"] == split["sources"] == len(ids)
        assert split["groups"] == len({i[:2] for i in ids})
        assert split["class_pixels"] == [int((masks == k).sum()) for k in range(4)]
        assert split["class_examples"] == [int((masks == k).any((1, 2)).sum()) for k in range(4)]
        assert np.allclose(split["channel_mean"], images.mean((0, 1, 2)), atol=1e-6)
        assert np.allclose(split["channel_std"], images.std((0, 1, 2)), atol=1e-5)
        assert (split["min_size"], split["max_size"]) == ([12, 16], [12, 16])
        assert split["unmatched_pixels"] == 0
        for shard in split["shards"]:
            path = tmp_path / "out" / shard["name"]
            assert shard["bytes"] == path.stat().st_size


def test_groups_are_never_divided(tmp_path, draw, prepare, read_split):
    draw(tmp_path / "data", [f"p{i % 5}_{i}" for i in range(15)])
    prepare("--group_regex=^p\\d", "--split=train:0.6,valid:0.2,test:0.2")
    found = {s: {r["id"][:2] for r in read_split(tmp_path / "out", s)} for s in SPLITS}
    assert sorted(map(len, found.values())) == [1, 1, 3]
    assert len(set().union(*found.values())) == 5


def test_splits_that_a_dataset_comes_with_are_kept(tmp_path, draw, prepare, read_split):
    given = {"train": stems(9)[:4], "valid": stems(9)[4:6], "test": stems(9)[6:]}
    for split, names in given.items():
        draw(tmp_path / "data" / split, names)
    refused = prepare("--split=train:1")
    assert refused.status == 1
    assert "comes with splits" in refused.err
    assert prepare().status == 0
    for split, names in given.items():
        ids = sorted(r["id"] for r in read_split(tmp_path / "out", split))
        assert ids == [f"{split}/{name}" for name in names]


def test_images_and_masks_may_lie_anywhere(tmp_path, draw, prepare, contents):
    draw(tmp_path / "data", stems(6))
    shutil.copytree(tmp_path / "data" / "images", tmp_path / "x" / "scans")
    shutil.copytree(tmp_path / "data" / "masks", tmp_path / "y")
    prepare()
    prepare(f"--images={tmp_path}/x/scans", f"--masks={tmp_path}/y", f"--output={tmp_path}/other")
    assert contents(tmp_path / "other") == contents(tmp_path / "out"), "wherever the files lie"


def test_training_records_are_mixed_and_others_in_the_order_of_their_hash(
    tmp_path, draw, prepare, read_split
):
    draw(tmp_path / "data", stems(30))
    prepare("--split=train:0.5,test:0.5")
    for split in ("train", "test"):
        ids = [r["id"] for r in read_split(tmp_path / "out", split)]
        assert ids != sorted(ids)


def test_a_label_map_file_and_its_literal_give_the_same_classes(
    tmp_path, draw, prepare, read_split, literal
):
    import yaml

    from pipelines import label_map

    draw(tmp_path / "data", stems(4))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(label_map.load(literal).to_dict()))
    prepare()
    prepare(f"--label_map={tmp_path}/c.yaml", f"--output={tmp_path}/other")
    for split in SPLITS:
        ours = [r["mask"].tolist() for r in read_split(tmp_path / "out", split)]
        assert ours == [r["mask"].tolist() for r in read_split(tmp_path / "other", split)]


# ---- Channels, sizes, tiles --------------------------------------------------------------------


def test_gray_images_stay_one_channel(tmp_path, draw, prepare, read_split, read_manifest):
    pairs = draw(tmp_path / "data", stems(4), gray=True)
    prepare("--image_size=24,32")
    assert read_manifest(tmp_path / "out")["channels"] == 1
    for record in read_split(tmp_path / "out", "train"):
        assert record["image"].shape == (24, 32, 1)
        assert record["image/channels"] == [1]
        assert pairs[record["id"]].image.shape == (12, 16, 1)


def test_gray_among_color_becomes_three_channels(
    tmp_path, draw, prepare, read_split, read_manifest
):
    pairs = draw(tmp_path / "data", stems(5))
    pairs |= draw(tmp_path / "data", ["g1", "g2"], gray=True)
    prepare("--split=train:1")
    assert read_manifest(tmp_path / "out")["channels"] == 3
    found = read_split(tmp_path / "out", "train")
    assert len(found) == 7
    for record in found:
        image = pairs[record["id"]].image
        assert (record["image"] == np.broadcast_to(image, (12, 16, 3))).all()


@pytest.mark.parametrize(
    ("flag", "size"),
    [("--image_size=9,20", (9, 20)), ("--scale=2", (24, 32)), ("--scale=0.5", (6, 8))],
)
def test_sources_are_resized_and_their_masks_by_nearest(
    tmp_path, draw, prepare, read_split, read_manifest, flag, size
):
    pairs = draw(tmp_path / "data", stems(4))
    prepare(flag)
    shrinks = size[0] < 12 and size[1] < 16
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    preparation = read_manifest(tmp_path / "out")["preparation"]
    assert (preparation["image_size"], preparation["scale"]) == (
        (list(size), 1.0) if "size" in flag else (None, float(flag.partition("=")[2]))
    )
    for split in SPLITS:
        for record in read_split(tmp_path / "out", split):
            pair = pairs[record["id"]]
            expected = cv2.resize(pair.image, size[::-1], interpolation=how)
            assert (record["image"] == expected).all()
            assert record["mask"].shape == size
            assert set(np.unique(record["mask"])) <= set(np.unique(pair.ids))
            assert record["image/source/size"] == list(size)


@pytest.mark.parametrize("flags", [(), ("--scale=1.5",)])
def test_tiles_cover_each_source_and_give_it_back(
    tmp_path, draw, prepare, read_split, read_manifest, flags
):
    stems_by_size = {(20, 31): stems(5), (16, 16): ["a", "b"], (17, 40): ["c", "d", "e"]}
    pairs = {}
    for size, names in stems_by_size.items():
        pairs |= draw(tmp_path / "data", names, size)
    shares = "--split=train:0.4,valid:0.4,test:0.2"
    tiles = ("--tile_size=16", "--tile_overlap=5", shares, *flags)
    assert prepare(*tiles).status == 0
    assert prepare(shares, *flags, f"--output={tmp_path}/whole").status == 0
    whole = {r["id"]: r for s in SPLITS for r in read_split(tmp_path / "whole", s)}
    for split in SPLITS:
        records = read_split(tmp_path / "out", split)
        described = read_manifest(tmp_path / "out")["splits"][split]
        assert described["examples"] == len(records)
        ids = [r["id"] for r in records]
        assert described["sources"] == len(set(ids))
        by_source: dict[str, list] = {}
        for record in records:
            source = whole[record["id"]]
            assert record["image/source/size"] == list(source["mask"].shape)
            y, x = record["image/tile/origin"]
            assert (record["image"] == source["image"][y : y + 16, x : x + 16]).all()
            assert (record["mask"] == source["mask"][y : y + 16, x : x + 16]).all()
            by_source.setdefault(record["id"], []).append((y, x))
        for source_id, origins in by_source.items():
            grid = list(TileGrid(*whole[source_id]["mask"].shape, 16, 5))
            assert sorted(origins) == grid
            if split != "train":
                assert origins == grid, "in order"
        if split != "train":
            changes = sum(a != b for a, b in itertools.pairwise(ids))
            assert changes == len(set(ids)) - 1, "the tiles of a source stand together"
        given_back = list(batches.whole_images(manifest.load(str(tmp_path / "out")), split))
        assert sorted(i for i, *_ in given_back) == sorted(set(ids)), "each source once"
        for source_id, image, mask in given_back:
            assert (image == whole[source_id]["image"]).all()
            assert (mask == whole[source_id]["mask"]).all()


def test_training_tiles_are_mixed_and_give_their_sources_back_all_the_same(
    tmp_path, draw, prepare, read_split
):
    pairs = draw(tmp_path / "data", stems(16), (24, 24))  # two a shard
    prepare("--tile_size=8", "--split=train:1")
    ids = [r["id"] for r in read_split(tmp_path / "out", "train")]
    assert sum(a == b for a, b in itertools.pairwise(ids)) < 120, "of 128 neighbours"
    given_back = list(batches.whole_images(manifest.load(str(tmp_path / "out")), "train"))
    assert sorted(i for i, *_ in given_back) == stems(16), "each source once"
    for source_id, image, mask in given_back:
        assert (image == pairs[source_id].image).all()
        assert (mask == pairs[source_id].ids).all()


# ---- Sources that cannot be used ---------------------------------------------------------------


@pytest.fixture
def flawed(tmp_path, draw, save):
    """Eight good pairs, and each kind of flaw once: file name -> (stage, reason)."""
    data = tmp_path / "data"
    pairs = draw(data, stems(8), (16, 16))
    draw(data, ["cut", "no_mask", "no_image", "purple", "small", "unequal", "mask_cut"], (16, 16))
    (data / "masks/no_mask.png").unlink()
    (data / "images/no_image.png").unlink()
    for name in ("images/cut.png", "masks/mask_cut.png"):
        (data / name).write_bytes((data / name).read_bytes()[:-30])
    save(data / "masks/unequal.png", np.zeros((15, 16, 3), np.uint8))
    purple = np.zeros((16, 16, 3), np.uint8)
    purple[:, :4] = 250, 60, 250
    save(data / "masks/purple.png", purple)
    draw(data, ["small"], (16, 7))
    save(data / "images/twice.png", purple)
    save(data / "images/twice.jpg", purple)
    return pairs, {
        "images/cut.png": ("read", "is truncated"),
        "images/no_mask.png": ("pair", "the image has no mask in"),
        "masks/no_image.png": ("pair", "the mask has no image in"),
        "images/twice.jpg": ("pair", 'several files share the stem "twice": twice.jpg, twice.png'),
        "masks/mask_cut.png": ("read", "is truncated"),
        "masks/purple.png": ("categorize", "25.0% of the pixels are far from every color"),
        "images/small.png": ("tile", "the image is 16x7, smaller than a tile of 8"),
        "images/unequal.png": ("read", "sizes differ: the image is 16x16, the mask 15x16"),
    }


def test_all_that_cannot_be_used_is_shown_together_with_its_reason(tmp_path, prepare, flawed):
    _, flaws = flawed
    result = prepare("--tile_size=8")
    assert result.status == 1
    # A stem that several files share is one source.
    assert f"{len(flaws)} of 16 sources cannot be used (--max_rejected=0)" in result.err
    assert not (tmp_path / "out" / "dataset.json").exists()
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    rejected = [json.loads(line) for line in lines]
    assert all(list(r) == ["path", "stage", "reason"] for r in rejected)
    assert [r["path"] for r in rejected] == sorted(f"{tmp_path}/data/{name}" for name in flaws)
    for line in rejected:
        stage, reason = flaws[os.path.relpath(line["path"], tmp_path / "data")]
        assert line["stage"] == stage
        assert reason in line["reason"]
        assert line["path"] in result.err
        assert reason in result.err


def test_the_color_and_the_remedy_are_named(tmp_path, prepare, flawed):
    error = prepare("--tile_size=8").err
    assert "most of them (250, 60, 250), whose nearest is (40, 40, 255)" in error
    assert "--unmatched=nearest" in error


def test_as_many_as_are_allowed_are_left_out(tmp_path, prepare, flawed, read_split, read_manifest):
    pairs, flaws = flawed
    flags = ("--tile_size=8", "--split=train:0.5,test:0.5")
    assert prepare(*flags, f"--max_rejected={len(flaws) - 1}").status == 1
    assert prepare(*flags, f"--max_rejected={len(flaws)}").status == 0
    assert read_manifest(tmp_path / "out")["rejected"] == len(flaws)
    assert len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()) == len(flaws)
    ids = [r["id"] for split in SPLITS for r in read_split(tmp_path / "out", split)]
    assert set(ids) == set(pairs)
    assert len(ids) == 4 * len(pairs)
    assert manifest.verify(str(tmp_path / "out")) == []


def test_a_long_list_of_what_cannot_be_used_is_cut_short_and_whole_in_the_file(
    tmp_path, draw, prepare
):
    names = stems(25)
    draw(tmp_path / "data", names)
    for name in names[1:]:
        (tmp_path / f"data/masks/{name}.png").unlink()
    result = prepare("--split=train:1")
    assert result.status == 1
    told = result.err.partition("(--max_rejected=0):")[2]
    assert told.count("the image has no mask") == 20
    assert "  ... and 4 more" in told
    assert f"All are listed in {tmp_path}/out/rejected.jsonl" in told
    lines = (tmp_path / "out/rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["pair"] * 24


def test_a_source_without_a_group_is_rejected_by_name(tmp_path, draw, prepare):
    draw(tmp_path / "data", ["p1", "p2", "p3", "odd"])
    result = prepare("--group_regex=p(\\d)")
    assert result.status == 1
    assert 'odd.png: --group_regex "p(\\d)" does not match "odd.png"' in result.err


def test_few_odd_pixels_are_counted_and_many_reject_the_mask(
    tmp_path, draw, save, prepare, read_manifest, read_split, colors
):
    pairs = draw(tmp_path / "data", stems(3), (20, 20))
    for stem, count in zip(stems(3), (4, 2, 0), strict=True):  # 1 % is the limit
        mask = colors[pairs[stem].ids]
        mask.reshape(-1, 3)[:count] = 250, 60, 250
        save(tmp_path / "data" / "masks" / f"{stem}.png", mask)
    assert prepare("--split=train:1").status == 0
    assert read_manifest(tmp_path / "out")["splits"]["train"]["unmatched_pixels"] == 6
    mask = colors[pairs["s00"].ids]
    mask.reshape(-1, 3)[:5] = 250, 60, 250
    save(tmp_path / "data" / "masks" / "s00.png", mask)
    result = prepare("--split=train:1")
    assert result.status == 1
    assert "s00.png: 1.2% of the pixels are far from every color" in result.err
    nearest = ("--split=train:1", "--unmatched=nearest", f"--output={tmp_path}/nearest")
    assert prepare(*nearest).status == 0
    assert read_manifest(tmp_path / "nearest")["splits"]["train"]["unmatched_pixels"] == 7
    found = {r["id"]: r["mask"] for r in read_split(tmp_path / "nearest", "train")}
    expected = pairs["s00"].ids.copy()
    expected.ravel()[:5] = 3
    assert (found["s00"] == expected).all()


def test_unmatched_pixels_of_a_tiled_source_are_counted_once(
    tmp_path, draw, save, prepare, read_manifest, colors
):
    pairs = draw(tmp_path / "data", ["a"], (20, 20))
    mask = colors[pairs["a"].ids]
    mask[9:11, 9:11] = 250, 60, 250  # where four tiles overlap
    save(tmp_path / "data" / "masks" / "a.png", mask)
    prepare("--split=train:1", "--tile_size=12", "--tile_overlap=2")
    assert read_manifest(tmp_path / "out")["splits"]["train"]["unmatched_pixels"] == 4


def test_the_tolerance_can_be_given(tmp_path, draw, save, prepare, colors):
    pairs = draw(tmp_path / "data", stems(3))
    for stem in stems(3):
        mask = colors[pairs[stem].ids].astype(int)
        save(tmp_path / "data/masks" / f"{stem}.png", np.abs(mask - 10).astype(np.uint8))
    assert prepare().status == 0
    assert prepare("--color_tolerance=17.4", f"--output={tmp_path}/wide").status == 0
    result = prepare("--color_tolerance=17.2", f"--output={tmp_path}/narrow")
    assert result.status == 1
    assert "further than 17 in RGB" in result.err


def test_a_split_of_which_no_source_can_be_used_is_an_error(tmp_path, draw, prepare):
    draw(tmp_path / "data/train", stems(2))
    draw(tmp_path / "data/test", ["bad"])
    (tmp_path / "data/test/masks/bad.png").write_bytes(b"bad")
    result = prepare("--max_rejected=5")
    assert result.status == 1
    assert 'Of the sources of the split "test" none could be used' in result.err
    assert "give another --split or --split_seed" in result.err


# ---- What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label_map={(0,0,0):0,(9,9,9):2}"], r"ids are \[0, 2\]"),
        (["--label_map=nowhere.yaml"], "no label map file 'nowhere.yaml'"),
        (["--dataset=nowhere"], "--dataset=nowhere: there is no such folder"),
        (["--split=train:0.5"], "the shares sum to 0.5, not 1"),
        (["--image_size=12"], '--image_size="12": expected height,width'),
        (["--image_size=a,b"], '--image_size="a,b": expected height,width'),
        (["--image_size=0,4"], r"--image_size=\(0, 4\): both sides"),
        (["--image_size=4,4", "--scale=2"], "Give --image_size or --scale, not both"),
        (["--scale=0"], "--scale=0.0: expected a factor above 0"),
        (["--tile_size=-1"], "--tile_overlap=0 with --tile_size=-1"),
        (["--tile_size=8", "--tile_overlap=8"], "--tile_overlap=8 with --tile_size=8"),
        (["--tile_overlap=2"], "--tile_overlap=2 with --tile_size=0"),
        (["--color_tolerance=-1"], "--color_tolerance=-1.0: expected an RGB distance"),
        (["--color_tolerance=nan"], "--color_tolerance=nan: expected an RGB distance"),
        (["--tile_size=8", "--empty_tiles=1.5"], "--empty_tiles=1.5: expected a share, 0 to 1"),
        (["--tile_size=8", "--empty_tiles=-0.1"], "--empty_tiles=-0.1: expected a share"),
        (["--tile_size=8", "--empty_tiles=nan"], "--empty_tiles=nan: expected a share"),
        (["--add_reduced"], "--add_reduced is for tiles: give --tile_size too"),
        (["--intensity=minmx"], r'--intensity="minmx": expected .*Did you mean "minmax"'),
        (["--group_regex=("], r'--group_regex="\(" is not a regular expression'),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_nothing_is_made(
    tmp_path, draw, prepare, flags, message
):
    draw(tmp_path / "data", stems(4))
    result = prepare(*flags)
    assert result.status == 1
    assert re.search(message, result.err)
    assert not (tmp_path / "out").exists()


def test_fewer_groups_than_splits_are_refused_and_the_remedy_works(tmp_path, draw, prepare):
    draw(tmp_path / "data", stems(2))
    result = prepare()
    assert result.status == 1
    assert "There are 2 groups for 3 splits (train, valid, test)" in result.err
    assert "Ask for fewer splits with --split" in result.err
    assert prepare("--split=train:0.5,test:0.5").status == 0, "the same output folder"


def test_a_folder_without_images_is_named(tmp_path, prepare):
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/masks").mkdir()
    result = prepare()
    assert result.status == 1
    assert f"There are no images in {tmp_path}/data/images" in result.err


def test_no_pair_at_all_is_an_error(tmp_path, draw, prepare):
    draw(tmp_path / "data", ["a"])
    (tmp_path / "data/masks/a.png").rename(tmp_path / "data/masks/b.png")
    assert "2 of 2 sources cannot be used" in prepare().err
    result = prepare("--max_rejected=9")
    assert result.status == 1
    assert "No image has a mask of the same stem" in result.err


def test_an_output_that_holds_something_else_is_refused_and_not_touched(
    tmp_path, draw, prepare, contents
):
    draw(tmp_path / "data", stems(4))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_bytes(b"precious")
    result = prepare()
    assert result.status == 1
    assert f"--output={tmp_path}/out holds something else (thesis.docx)" in result.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.docx"]
    assert contents(tmp_path / "out") == {"thesis.docx": b"precious"}


def test_an_output_that_is_a_file_is_refused(tmp_path, draw, prepare):
    draw(tmp_path / "data", stems(4))
    (tmp_path / "out").write_text("precious")
    assert "is a file; expected a folder" in prepare().err
    assert (tmp_path / "out").read_text() == "precious"


def test_an_empty_output_is_taken(tmp_path, draw, prepare):
    draw(tmp_path / "data", stems(4))
    (tmp_path / "out").mkdir()
    assert prepare().status == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--scale=2"], "preparation.scale: 1.0, now 2.0"),
        (["--split_seed=1"], "split_seed: 137, now 1"),
        (["--tile_size=8"], "tile_size: 0, now 8"),
        (["--split=train:1"], "split: 'train:0.8,valid:0.1,test:0.1', now 'train:1'"),
    ],
)
def test_an_output_with_other_options_is_refused_and_they_are_named(
    tmp_path, draw, prepare, contents, flags, named
):
    draw(tmp_path / "data", stems(4))
    prepare()
    before = contents(tmp_path / "out")
    result = prepare(*flags)
    assert result.status == 1
    assert "holds a dataset made with other options" in result.err
    assert named in result.err
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("inside", ["data/images", "data/masks/new", "data/images/../masks"])
def test_an_output_inside_the_sources_is_refused(tmp_path, draw, prepare, inside):
    draw(tmp_path / "data", stems(4))
    result = prepare(f"--output={tmp_path}/{inside}")
    assert result.status == 1
    assert "lies inside the sources" in result.err
    assert not (tmp_path / "data/masks/new").exists()


def test_a_link_to_the_sources_is_no_way_round(tmp_path, draw, prepare):
    draw(tmp_path / "data", stems(4))
    (tmp_path / "out").symlink_to(tmp_path / "data/images")
    assert "lies inside the sources" in prepare().err


@pytest.mark.parametrize("runner", ["DirectRunner", "direct", "FnApiRunner"])
def test_the_runner_that_would_download_is_never_taken(runner):
    from pipelines.beam_job import check_flags

    flags = check_flags(["--direct_num_workers=1"], runner, [])
    assert flags == [
        "--runner=FnApiRunner",
        "--direct_num_workers=1",
        "--direct_running_mode=in_memory",
    ]


def test_workers_are_the_cores_unless_told_otherwise():
    from pipelines.beam_job import check_flags

    assert f"--direct_num_workers={os.cpu_count()}" in check_flags([], "FnApiRunner", [])
    assert check_flags(["--direct_num_workers=3"], "FnApiRunner", [])[1:] == [
        "--direct_num_workers=3",
        "--direct_running_mode=multi_processing",
    ]
    mode = "--direct_running_mode=multi_threading"
    assert check_flags(["--direct_num_workers", "3", mode], "FnApiRunner", [])[1:] == [
        "--direct_num_workers",
        "3",
        mode,
    ]


def test_another_runner_gets_its_flags_as_they_are():
    from pipelines.beam_job import check_flags

    flags = check_flags(["--job_name=x"], "DataflowRunner", [])
    assert flags[0].endswith(".DataflowRunner")
    assert flags[1:] == ["--job_name=x"]


def test_relative_paths_work(tmp_path, draw, prepare, monkeypatch):
    draw(tmp_path / "data", stems(4))
    monkeypatch.chdir(tmp_path)
    assert prepare("--dataset=data", "--output=out").status == 0
    assert manifest.verify(str(Path("out"))) == []


def test_a_name_that_is_no_utf8_is_rejected_and_listed(tmp_path, draw, prepare):
    stems = ["p0", "p1", "p2", "p3"]
    folder = tmp_path / "data"
    draw(folder, stems)
    odd = os.fsdecode(b"odd\xff")
    for kind in ("images", "masks"):
        (folder / kind / f"{stems[0]}.png").rename(folder / kind / f"{odd}.png")
    result = prepare("--max_rejected=1")
    assert result.status == 0, result.err
    assert "1 source cannot be used" in result.err
    (told,) = (tmp_path / "out" / "rejected.jsonl").read_bytes().decode().splitlines()
    told = json.loads(told)
    assert told["path"] == str(folder / "images" / "odd\\udcff.png")
    assert told["reason"] == "its name is not UTF-8; rename the file"
