"""What of an experiment may change while its run stands still."""

import json

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from train import experiment as experiments
from train import runs

FREE = {
    "train.steps_per_call": 7,
    "train.checkpoint_steps": 3,
    "train.keep_checkpoints": 5,
    "train.previews": 3,
    "train.patience": 4,
    "distribute.strategy": "one",
    "distribute.cpu_devices": 2,
    "inference.overlap": 0.5,
}
BOUND = {
    "model.levels": 3,
    "data.batch_size": 6,
    "data.shuffle_mb": 3,
    "augment.rotation": 1,
    "optimizer.learning_rate": 0.5,
    "train.epochs": 9,  # of a cosine, which the end of the run decides
    "train.monitor": "val_loss",
    "train.plateau_patience": 2,
    "train.precision": "mixed_float16",
    "train.ema_decay": 0.5,
    "train.seed": 9,
}


@pytest.mark.parametrize("key", FREE)
def test_what_no_weight_depends_on_may_change_and_is_written_down(planned, key, capsys):
    runs.claim(planned())
    changed = planned({key: FREE[key]})
    runs.claim(changed)
    assert runs.load(changed.folder) == changed
    assert f"goes on with changes: {key}: " in capsys.readouterr().err


@pytest.mark.parametrize("key", BOUND)
def test_the_rest_may_not(planned, key):
    runs.claim(planned())
    with pytest.raises(FlexsegError, match=rf"holds a run that differs \({key}: "):
        runs.claim(planned({key: BOUND[key], "train.previews": 3}))
    assert runs.load(planned().folder) == planned(), "nothing was touched"


def weights_of(folder):
    return {v.path: v.numpy() for v in runs.load(str(folder)).load_model().weights}


def test_a_finished_run_of_constant_rate_goes_on_to_more_epochs(train_command, tmp_path, command):
    """And ends as one that was begun with them."""
    keys = {"optimizer.schedule": "constant", "train.steps_per_epoch": 2}
    more = {**keys, "train.epochs": 3}
    assert command(*train_command(tmp_path / "long", more)).status == 0
    assert command(*train_command(tmp_path / "short", {**keys, "train.epochs": 1})).status == 0
    done = command(*train_command(tmp_path / "short", more))
    assert done.status == 0, done.err
    assert "goes on with changes: train.epochs: 1, now 3." in done.err
    assert "Going on after step 2 of 6." in done.err
    histories = [json.loads((tmp_path / n / "history.json").read_text()) for n in ("long", "short")]
    assert histories[0] == histories[1]
    expected, found = weights_of(tmp_path / "long"), weights_of(tmp_path / "short")
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
    saved = experiments.load(str(tmp_path / "short" / runs.EXPERIMENT))
    assert saved.train.epochs == 3


def test_a_run_that_patience_ended_goes_on_with_more_of_it(train_command, tmp_path, command):
    keys = {
        "optimizer.learning_rate": 0,  # so that no epoch is better than the first
        "model.normalization": "none",
        "train.steps_per_epoch": 1,
        "train.epochs": 5,
    }
    first = command(*train_command(tmp_path / "run", {**keys, "train.patience": 1}))
    assert "Stopped early: no better epoch for 1 epochs." in first.err
    done = command(*train_command(tmp_path / "run", {**keys, "train.patience": 3}))
    assert "Going on after step 2 of 5." in done.err
    assert "Stopped early: no better epoch for 3 epochs." in done.err
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history["loss"]) == 4
