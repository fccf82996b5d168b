"""How many devices a training runs on does not change what it does.

Logical CPU devices can be made once in a process, so each run has a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from train import runs

HERE = Path(__file__).parent
# Batch normalization, whose moments must be those of the global batch, and Dice, whose sums must.
# Clipping by the global norm must act on the summed gradient. No dropout: replicas would draw
# masks for smaller batches. Adam divides by the root of the second moment, which for a gradient
# near zero magnifies its rounding without bound; epsilon=1e-3 bounds it, see TOLERANCE.
KEYS = {
    "model.dropout_rate": 0,
    "model.normalization": "batch",
    "data.batch_size": 4,
    "optimizer.epsilon": 1e-3,
    "optimizer.learning_rate": 0.01,
    "optimizer.clip_threshold": 0.05,
    "train.loss": "ce+dice",
    "train.steps_per_epoch": 3,
    "train.steps_per_call": 2,
}
# Replicas add the same float32 numbers in another order, which changes a gradient by some 1e-7 of
# the gradients (about 1) that it is summed from. An update changes by at most 10 times that
# (learning_rate / epsilon), 1e-6 in a weight in each of the six steps. Measured: 6e-7 after all.
TOLERANCE = 1e-5


def recorded(record, arguments):
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    return subprocess.run(
        [sys.executable, str(HERE / "recorded_run.py"), str(record), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "more",
    [{}, {"optimizer.accumulate_steps": 2, "train.ema_decay": 0.5}],
    ids=["plain", "accumulation_and_average"],
)
def test_two_replicas_do_what_one_does(train_command, tmp_path, more):
    """Same global batch: same losses, confusion matrices, weights, evaluations.

    What is evaluated are the averaged weights, where there are any.
    """
    records = {}
    for devices in (1, 2):
        keys = {**KEYS, **more, "distribute.cpu_devices": devices}
        record = tmp_path / f"{devices}.npz"
        done = recorded(record, train_command(tmp_path / str(devices), keys))
        assert done.returncode == 0, done.stderr
        records[devices] = dict(np.load(record))
        assert set(records[devices]["replicas"]) == {devices}
        assert (tmp_path / str(devices) / runs.BEST_WEIGHTS).is_file()
    one, two = records[1], records[2]
    assert one.keys() == two.keys()
    assert len(one["losses"]) == 6
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    np.testing.assert_allclose(two["val_losses"], one["val_losses"], rtol=1e-5)
    for name in [n for n in one if n.startswith("weights/")]:
        np.testing.assert_allclose(two[name], one[name], atol=TOLERANCE, err_msg=name)
    # A pixel may turn over where two classes are all but equal.
    np.testing.assert_array_equal(two["confusion"].sum((1, 2)), one["confusion"].sum((1, 2)))
    batches = more.get("optimizer.accumulate_steps", 1)
    assert one["confusion"].sum() == 6 * batches * 4 * 32 * 32
    for name in ("confusion", "val_confusion"):
        assert abs(two[name] - one[name]).sum() <= 1e-3 * one[name].sum()


def test_a_batch_that_replicas_cannot_share_is_refused(train_command, tmp_path):
    keys = {**KEYS, "data.batch_size": 3, "distribute.cpu_devices": 2}
    done = recorded(tmp_path / "none.npz", train_command(tmp_path / "run", keys))
    assert done.returncode == 1
    assert "data.batch_size=3 cannot be divided among 2 replicas; give a multiple." in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists(), "the mended command must not find another's run"


@pytest.mark.parametrize("strategy", ["one", "mirrored"])
def test_a_strategy_may_be_named(train_command, tmp_path, command, strategy):
    keys = {**KEYS, "distribute.strategy": strategy, "train.epochs": 1}
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 0, done.err
