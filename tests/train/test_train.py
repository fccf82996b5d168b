"""What a training leaves behind, and that the same experiment leaves the same."""

import json

import cv2
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import flexseg
from flexseg_errors import FlexsegError
from pipelines import batches
from pipelines.online_augment import Augmentation
from train import experiment as experiments
from train import loop, metrics, runs

FILES = [
    "best/best.json",
    "best/model.weights.h5",
    "checkpoints/step-000000004/checksums.json",
    "checkpoints/step-000000004/state.json",
    "checkpoints/step-000000004/variables.data-00000-of-00001",
    "checkpoints/step-000000004/variables.index",
    "checkpoints/step-000000006/checksums.json",
    "checkpoints/step-000000006/state.json",
    "checkpoints/step-000000006/variables.data-00000-of-00001",
    "checkpoints/step-000000006/variables.index",
    "eval/confusion.png",
    "eval/train_classes.csv",
    "eval/train_classes.png",
    "eval/train_losses.csv",
    "eval/train_losses.png",
    "eval/train_metrics.csv",
    "eval/train_metrics.png",
    "experiment.yaml",
    "history.json",
    "input.yaml",
    "label_map.yaml",
    "previews/epoch_0000.png",
    "previews/epoch_0001.png",
    "previews/strip_valid.png",
    "software.json",
]
CLASS_DICES = ["dice/class_1", "dice/class_2"]


def weights_in(path):
    """All arrays of a Keras weights file by name."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return found


def assert_same_weights(one, other):
    one, other = (weights_in(folder / runs.BEST_WEIGHTS) for folder in (one, other))
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], name)


def files_of(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def test_a_run_directory_holds_what_the_design_says_and_nothing_else(trained):
    files = files_of(trained)
    logs = [f for f in files if f.startswith("logs/events.out.tfevents.")]
    assert len(logs) == 1
    assert sorted(set(files) - set(logs)) == FILES


def test_the_history_has_a_value_of_everything_for_every_epoch(trained):
    history = json.loads((trained / "history.json").read_text())
    figures = ["loss", "dice", "iou", "precision", "recall", "accuracy", *CLASS_DICES]
    assert list(history) == [*figures, "learning_rate", *(f"val_{name}" for name in figures)]
    assert {len(values) for values in history.values()} == {2}


@pytest.mark.parametrize(
    ("name", "header", "columns"),
    [
        ("train_losses", "epoch, loss, val_loss", ["loss", "val_loss"]),
        ("train_metrics", "epoch,dice,val_dice,", ["dice", "val_dice"]),
        (
            "train_classes",
            "epoch,dice/class_1,dice/class_2,val_dice/class_1,val_dice/class_2",
            [*CLASS_DICES, *(f"val_{name}" for name in CLASS_DICES)],
        ),
    ],
)
def test_the_curves_are_the_history(trained, name, header, columns):
    history = json.loads((trained / "history.json").read_text())
    lines = (trained / "eval" / f"{name}.csv").read_text().splitlines()
    assert lines[0] == header
    for epoch, line in enumerate(lines[1:]):
        values = [history[column][epoch] for column in columns]
        assert line.split(", ") == [str(epoch), *(f"{value:.4f}" for value in values)]
    assert len(lines) == 3
    assert cv2.imread(str(trained / "eval" / f"{name}.png")).shape == (600, 800, 3)


def test_the_best_is_the_epoch_with_the_highest_foreground_dice(trained):
    history = json.loads((trained / "history.json").read_text())
    best = json.loads((trained / "best" / "best.json").read_text())
    epoch = int(np.argmax(history["val_dice"]))
    assert best == {"epoch": epoch, **{key: values[epoch] for key, values in history.items()}}


def test_tensorboard_gets_the_scalars_and_pictures_of_steps_and_epochs(trained):
    path = next((trained / "logs").iterdir())
    seen, pictures = {}, {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "images":
                picture = tf.io.decode_png(tf.make_ndarray(value.tensor)[2]).numpy()
                pictures.setdefault(value.tag, {})[event.step] = picture
            else:
                seen.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor).item()
    history = json.loads((trained / "history.json").read_text())
    epochs = {f"epoch/{name}" for name in history}
    calls = {
        f"train/{k}" for k in ("loss", "learning_rate", "examples_per_second", "waiting_share")
    }
    assert set(seen) == epochs | calls
    assert set(pictures) == {"valid/image_truth_prediction_error", "valid/confusion"}
    for epoch, step in enumerate((3, 6)):
        sheet = cv2.imread(str(trained / "previews" / f"epoch_{epoch:04d}.png"))[..., ::-1]
        found = pictures["valid/image_truth_prediction_error"][step]
        np.testing.assert_array_equal(found, sheet)
    newest = cv2.imread(str(trained / "eval" / "confusion.png"))[..., ::-1]
    np.testing.assert_array_equal(pictures["valid/confusion"][6], newest)
    assert list(seen["epoch/val_loss"]) == [3, 6]
    assert list(seen["epoch/val_loss"].values()) == pytest.approx(history["val_loss"])
    assert list(seen["train/loss"]) == [2, 3, 4, 6], "calls end at checkpoints and epochs"
    assert all(0 <= share <= 1 for share in seen["train/waiting_share"].values())


def test_the_saved_experiment_makes_the_same_run_bit_for_bit(trained, dataset, tmp_path, command):
    again = tmp_path / "again"
    done = command(
        "train",
        f"--experiment={trained / runs.EXPERIMENT}",
        f"--data={dataset}",
        f"--run={again}",
    )
    assert done.status == 0, done.err
    assert "Epoch 1: loss" in done.err
    assert_same_weights(trained, again)
    for name in set(FILES) - {runs.BEST_WEIGHTS}:
        if "variables" not in name and "checksums" not in name:
            assert (again / name).read_bytes() == (trained / name).read_bytes(), name


def test_the_saved_experiment_is_resolved_and_complete(trained):
    saved = experiments.load(str(trained / runs.EXPERIMENT))
    assert saved.model.network.dropout_rate == 0.2
    assert (trained / runs.EXPERIMENT).read_text() == experiments.dump(saved)


def test_a_finished_run_is_left_as_it_is(trained, train_command, command):
    keys = {"train.previews": 2, "model.dropout_rate": 0.2, "train.checkpoint_steps": 2}
    before = {name: path.read_bytes() for name, path in files_of(trained).items()}
    done = command(*train_command(trained, keys))
    assert done.status == 0
    assert "is finished: best epoch" in done.err
    assert {name: path.read_bytes() for name, path in files_of(trained).items()} == before


def test_a_trained_network_comes_back_in_float32_with_its_best_weights(trained):
    run = runs.load(str(trained))
    model = run.load_model()
    assert keras.config.dtype_policy().name == "float32"
    found = {v.path: v.numpy() for v in model.weights}
    stored = weights_in(trained / runs.BEST_WEIGHTS)
    assert sorted(v.size for v in found.values()) == sorted(v.size for v in stored.values())
    assert all(any(np.array_equal(f, s) for s in stored.values()) for f in found.values())


def test_the_best_weights_are_kept_and_training_stops_when_patience_is_out(
    train_command, tmp_path, monkeypatch, command
):
    """And each epoch's figures are those of its own steps, however they were called."""
    dices, seen, results = [30, 60, 50, 55, 90], [], []
    teach = loop.Steps.train

    def train(*args):
        results.append(teach(*args))
        return results[-1]

    def evaluate(steps, dataset):
        seen.append([v.numpy() for v in steps.model.weights])
        dice = dices[len(seen) - 1]
        return 1.0, np.array([[0, 0, 0], [2 * (100 - dice), dice, 0], [0, 0, 0]])

    monkeypatch.setattr(loop.Steps, "train", train)
    monkeypatch.setattr(loop.Steps, "evaluate", evaluate)
    keys = {
        "train.epochs": 9,
        "train.patience": 2,
        "train.steps_per_epoch": 2,
        "train.steps_per_call": 1,
    }
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 0
    assert "Stopped early: no better epoch for 2 epochs." in done.err
    assert len(seen) == 4
    best = json.loads((tmp_path / "run" / runs.BEST).read_text())
    assert (best["epoch"], best["val_dice"]) == (1, 0.6)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    for epoch in range(4):
        own = results[2 * epoch : 2 * epoch + 2]
        assert history["loss"][epoch] == pytest.approx(np.mean([r.losses for r in own]))
        matrix = np.sum([r.confusion for r in own], axis=0)
        assert history["dice"][epoch] == metrics.foreground(matrix).dice_macro
    kept = runs.load(str(tmp_path / "run")).load_model().weights
    for variable, value in zip(kept, seen[1], strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, variable.path)


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(
    train_command, tmp_path, command, monkeypatch, steps_per_call
):
    taught = loop.Steps.train

    def train(self, iterator, first_step, count):
        result = taught(self, iterator, first_step, count)
        if first_step <= 4 < first_step + count:
            result.losses[4 - first_step :] = np.nan
        return result

    monkeypatch.setattr(loop.Steps, "train", train)
    keys = {"train.steps_per_call": steps_per_call, "train.steps_per_epoch": 6}
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 1
    assert "The loss of step 4 is nan." in done.err
    assert "optimizer.learning_rate" in done.err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_learning_rate_beyond_all_measure_is_told_by_its_loss(train_command, tmp_path, command):
    keys = {
        "optimizer.learning_rate": 1e30,
        "train.steps_per_epoch": 6,
        "model.normalization": "none",
    }
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 1
    assert "The loss of step 1 is" in done.err


def test_a_dataset_without_a_validation_split_keeps_the_newest_weights(
    train_command, large_datasets, tmp_path, command
):
    """By whatever is monitored: there is nothing to monitor."""
    keys = {
        "train.monitor": "val_loss",
        "train.patience": 1,
        "train.epochs": 3,
        "train.steps_per_epoch": 1,
    }
    done = command(*train_command(tmp_path / "run", keys, large_datasets["tiled"]))
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "run" / runs.BEST).read_text())["epoch"] == 2
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert not [name for name in history if name.startswith("val_")]
    assert "No valid split: val_loss cannot be followed" in done.err


def test_the_input_is_read_as_the_experiment_says(train_command, tmp_path, command, monkeypatch):
    seen = []

    def train(manifest, options, start_step, part):
        seen.append((options, start_step))
        raise FlexsegError("seen enough")

    monkeypatch.setattr(batches, "train", train)
    keys = {
        "train.seed": 5,
        "data.batch_size": 3,
        "data.crop_size": "16,24",
        "data.shuffle_mb": 7,
        "augment.rotation": 40,
        "augment.flip_vertical": True,
    }
    assert "seen enough" in command(*train_command(tmp_path / "run", keys)).err
    options = batches.TrainInput(
        batch_size=3,
        seed=5,
        crop_size=(16, 24),
        augmentation=Augmentation(
            flip_horizontal=True,
            flip_vertical=True,
            rotation=40,
            scale=0.2,
            brightness=0.1,
            contrast=0.2,
        ),
        shuffle_bytes=7 << 20,
    )
    assert seen == [(options, 0)]


@pytest.mark.parametrize("missing", ["data", "run"])
def test_train_says_which_flag_it_needs(missing, command):
    given = {"data": "d", "run": "r"}
    del given[missing]
    done = command("train", *(f"--{k}={v}" for k, v in given.items()))
    assert done.status == 2
    assert f"train needs --{missing}" in done.err


def test_help_lists_every_key_with_its_default(command):
    done = command("train", "--help")
    assert done.status == 0
    assert "--config.optimizer.learning_rate" in done.out
    assert "Default: 0.001." in done.out
    assert flexseg.COMMANDS["train"].module == "train.train"
