"""Early stopping, the plateau and the best epoch, on values that are made up."""

import contextlib
import json
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipelines import batches
from pipelines import manifest as manifests
from train import epoch_end, runs
from train.progress import Progress


def matrix_of(dice):
    """A confusion matrix of three classes with that foreground macro Dice; None: with none."""
    matrix = np.zeros((3, 3), np.int64)
    if dice is not None:
        hits = round(1000 * dice)
        matrix[1, 1], matrix[1, 0] = hits, 2 * (1000 - hits)
    return matrix


class ScriptedSteps:
    """Stands in for `loop.Steps`: evaluates to what it was told, and saves the epoch as weights."""

    def __init__(self, script):
        self.script = list(script)
        self.epoch = -1
        self.is_averaged = False
        self.plateau = tf.Variable(1.0)
        self.optimizer = types.SimpleNamespace(learning_rate=tf.Variable(0.1))
        self.model = self

    def evaluate(self, dataset):
        assert self.is_averaged
        loss, dice = self.script[self.epoch]
        return loss, matrix_of(dice)

    @contextlib.contextmanager
    def averaged(self):
        self.is_averaged = True
        yield
        self.is_averaged = False

    def save_weights(self, path):
        assert self.is_averaged
        Path(path).write_text(str(self.epoch))


@pytest.fixture
def play(planned, monkeypatch):
    """Plays a script of (val_loss, val_dice) by epoch; hands back what was so after each epoch."""
    monkeypatch.setattr(batches, "evaluation", lambda *_: None)

    def run_script(script, keys=(), data=None):
        where = {} if data is None else {"data": data}
        run = planned({"train.epochs": len(script), **dict(keys)}, **where)
        runs.claim(run)
        manifest = manifests.load(run.data)
        steps, progress, seen = ScriptedSteps(script), Progress(), []
        shown = []
        watcher = types.SimpleNamespace(epoch=lambda *_: shown.append(steps.is_averaged))
        while not progress.finished:
            steps.epoch += 1
            progress.step += 1
            progress.epoch_losses, progress.epoch_confusion = [1.0], matrix_of(0.5).tolist()
            epoch_end.end_epoch(run, steps, manifest, progress, 1, len(script), watcher)
            kept = int(Path(run.path(runs.BEST_WEIGHTS)).read_text())
            best = json.loads(Path(run.path(runs.BEST)).read_text())
            assert kept == best["epoch"] == progress.best_epoch
            seen.append((kept, round(float(steps.plateau.numpy()), 4)))
        assert shown == [True] * len(seen)
        assert progress.ended_by == ("epochs" if progress.step == len(script) else "patience")
        return seen

    return run_script


def by_dice(*values):
    return [(1.0, value) for value in values]


def by_loss(*values):
    return [(value, 0.5) for value in values]


def best_of(seen):
    return [best for best, _ in seen]


def plateau_of(seen):
    return [plateau for _, plateau in seen]


def test_the_best_epoch_has_the_highest_dice(play):
    assert best_of(play(by_dice(0.5, 0.4, 0.6, 0.6, 0.7, 0.1))) == [0, 0, 2, 2, 4, 4]


def test_the_best_epoch_has_the_lowest_loss_where_that_is_monitored(play):
    seen = play(by_loss(0.5, 0.6, 0.4, 0.4, 0.3, 0.9), {"train.monitor": "val_loss"})
    assert best_of(seen) == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 7), (0, 8)])
def test_training_stops_after_that_many_epochs_without_a_better_one(play, patience, epochs):
    dices = by_dice(0.5, 0.6, 0.6, 0.55, 0.7, 0.6, 0.65, 0.1)
    script = {1: dices, 2: dices, 3: by_dice(0.5, 0.4, 0.4, 0.6, 0.6, 0.5, 0.6, 0.9), 0: dices}
    assert len(play(script[patience], {"train.patience": patience})) == epochs


def test_the_plateau_reduces_the_rate_each_time_its_patience_is_out(play):
    keys = {"train.plateau_patience": 2, "train.plateau_factor": 0.5}
    seen = play(by_dice(0.5, 0.4, 0.4, 0.4, 0.4, 0.6, 0.6, 0.6), keys)
    assert plateau_of(seen) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_a_better_epoch_lets_the_plateau_count_from_zero(play):
    keys = {"train.plateau_patience": 2, "train.plateau_factor": 0.5}
    assert plateau_of(play(by_dice(0.5, 0.4, 0.6, 0.4, 0.7, 0.4), keys)) == [1] * 6


def test_without_plateau_patience_the_rate_is_never_reduced(play):
    assert plateau_of(play(by_dice(*[0.5] * 5))) == [1] * 5


def test_patience_counts_on_over_a_reduction(play):
    """The plateau's own count begins anew; that of early stopping does not."""
    keys = {"train.plateau_patience": 1, "train.patience": 3}
    assert len(play(by_dice(*[0.5] * 9), keys)) == 4


@pytest.mark.parametrize("monitor", ["val_dice", "val_loss"])
def test_something_is_kept_even_if_there_is_no_figure_and_any_figure_is_better(play, monitor):
    nothing = (float("nan"), None)
    seen = play([nothing, nothing, (0.9, 0.1), nothing], {"train.monitor": monitor})
    assert best_of(seen)[0] == 0
    assert best_of(seen)[2:] == [2, 2]


@pytest.mark.parametrize("monitor", ["val_dice", "val_loss"])
def test_without_a_validation_split_the_newest_weights_are_the_best(play, large_datasets, monitor):
    keys = {"train.monitor": monitor, "train.patience": 2, "train.plateau_patience": 1}
    seen = play(by_dice(*[0.5] * 5), keys, large_datasets["tiled"])
    assert best_of(seen) == [0, 1, 2, 3, 4]
    assert plateau_of(seen) == [1] * 5


@pytest.mark.parametrize("monitor", ["val_iou", "val_recall", "val_dice/class_1"])
def test_any_figure_can_say_which_epoch_is_the_best(play, monitor):
    """All of these rise with the hits of the script's confusion matrix."""
    seen = play(by_dice(0.5, 0.4, 0.6, 0.6, 0.7, 0.1), {"train.monitor": monitor})
    assert best_of(seen) == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize(
    ("monitor", "epochs"), [("val_loss", 3), ("val_dice", 8), ("val_dice/class_1", 8), ("loss", 3)]
)
def test_patience_and_plateau_go_by_what_is_monitored(play, monitor, epochs):
    """The loss gets worse while Dice gets better; that of the train split stays as it is."""
    script = [(1 + epoch, 0.1 * epoch) for epoch in range(8)]
    keys = {"train.monitor": monitor, "train.patience": 2, "train.plateau_patience": 1}
    seen = play(script, keys)
    assert len(seen) == epochs
    assert (plateau_of(seen)[-1] < 1) == (epochs == 3)


def test_without_a_validation_split_a_figure_of_the_train_split_is_followed(play, large_datasets):
    keys = {"train.monitor": "dice", "train.patience": 2}
    seen = play(by_dice(*[0.5] * 5), keys, large_datasets["tiled"])
    assert best_of(seen) == [0, 0, 0]
