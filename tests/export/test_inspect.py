"""`flexseg inspect` describes whatever the project makes, from its small files alone."""

import dataclasses
import json
import shutil

import pytest

from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from pipelines.audit import Audit, Finding
from pipelines.manifest import Manifest, Shard, Split
from pipelines.preparation import Preparation


def split(examples, class_pixels, unmatched=0, sizes=((32, 32), (32, 32))):
    return Split(
        examples=examples,
        sources=2,
        groups=1,
        pixels=sum(class_pixels),
        class_pixels=class_pixels,
        class_examples=(examples, 1, 0),
        class_sources=(2, 1, 0),
        channel_mean=(100.25,),
        channel_std=(7.5,),
        min_size=sizes[0],
        max_size=sizes[1],
        unmatched_pixels=unmatched,
        shards=(Shard("train-00000-of-00001.tfrecord", examples, 1_500_000, "0" * 64),),
    )


@pytest.fixture
def described_dataset(tmp_path):
    """The manifest of a dataset; the shards themselves are not looked at."""
    manifest = Manifest(
        folder=str(tmp_path),
        label_map=label_maps.load("{(0,0,0):0,(255,0,0):1,(0,255,0):2}"),
        channels=1,
        preparation=Preparation(scale=0.5),
        options={"split": "train:0.5,test:0.5", "tile_size": 32, "group_regex": ""},
        fingerprint="0" * 64,
        rejected=3,
        splits={
            "train": split(5, (750, 250, 0), unmatched=17, sizes=((20, 32), (40, 48))),
            "test": split(4, (1000, 0, 0)),
        },
        audit=Audit(
            sources={"train": 2, "test": 2},
            class_sources={"train": (2, 1, 0), "test": (2, 0, 0)},
            empty_masks={"train": Finding(), "test": Finding(2, ("a.png", "b.png"))},
        ),
    )
    (tmp_path / manifests.FILENAME).write_text(manifests.dump(manifest))
    return tmp_path


def test_a_dataset_is_described(command, described_dataset):
    done = command("inspect", described_dataset)
    assert done.status == 0, done.err
    for text in [
        f"Dataset {described_dataset}",
        "channels 1, rejected sources 3",
        "preparation: scaled by 0.5",
        "options: split=train:0.5,test:0.5, tile_size=32\n",
        "train: 5 examples of 2 sources in 1 groups",
        "1 shards, 1.5 MB; sizes 20x32 to 40x48",
        "test: 4 examples",
        "sizes 32x32\n",
        "channel mean 100.2; std 7.5",
        "17 mask pixels matched no color",
        "class_1     25.0000% of pixels, in 1 examples",
        "class class_1 occurs only in train",
        "class class_2 never occurs",
        "test: 2 of 2 masks (100.0%) are without foreground: a.png, b.png",
    ]:
        assert text in done.out


def test_a_dataset_without_an_audit_and_with_augmentation_is_described(command, described_dataset):
    manifest = manifests.load(str(described_dataset))
    for keep, count in ((True, 3), (False, 2)):
        plan = {"keep_source": keep, "variants": [{"name": "one"}, {"name": "two"}]}
        changed = dataclasses.replace(
            manifest,
            audit=None,
            options={**manifest.options, "augment": plan},
            preparation=Preparation(
                image_size=(32, 48), intensity="window:40,80", preprocessing="gamma=1.5,invert"
            ),
        )
        (described_dataset / manifests.FILENAME).write_text(manifests.dump(changed))
        done = command("inspect", described_dataset)
        assert done.status == 0, done.err
        assert f"tile_size=32, augment={count} examples of each training source\n" in done.out
        told = (
            "values to 8 bits by window:40,80, colors changed by gamma=1.5,invert, "
            "resized to 32 x 48 pixels"
        )
        assert f"  preparation: {told}\n" in done.out
        assert "never occurs" not in done.out


def test_a_split_whose_pixels_are_all_ignored_is_described(command, described_dataset):
    manifest = manifests.load(str(described_dataset))
    ignored = dataclasses.replace(split(4, (0, 0, 0)), class_examples=(0, 0, 0), pixels=4096)
    changed = dataclasses.replace(manifest, splits={**manifest.splits, "test": ignored})
    (described_dataset / manifests.FILENAME).write_text(manifests.dump(changed))
    done = command("inspect", described_dataset)
    assert done.status == 0, done.err
    _, _, test = done.out.partition("test: 4 examples")
    assert test.count("0.0000% of pixels, in 0 examples") == 3


def test_a_run_is_described(command, untrained_runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(untrained_runs["stretched"].folder, folder)
    (folder / "best" / "best.json").write_text(json.dumps({"epoch": 3, "val_dice": 0.87654}))
    done = command("inspect", folder)
    assert done.status == 0, done.err
    for text in [
        f"Run {folder}",
        "network flex_unet, 3 logits, tile 32x48x3",
        "preparation: resized to 32 x 48 pixels",
        "classes: background, class_1, class_2",
        "model.base_filters: 16, now 2",
        "best: epoch 3, val_dice 0.8765",
    ]:
        assert text in done.out


def test_a_run_shows_its_evaluations(command, untrained_runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(untrained_runs["gray"].folder, folder)
    (folder / "evaluation").mkdir()
    entry = {"id": 0, "name": "cell", "dice": 0.75, "iou": 0.6, "precision": None, "recall": 1.0}
    evaluation = {
        "split": "valid",
        "images": 12,
        "classes": [{**entry, "images": 4}],
        "foreground": {"dice_macro": 0.75, "iou_macro": 0.6, "dice_pooled": 0.5},
    }
    (folder / "evaluation" / "valid.json").write_text(json.dumps(evaluation))
    done = command("inspect", folder)
    assert done.status == 0, done.err
    assert "valid: 12 images" in done.out
    assert "0.7500" in done.out


@pytest.mark.parametrize("name", ["best/best.json", "evaluation/test.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"split": 3}', '{"epoch": "x"}'])
def test_a_damaged_file_of_a_run_is_told(command, untrained_runs, tmp_path, name, content):
    shutil.copytree(untrained_runs["gray"].folder, tmp_path / "run")
    path = tmp_path / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    done = command("inspect", tmp_path / "run")
    if (name, content) == ("best/best.json", '{"split": 3}'):
        assert "best: split 3" in done.out
        return
    assert done.status == 1
    assert f"{path} is damaged" in done.err
    assert "remove it" in done.err
    assert "unexpected" not in done.err


@pytest.mark.parametrize("kind", ["missing", "empty", "a file"])
def test_anything_else_is_told(command, tmp_path, kind):
    path = tmp_path / "thing"
    if kind == "empty":
        path.mkdir()
    elif kind == "a file":
        path.write_text("mine")
    done = command("inspect", path)
    assert done.status == 1
    assert str(path) in done.err
    assert kind != "empty" or "is neither a dataset, nor a run, nor a bundle" in done.err


def test_inspect_takes_one_folder(command):
    for arguments in ([], ["a", "b"]):
        done = command("inspect", *arguments)
        assert done.status == 2
        assert "inspect takes DATASET|RUN|BUNDLE" in done.err
