"""`flexseg prepare`: where sources come from, how they are grouped, and what is noticed of them."""

from __future__ import annotations

import csv
import json
import shutil

import cv2
import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from pipelines import manifest


def stems(count: int) -> list[str]:
    return [f"s{i:02d}" for i in range(count)]


def split_of(output) -> dict[str, str]:
    with open(output / "groups.csv", newline="") as file:
        return {row["group"]: row["split"] for row in csv.DictReader(file)}


# ---- Volumes ---------------------------------------------------------------------------------


@pytest.fixture
def volumes(tmp_path):
    """Three NIfTI volumes, with label volumes; every slice is unlike all others.

    The odd slices hold no foreground. Returns stem -> (values, ids), each [x, y, z].
    """
    made = {}
    for index, name in enumerate(["a", "b", "deep/c"]):
        rng = np.random.default_rng(index)
        values = rng.integers(-1000, 1000, (10, 8, 5 + index)).astype(np.int16)
        ids = rng.integers(0, 4, values.shape).astype(np.uint8)
        ids[..., 1::2] = 0
        for kind, array in (("images", values), ("masks", ids)):
            path = tmp_path / "data" / kind / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0])), path)
        made[name] = (values, ids)
    return made


def test_every_slice_of_a_volume_is_an_example_and_the_volume_a_group(
    tmp_path, volumes, prepare, read_split, read_manifest
):
    flags = ("--intensity=window:0,2000", "--split=train:0.34,valid:0.33,test:0.33")
    assert prepare(*flags).status == 0
    seen = {}
    for split in ("train", "valid", "test"):
        for record in read_split(tmp_path / "out", split):
            name, _, index = record["id"].rpartition("/")
            values, ids = volumes[name]
            z = int(index)
            window = np.clip((values[..., z].astype(float) + 1000) * 255 / 2000, 0, 255)
            assert (record["image"][..., 0] == np.floor(window + 0.5)).all()
            assert (record["mask"] == ids[..., z]).all()
            assert record["image/filename"] == [f"{name}.nii.gz".encode()]
            seen.setdefault(name, set()).add((split, z))
    for name, (values, _) in volumes.items():
        assert len({split for split, _ in seen[name]}) == 1, "a volume lies in one split"
        assert sorted(z for _, z in seen[name]) == list(range(values.shape[2]))
    assert set(split_of(tmp_path / "out")) == set(volumes)
    found = read_manifest(tmp_path / "out")
    assert found["channels"] == 1
    assert sum(s["groups"] for s in found["splits"].values()) == 3
    assert sum(s["sources"] for s in found["splits"].values()) == 5 + 6 + 7


def test_limits_of_intensity_are_those_of_the_whole_volume(tmp_path, volumes, prepare, read_split):
    assert prepare("--intensity=minmax", "--split=train:1").status == 0
    for record in read_split(tmp_path / "out", "train"):
        values, _ = volumes[record["id"].rpartition("/")[0]]
        low, high = float(values.min()), float(values.max())
        plane = values[..., int(record["id"][-5:])].astype(float)
        expected = np.floor((plane - low) * 255 / (high - low) + 0.5)
        assert (record["image"][..., 0] == expected).all()


def test_slices_without_foreground_may_be_left_out_of_training_or_of_all(
    tmp_path, volumes, prepare, read_split
):
    def kept(output, *flags):
        flags = (f"--output={tmp_path / output}", "--intensity=minmax", *flags)
        assert prepare("--split=train:0.34,valid:0.33,test:0.33", *flags).status == 0
        return {
            split: [r["mask"].any() for r in read_split(tmp_path / output, split)]
            for split in ("train", "valid", "test")
        }

    everything, train, everywhere = (
        kept("everything"),
        kept("train", "--empty_tiles=0"),
        kept("all", "--empty_tiles=0", "--empty_tiles_in=all"),
    )
    for split, held in everything.items():
        assert not all(held)
        assert len(everywhere[split]) == sum(held) == sum(everywhere[split])
        assert len(train[split]) == (sum(held) if split == "train" else len(held))


def test_axis_and_rotation_decide_how_slices_are_cut_and_turned(
    tmp_path, volumes, prepare, read_split
):
    flags = ("--intensity=minmax", "--split=train:1", "--volume_axis=0", "--volume_rotation=90")
    assert prepare(*flags).status == 0
    for record in read_split(tmp_path / "out", "train"):
        name, _, index = record["id"].rpartition("/")
        assert (record["mask"] == np.rot90(volumes[name][1][int(index)])).all()


def test_a_single_dicom_image_takes_a_flat_mask_and_both_are_turned(
    tmp_path, save, prepare, read_split
):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4000, (1, 9, 9)).astype(np.uint16)
    ids = rng.integers(0, 2, (9, 9)).astype(np.uint8)
    (tmp_path / "data" / "images").mkdir(parents=True)
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(values), str(tmp_path / "data" / "images" / "a.dcm")
    )
    save(tmp_path / "data" / "masks" / "a.png", ids)
    flags = ("--intensity=minmax", "--mask_kind=index", "--split=train:1", "--volume_rotation=90")
    assert prepare(*flags).status == 0
    (record,) = read_split(tmp_path / "out", "train")
    assert record["id"] == "a/00000"
    assert (record["mask"] == np.rot90(ids)).all()
    scaled = (values[0].astype(float) - values.min()) * 255 / (int(values.max()) - values.min())
    assert (record["image"][..., 0] == np.rot90(np.floor(scaled + 0.5))).all()


def test_a_flat_mask_does_for_neither_several_slices_nor_nifti(tmp_path, volumes, save, prepare):
    (tmp_path / "data" / "masks" / "a.nii.gz").unlink()
    save(tmp_path / "data" / "masks" / "a.png", np.zeros((10, 8), np.uint8))
    single = nibabel.Nifti1Image(np.zeros((10, 8, 1), np.int16), np.eye(4))
    nibabel.save(single, tmp_path / "data" / "images" / "one.nii.gz")
    save(tmp_path / "data" / "masks" / "one.png", np.zeros((10, 8), np.uint8))
    outcome = prepare("--intensity=minmax")
    assert outcome.status == 1
    assert "2 sources cannot be used" in outcome.err
    assert "the volume has 5 slices, but its mask is one image" in outcome.err
    assert "a NIfTI image needs a mask that is a volume too" in outcome.err


def test_a_mask_volume_that_lies_elsewhere_is_refused_and_named(tmp_path, volumes, prepare):
    values, ids = volumes["a"]
    moved = np.diag([2.0, 2.0, 3.0, 1.0])
    moved[0, 3] = 3.0  # a voxel and a half
    nibabel.save(nibabel.Nifti1Image(ids, moved), tmp_path / "data" / "masks" / "a.nii.gz")
    outcome = prepare("--intensity=minmax")
    assert outcome.status == 1
    assert "masks/a.nii.gz" in outcome.err
    assert "esample" in outcome.err


def test_a_truncated_volume_is_rejected_by_name(tmp_path, volumes, prepare):
    path = tmp_path / "data" / "images" / "b.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    outcome = prepare("--intensity=minmax", "--max_rejected=9", "--split=train:1")
    assert outcome.status == 0
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert lines
    assert all(json.loads(line)["path"] == str(path) for line in lines)


# ---- Names -----------------------------------------------------------------------------------


def test_masks_with_a_suffix_find_their_images(tmp_path, draw, prepare, read_split):
    pairs = draw(tmp_path / "data", stems(4))
    for path in (tmp_path / "data" / "masks").iterdir():
        shutil.copy(path, path.with_name(path.stem + "_HE.png"))
        path.rename(path.with_name(path.stem + "_EX.png"))
    outcome = prepare("--mask_suffix=_EX", "--split=train:1")
    assert outcome.status == 0
    assert "4 masks" in outcome.err
    assert {r["id"] for r in read_split(tmp_path / "out", "train")} == set(pairs)


def test_groups_come_from_a_file(tmp_path, draw, prepare, read_split):
    draw(tmp_path / "data", stems(8))
    lines = [f"{stem}.png,p{i // 2}" for i, stem in enumerate(stems(8))]
    (tmp_path / "groups.csv").write_text("\n".join(["path,group", *lines, "gone.png,p9"]))
    outcome = prepare(f"--groups={tmp_path / 'groups.csv'}", "--split=train:0.5,test:0.5")
    assert outcome.status == 0
    assert "gone.png" in outcome.err
    assert set(split_of(tmp_path / "out")) == {"p0", "p1", "p2", "p3"}
    for split in ("train", "test"):
        held = sorted(r["id"] for r in read_split(tmp_path / "out", split))
        assert len(held) == 4
        assert {int(h[1:]) // 2 for h in held} == {int(h[1:]) // 2 for h in held[::2]}


def test_an_earlier_dataset_decides_the_splits_of_its_groups(tmp_path, draw, prepare):
    draw(tmp_path / "data", stems(6))
    assert prepare("--split=train:0.5,test:0.5", "--split_seed=1").status == 0
    before = split_of(tmp_path / "out")
    draw(tmp_path / "data", stems(12))
    flags = ("--split=train:0.5,test:0.5", f"--output={tmp_path / 'new'}")
    assert prepare(*flags, f"--split_from={tmp_path / 'out'}").status == 0
    after = split_of(tmp_path / "new")
    assert len(after) == 12
    assert {g: after[g] for g in before} == before
    assert sorted(after.values()).count("train") == 6


# ---- What is noticed -------------------------------------------------------------------------


def test_the_same_image_in_two_splits_is_an_error_that_names_both(tmp_path, draw, prepare):
    draw(tmp_path / "data", stems(4))
    for name in ("s00", "s01", "s02", "s03"):  # a copy of each under another name and format
        for kind in ("images", "masks"):
            pixels = Image.open(tmp_path / "data" / kind / f"{name}.png")
            pixels.save(tmp_path / "data" / kind / f"copy_{name}.bmp")
    outcome = prepare("--split=train:0.5,test:0.5")
    assert outcome.status == 1
    assert "copy_s0" in outcome.err
    assert "--group_regex" in outcome.err
    assert not (tmp_path / "out" / "dataset.json").exists()
    again = prepare(
        "--split=train:0.5,test:0.5", r"--group_regex=s\d\d", f"--output={tmp_path / 'new'}"
    )
    assert again.status == 0, "in one group the copies do no harm"
    found = manifest.load(str(tmp_path / "new")).audit
    assert (found.duplicates.contents, found.duplicates.sources) == (4, 8)


def test_blank_slices_are_no_duplicates(tmp_path, draw, save, prepare):
    draw(tmp_path / "data", stems(4))
    for name in ("blank0", "blank1", "blank2"):
        save(tmp_path / "data" / "images" / f"{name}.png", np.zeros((12, 16, 3), np.uint8))
        save(tmp_path / "data" / "masks" / f"{name}.png", np.zeros((12, 16, 3), np.uint8))
    assert prepare("--split=train:0.5,test:0.5").status == 0
    found = manifest.load(str(tmp_path / "out")).audit
    assert found.constant_images.count == 3
    assert found.duplicates.contents == 0
    assert sum(f.count for f in found.empty_masks.values()) == 3


def test_the_manifest_tells_what_the_masks_are_like(tmp_path, draw, save, prepare, colors):
    pairs = draw(tmp_path / "data", stems(6))
    path = tmp_path / "data" / "masks" / "s00.png"
    mask = colors[pairs["s00"].ids]
    mask[0, :2] = (255, 255, 255)
    save(path, mask)
    jpeg = np.zeros((12, 16, 3), np.uint8)
    (tmp_path / "data" / "masks" / "s01.png").unlink()
    cv2.imwrite(str(tmp_path / "data" / "masks" / "s01.jpg"), jpeg)
    assert prepare("--split=train:1", "--unmatched=nearest").status == 0
    found = manifest.load(str(tmp_path / "out"))
    (color,) = found.audit.unmatched_colors
    assert (color.color, color.pixels, color.masks) == ((255, 255, 255), 2, 1)
    assert found.audit.lossy_masks[".jpg"].examples == ("s01.png",)
    assert found.audit.empty_masks["train"].count == 1
    held = [np.zeros(4, bool)]
    for name, pair in pairs.items():
        if name not in ("s00", "s01"):
            held.append(np.bincount(pair.ids.ravel(), minlength=4) > 0)
    sources = np.sum(held, axis=0)
    assert (np.array(found.split("train").class_sources) >= sources).all()
    assert found.split("train").class_sources[0] <= 6
    assert found.split("train").class_sources == found.audit.class_sources["train"]


# ---- Sizes -----------------------------------------------------------------------------------


def test_an_image_above_max_pixels_is_rejected_and_raising_it_goes_on_in_place(
    tmp_path, draw, save, prepare, read_split
):
    draw(tmp_path / "data", stems(3))
    rng = np.random.default_rng(0)
    save(tmp_path / "data" / "images" / "large.png", rng.integers(0, 256, (40, 40, 3), np.uint8))
    save(tmp_path / "data" / "masks" / "large.png", np.zeros((40, 40, 3), np.uint8))
    outcome = prepare("--max_pixels=500", "--split=train:1")
    assert outcome.status == 1
    assert "large.png" in outcome.err
    assert "--max_pixels=500" in outcome.err
    assert prepare("--max_pixels=2000", "--split=train:1").status == 0
    assert len(read_split(tmp_path / "out", "train")) == 4


def test_a_mask_above_max_pixels_is_rejected_too(tmp_path, draw, save, prepare):
    draw(tmp_path / "data", stems(3))
    save(tmp_path / "data" / "masks" / "s01.png", np.zeros((400, 400, 3), np.uint8))
    outcome = prepare("--max_pixels=500", "--split=train:1")
    assert outcome.status == 1
    assert "masks/s01.png" in outcome.err
    assert "--max_pixels" in outcome.err


@pytest.mark.parametrize(
    ("flags", "count"), [(("--num_shards=3",), 3), (("--shard_size_mb=1",), 1), ((), 8)]
)
def test_the_number_of_shards_can_be_told(tmp_path, draw, prepare, flags, count):
    draw(tmp_path / "data", stems(9))
    assert prepare("--split=train:1", *flags).status == 0
    assert len(list((tmp_path / "out").glob("train-*"))) == count
    assert manifest.verify(str(tmp_path / "out")) == []


def test_an_augmentation_that_cannot_be_made_rejects_its_source_alone(
    tmp_path, draw, save, prepare, read_split
):
    """OpenCV cannot warp a side of more than 32,766 pixels."""
    draw(tmp_path / "data", stems(3))
    long = np.random.default_rng(0).integers(0, 256, (1, 32767, 3), np.uint8)
    save(tmp_path / "data" / "images" / "long.png", long)
    save(tmp_path / "data" / "masks" / "long.png", np.zeros_like(long))
    (tmp_path / "plan.yaml").write_text("variants: [{rotation: {angle: 10}}]")
    flags = (f"--augment={tmp_path / 'plan.yaml'}", "--split=train:1", "--max_rejected=1")
    outcome = prepare(*flags)
    assert outcome.status == 0, outcome.err
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["stage"] == "augment"
    assert {r["id"] for r in read_split(tmp_path / "out", "train")} == set(stems(3))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num_shards=3", "--shard_size_mb=3"), "not both"),
        (("--num_shards=-1",), "not negative"),
        (("--max_pixels=0",), "--max_pixels=0"),
        (("--groups=x.csv", "--group_regex=x"), "not both"),
        (("--tfds", "--image_encoding=raw"), "--tfds cannot"),
        (("--volume_axis=7",), "--volume_axis=7"),
        (("--folds=5", "--split=train:0.9,valid:0.1"), "--folds"),
        (("--split_from=nowhere",), "--split_from=nowhere"),
        (("--groups=nowhere.csv",), "--groups=nowhere.csv"),
    ],
)
def test_options_that_make_no_sense_are_named(tmp_path, draw, prepare, flags, message):
    draw(tmp_path / "data", stems(3))
    outcome = prepare(*flags)
    assert outcome.status == 1
    assert message in outcome.err
    assert not (tmp_path / "out").exists()
