"""What looks on shows what happens, and never stops a training."""

import re

import numpy as np
import pytest
import tensorflow as tf

import flexseg
from train import confusion_picture, curves, film, loop, previews, watcher
from train.progress_bar import ProgressBar

KEYS = {"train.epochs": 3, "train.previews": 2, "train.checkpoint_steps": 2}


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_once_of_each_kind_and_training_goes_on(
    train_command, tmp_path, command, monkeypatch
):
    """Nothing is left half-made, and checkpoints and best weights are there."""
    monkeypatch.setattr(curves, "write", full)
    monkeypatch.setattr(previews, "write_png", full)
    monkeypatch.setattr(tf.summary, "create_file_writer", full)
    done = command(*train_command(tmp_path / "run", KEYS))
    assert done.status == 0, done.err
    for what in ("curves", "previews", "confusion matrix", "TensorBoard log"):
        told = f"The {what} failed; the training goes on without: [Errno 28] No space left"
        assert done.err.count(told) == 1, what
    assert "Epoch 2: loss" in done.err
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"best", "checkpoints", "history.json"} <= made
    assert not made & {"eval", "previews", "logs"}


def test_a_picture_that_fails_once_is_drawn_again_after_the_next_epoch(
    train_command, tmp_path, command, monkeypatch
):
    drawn = []
    draw = confusion_picture.draw

    def fail_first(*args):
        drawn.append(1)
        return full() if len(drawn) == 1 else draw(*args)

    monkeypatch.setattr(confusion_picture, "draw", fail_first)
    assert command(*train_command(tmp_path / "run", KEYS)).status == 0
    assert len(drawn) == 3
    assert (tmp_path / "run" / "eval" / "confusion.png").exists()


def test_best_weights_that_cannot_be_kept_do_stop_the_training(
    train_command, tmp_path, command, monkeypatch
):
    import keras

    monkeypatch.setattr(keras.Model, "save_weights", full)
    done = command(*train_command(tmp_path / "run", KEYS))
    assert done.status != 0


def test_an_interrupt_is_never_taken_for_a_failure():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watcher.Onlooking()("previews", interrupt)


def events_of(folder):
    """(tag, step) of every event of a log, and the values of those that are scalars."""
    seen, values = [], {}
    for path in sorted((folder / "logs").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                seen.append((value.tag, event.step))
                if value.metadata.plugin_data.plugin_name == "scalars":
                    values[seen[-1]] = tf.make_ndarray(value.tensor).item()
    return seen, values


def test_a_run_that_was_broken_off_shows_what_an_unbroken_one_does(
    train_command, tmp_path, command, monkeypatch
):
    """After a crash in the third epoch: every step once in the log, the same curves and strips."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert flexseg.main(train_command(whole, KEYS)) == 0
    evaluate, calls = loop.Steps.evaluate, []

    def crash(*args):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the machine is gone")
        return evaluate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Steps, "evaluate", crash)
        assert command(*train_command(broken, KEYS)).status != 0
    assert max(step for _, step in events_of(broken)[0]) == 9
    assert command(*train_command(broken, KEYS)).status == 0
    (wanted, values), (found, again) = events_of(whole), events_of(broken)
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(wanted)
    timed = {"train/examples_per_second", "train/waiting_share"}
    for key in values:
        assert key[0] in timed or again[key] == values[key], key
    names = [f"eval/{n}.{s}" for n in ("train_losses", "train_classes") for s in ("csv", "png")]
    for name in (*names, "eval/confusion.png", "history.json", "previews/strip_valid.png"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name


def test_in_a_pipe_there_is_a_line_now_and_then(capsys):
    now = [1000.0]
    bar = ProgressBar(total=110, done=10, clock=lambda: now[0])
    for step in range(11, 111):
        now[0] += 7.0
        bar.show(step, f"loss {step}")
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    # 63 s are nine steps, the first whole multiple of 7 s beyond a minute.
    assert lines[0] == "Step 19 of 110: loss 19, 10:37 left"
    assert lines[1] == "Step 28 of 110: loss 28, 09:34 left"
    assert len(lines) == 11


def test_the_line_of_an_epoch_has_the_figure_that_is_monitored(train_command, tmp_path, command):
    keys = {"train.monitor": "val_dice/class_2", "train.epochs": 1, "train.steps_per_epoch": 1}
    done = command(*train_command(tmp_path / "run", keys))
    figures = r"loss \S+, dice \S+, learning_rate \S+, val_loss \S+, val_dice \S+"
    assert re.search(rf"Epoch 0: {figures}, val_dice/class_2 \S+ \(best so far\)", done.err)


@pytest.mark.parametrize("classes", [2, 6, 30])
def test_a_confusion_matrix_is_darker_where_more_pixels_are(classes):
    matrix = np.eye(classes, dtype=np.int64) * 10
    matrix[0, 0] = 0
    names = [f"class {k}" for k in range(classes)]
    picture = confusion_picture.draw(matrix, names, "valid, epoch 3")
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    blues = (picture == (8, 48, 107)).all(-1).sum()  # the darkest: a share of 1
    grays = (picture == (217, 217, 217)).all(-1).sum()  # the row without pixels
    assert blues > grays * (classes - 1) / classes * 0.5 > 0


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0"), (1.0, "100"), (0.0001, "<0.1"), (0.9999, ">99.9"), (0.123, "12.3"), (0.5, "50")],
)
def test_no_share_is_told_as_none_or_all_if_it_is_not(share, text):
    assert confusion_picture.percent(share) == text


def test_strips_are_drawn_of_the_run_that_is_trained(trained):
    strip = film.Film(str(trained)).of_sheets(1)
    import cv2

    shown = cv2.imread(str(trained / "previews" / "strip_valid.png"))[..., ::-1]
    np.testing.assert_array_equal(shown, strip)
