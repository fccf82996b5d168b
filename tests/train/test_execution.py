"""XLA gives the same steps where it can and is refused where it cannot; deterministic runs are."""

import os
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from tests.train.tiny_steps import VISIBLE, iterator_of, some_batches, steps_of, weights_of
from train import execution, losses, runs

ROOT = Path(__file__).parents[2]


def replicas(count):
    return types.SimpleNamespace(num_replicas_in_sync=count)


def test_compiled_steps_are_those_that_are_not():
    """Batch normalization, the average and the optimizer among them."""
    plain, compiled = (
        steps_of(VISIBLE, "ce+dice", options={"ema_decay": 0.5, "jit_compile": jit})
        for jit in (False, True)
    )
    results = [s.train(iterator_of(s, some_batches(2)), 0, 2) for s in (plain, compiled)]
    np.testing.assert_allclose(results[1].losses, results[0].losses, rtol=1e-5)
    np.testing.assert_array_equal(results[1].confusion, results[0].confusion)
    for path, value in weights_of(plain.model).items():
        np.testing.assert_allclose(weights_of(compiled.model)[path], value, atol=1e-5)
    graph = compiled._forward_backward
    assert graph.experimental_get_compiler_ir  # it is a compiled function
    assert graph._jit_compile


@pytest.mark.parametrize("loss", ["ce+dice", "boundary", "0.5*ce+hausdorff"])
@pytest.mark.parametrize("count", [1, 2])
def test_xla_is_refused_where_it_cannot_work_and_left_out_where_it_does_not_help(loss, count):
    parsed, strategy = losses.parse(loss), replicas(count)
    assert not execution.wants_xla("never", strategy, parsed)
    assert not execution.wants_xla("auto", strategy, parsed), "there is no GPU"
    if count == 1 and loss == "ce+dice":
        assert execution.wants_xla("always", strategy, parsed)
        return
    reason = "there are 2 replicas" if count == 2 else "cannot compile the loss"
    with pytest.raises(FlexsegError, match=reason) as caught:
        execution.wants_xla("always", strategy, parsed)
    assert "train.jit_compile=auto" in str(caught.value)


@pytest.mark.parametrize("count", [1, 2])
def test_on_a_single_gpu_it_is_chosen_by_itself(monkeypatch, count):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["one"])
    assert execution.wants_xla("auto", replicas(count), losses.parse("ce")) == (count == 1)
    assert not execution.wants_xla("auto", replicas(1), losses.parse("boundary"))


def test_what_xla_cannot_compile_is_refused_before_anything_is_written(
    train_command, tmp_path, command
):
    keys = {"train.jit_compile": "always", "train.loss": "boundary"}
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 1
    assert "XLA cannot compile the loss boundary" in done.err
    assert not (tmp_path / "run").exists()


ON_THREADS = """
import sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(4)
tf.config.threading.set_inter_op_parallelism_threads(4)
import flexseg
status = flexseg.main(sys.argv[1:])
from tensorflow.python.framework import config
print("deterministic" if config.is_op_determinism_enabled() else "free")
sys.exit(status)
"""


def test_a_deterministic_run_is_what_any_run_on_a_cpu_is(train_command, tmp_path):
    """To the bit, with several threads: twice free, once deterministic, each in its process."""
    ends = []
    for name, wanted in (("one", False), ("other", False), ("deterministic", True)):
        keys = {
            "train.deterministic": str(wanted).lower(),
            "model.dropout_rate": 0.2,
            "train.epochs": 1,
            "train.steps_per_epoch": 3,
        }
        done = subprocess.run(
            [sys.executable, "-c", ON_THREADS, *train_command(tmp_path / name, keys)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == ("deterministic" if wanted else "free")
        ends.append(arrays(tmp_path / name / runs.BEST_WEIGHTS))
    for end in ends[1:]:
        assert end.keys() == ends[0].keys()
        for name, value in ends[0].items():
            np.testing.assert_array_equal(end[name], value, name)


def arrays(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return found
