"""The fixed images that are looked at after each epoch, and the file that ends a training."""

import dataclasses
import json
import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from flexseg_errors import FlexsegError
from pipelines import manifest as manifests
from pipelines.preparation import Preparation
from train import break_training, epoch_previews, runs


def masks_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def pictures(tmp_path):
    """A folder of images of several kinds and sizes, and of things that are none."""
    folder = tmp_path / "mini_test"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("b.jpg", (40, 50)), ("a.x.png", (33, 20)), ("c.tif", (32, 32))):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    cv2.imwrite(str(folder / "deeper" / "d.png"), np.zeros((8, 8, 3), np.uint8))
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_images_of_a_folder_are_segmented_after_each_epoch_under_the_old_names(
    pictures, train_command, tmp_path, command
):
    keys = {
        "train.preview_folder": pictures,
        "train.preview_count": 2,
        "train.preview_mode": "both",
    }
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 0, done.err
    assert "failed" not in done.err
    for name in ("epoch_change_infer", "epoch_change_tiled_infer"):
        folder = tmp_path / "run" / name
        assert masks_in(folder) == [
            "Epoch_1_a.x.png",
            "Epoch_1_b.png",
            "Epoch_2_a.x.png",
            "Epoch_2_b.png",
        ]
        with Image.open(folder / "Epoch_2_b.png") as mask:
            assert (mask.mode, mask.size) == ("P", (50, 40))
            assert mask.getpalette()[:9] == [0, 0, 0, 255, 0, 0, 0, 255, 0]
        assert (tmp_path / "run" / "previews" / f"strip_{name}.png").exists()


def test_tiled_is_what_predict_does_and_whole_is_shrunk_to_the_network(
    pictures, untrained, large_datasets
):
    keys = {"train.preview_folder": pictures, "train.preview_mode": "both"}
    run = untrained(keys, data=large_datasets["tiled"])
    model = run.load_model()
    looked = epoch_previews.FolderPreviews(run, model)
    looked.write(4)
    image = cv2.imread(str(pictures / "a.x.png"))[..., ::-1].copy()
    shrunk = dataclasses.replace(run, preparation=Preparation(image_size=(32, 32)))
    for folder, whose in (("epoch_change_tiled_infer", run), ("epoch_change_infer", shrunk)):
        wanted = whose.segmenter(model).probabilities(image).numpy().argmax(-1)
        with Image.open(run.path(folder, "Epoch_5_a.x.png")) as mask:
            np.testing.assert_array_equal(np.asarray(mask), wanted)


@pytest.mark.parametrize("mode", ["whole", "tiled"])
def test_only_the_mode_that_is_asked_for_is_drawn(pictures, untrained, mode):
    run = untrained({"train.preview_folder": pictures, "train.preview_mode": mode})
    looked = epoch_previews.FolderPreviews(run, run.load_model())
    looked.write(0)
    names = {"whole": "epoch_change_infer", "tiled": "epoch_change_tiled_infer"}
    assert (runs_folders(run) & set(names.values())) == {names[mode]}


def runs_folders(run):
    from pathlib import Path

    return {path.name for path in Path(run.folder).iterdir() if path.is_dir()}


def test_the_first_images_by_name_are_taken(pictures):
    found = epoch_previews.find_images(str(pictures), 2)
    assert found == {"a.x": str(pictures / "a.x.png"), "b": str(pictures / "b.jpg")}
    assert list(epoch_previews.find_images(str(pictures), 9)) == ["a.x", "b", "c"]


def test_a_folder_that_cannot_serve_is_refused_when_planned(pictures, planned, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, what in ((empty, "no images in it"), (tmp_path / "none", "no such folder")):
        with pytest.raises(FlexsegError, match=f"train.preview_folder={folder}: there is {what}"):
            planned({"train.preview_folder": folder})
    cv2.imwrite(str(pictures / "b.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(FlexsegError, match=r"b\.jpg and .*b\.png would get the same mask"):
        planned({"train.preview_folder": pictures})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("crop_size", [None, (16, 16)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_samples_are_the_same_each_time_and_show_foreground(dataset, count, crop_size):
    manifest = manifests.load(str(dataset))
    samples = epoch_previews.choose_samples(manifest, count, crop_size)
    again = epoch_previews.choose_samples(manifest, count, crop_size)
    assert len(samples) == count
    for one, other in zip(samples, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.truth, other.truth)
    if crop_size is None:
        assert all((sample.truth > 0).any() for sample in samples)


def test_of_each_few_examples_the_one_with_most_foreground_is_shown(dataset):
    from pipelines import batches

    manifest = manifests.load(str(dataset))
    masks = [b["mask"][0] for b in batches.evaluation(manifest, "valid", 1).as_numpy_iterator()]
    best = max(masks, key=lambda mask: (mask > 0).sum())
    (sample,) = epoch_previews.choose_samples(manifest, 1, None)
    np.testing.assert_array_equal(sample.truth, best)


@pytest.mark.parametrize("place", ["run", "here"])
def test_break_training_ends_the_run_after_the_epoch_and_is_removed(
    train_command, tmp_path, command, monkeypatch, place
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = tmp_path / "run"
    save = runs.claim

    def claim_and_ask(planned):
        save(planned)
        (tmp_path / place / "break_training").touch()

    monkeypatch.setattr(runs, "claim", claim_and_ask)
    done = command(*train_command(run, {"train.epochs": 5}))
    assert done.status == 0, done.err
    assert "There is a file break_training: training ends after this epoch." in done.err
    assert "Epoch 0" in done.err
    assert "Epoch 1" not in done.err
    state = json.loads((run / "checkpoints" / "step-000000003" / "state.json").read_text())
    state = state.get("progress", state)
    assert (state["finished"], state["ended_by"]) == (True, "break_training")
    assert json.loads((run / runs.BEST).read_text())["epoch"] == 0
    assert not (tmp_path / place / "break_training").exists()
    monkeypatch.setattr(runs, "claim", save)
    again = command(*train_command(run, {"train.epochs": 5}))
    assert "is finished: best epoch 0." in again.err


def test_what_cannot_be_looked_at_or_removed_stops_nothing(planned, monkeypatch, capsys):
    def fail(*_):
        raise FlexsegError("the store does not answer")

    run = planned()
    monkeypatch.setattr(break_training.storage, "is_file", fail)
    assert not break_training.is_there(run)
    monkeypatch.setattr(break_training.storage, "is_file", lambda _: True)
    monkeypatch.setattr(break_training.storage, "remove", fail)
    break_training.remove(run)
    assert "cannot be removed" in capsys.readouterr().err


def test_colors_are_converted_as_predict_converts_them(pictures, planned, untrained, command):
    """By OpenCV, which has no equal in the graph."""
    folder = pictures / "one"
    folder.mkdir()
    (pictures / "c.tif").rename(folder / "c.tif")
    keys = {"train.preview_folder": folder, "train.preview_mode": "tiled"}
    run = untrained(keys)
    plain, steps = run.preparation, "gamma=1.5,color=cv2.COLOR_BGR2HSV_FULL"
    for name in (runs.EXPERIMENT, runs.INPUT, runs.LABEL_MAP):
        os.remove(run.path(name))
    run = dataclasses.replace(run, preparation=dataclasses.replace(plain, preprocessing=steps))
    shutil.move(run.path("best"), pictures / "best")
    runs.claim(run)
    shutil.move(pictures / "best", run.path("best"))
    model = run.load_model()
    epoch_previews.FolderPreviews(run, model).write(0)
    output = pictures / "predicted"
    done = command("predict", f"--model={run.folder}", f"--images={folder}", f"--output={output}")
    assert done.status == 0, done.err
    image = cv2.imread(str(folder / "c.tif"))[..., ::-1].copy()
    unlike = dataclasses.replace(run, preparation=plain).segmenter(model).probabilities(image)
    with (
        Image.open(run.path("epoch_change_tiled_infer", "Epoch_1_c.png")) as seen,
        Image.open(output / "c.png") as wanted,
    ):
        np.testing.assert_array_equal(np.asarray(seen), np.asarray(wanted))
        assert (np.asarray(seen) != unlike.numpy().argmax(-1)).any(), "the conversion matters"


def test_examples_that_are_all_padding_are_not_shown(dataset, monkeypatch):
    import tensorflow as tf

    from pipelines import batches
    from pipelines.label_map import IGNORE_ID

    masks = np.full((4, 1, 2, 2), IGNORE_ID, np.uint8)
    masks[1, 0, 0, 0] = 0  # background is something to be seen
    images = np.arange(4, dtype=np.uint8)[:, None, None, None, None] * np.ones(
        (1, 1, 2, 2, 3), np.uint8
    )
    made = tf.data.Dataset.from_tensor_slices({"image": images, "mask": masks})
    monkeypatch.setattr(batches, "evaluation", lambda *_: made)
    manifest = manifests.load(str(dataset))
    valid = dataclasses.replace(manifest.split("valid"), examples=4)
    manifest = dataclasses.replace(manifest, splits={**manifest.splits, "valid": valid})
    (sample,) = epoch_previews.choose_samples(manifest, 2, None)
    assert (sample.image == 1).all()
