"""Several worker processes do what one process does, and none is left alone when one is lost."""

import contextlib
import dataclasses
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import flexseg
from flexseg_errors import FlexsegError
from pipelines import batches
from train import checkpoints, loop, resume, runs
from train.distribution import Cluster
from train.workers import Workers

HERE = Path(__file__).parent
# What workers could do otherwise than one process: moments and sums over the batch, clipping of a
# gradient that is not yet whole, accumulation, the average of the weights, the plateau. Epsilon and
# learning rate as in test_replicas.py, and for the same reason.
KEYS = {
    "model.levels": 1,  # tracing is what takes the time
    "model.dropout_rate": 0,
    "model.normalization": "batch",
    "data.batch_size": 4,
    "augment.brightness": 0.3,
    "optimizer.epsilon": 1e-3,
    "optimizer.learning_rate": 0.01,
    "optimizer.clip_threshold": 0.05,
    "optimizer.accumulate_steps": 2,
    "optimizer.schedule": "constant",
    "train.loss": "ce+dice",
    "train.ema_decay": 0.9,
    "train.epochs": 3,
    "train.steps_per_epoch": 2,
    "train.steps_per_call": 1,
    "train.checkpoint_steps": 1,
    "train.plateau_patience": 1,
}
STEPS = 6
# Workers add the same float32 numbers in another order, as replicas do; see test_replicas.py.
TOLERANCE = 1e-5
# Seconds until a test gives up; TensorFlow notices within 10 that a worker is gone.
BOUND = 600


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Finished:
    """What the workers of a training left: a list of each, in order."""

    def __init__(self, processes, records, addresses):
        try:
            self.err = [process.communicate(timeout=BOUND)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        self.status = [process.returncode for process in processes]
        self.addresses = addresses
        self.records = [dict(np.load(r)) if r.is_file() else None for r in records]


@pytest.fixture
def work(train_command, tmp_path):
    """A function that trains a run by two workers; `fates` are those of `worker_run`."""

    def run_both(folder, data, fates=("-", "-"), keys=KEYS):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        records = [tmp_path / f"{folder.name}-{i}.npz" for i in range(2)]
        processes = []
        for i, fate in enumerate(fates):
            records[i].unlink(missing_ok=True)
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
            arguments = [str(records[i]), fate, *train_command(folder, keys, data)]
            processes.append(
                subprocess.Popen(
                    [sys.executable, str(HERE / "worker_run.py"), *arguments],
                    env={
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
                        "TF_CONFIG": json.dumps(task),
                    },
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return Finished(processes, records, addresses)

    return run_both


@pytest.fixture(scope="module")
def datasets(sources, tmp_path_factory):
    """Few shards, of which workers take parts of batches; and enough for each to have its own."""
    folder = tmp_path_factory.mktemp("data")
    shares = {"data": "train:0.25,valid:0.25,test:0.5", "file": "train:0.75,valid:0.25"}
    for name, share in shares.items():
        status = flexseg.main(
            [
                "prepare",
                f"--dataset={sources}",
                f"--output={folder / name}",
                "--label_map={(0,0,0):0,(255,0,0):1,(0,255,0):2}",
                f"--split={share}",
                "--direct_num_workers=1",
            ]
        )
        assert status == 0
    return {name: folder / name for name in shares}


@pytest.fixture
def alone(train_command, tmp_path, monkeypatch):
    """A function that trains a run in this process, and hands back what its steps returned."""

    def run_alone(folder, data, keys=KEYS):
        record = tmp_path / "alone.npz"
        with monkeypatch.context() as patch:
            for name in ("train", "evaluate"):  # which it replaces for good
                patch.setattr(loop.Steps, name, getattr(loop.Steps, name))
            recorded_run = runpy.run_path(str(HERE / "recorded_run.py"))
            assert recorded_run["main"](record, train_command(folder, keys, data)) == 0
        return dict(np.load(record))

    return run_alone


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def arrays_in(checkpoint):
    reader = tf.train.load_checkpoint(str(Path(checkpoint) / "variables"))
    names = [n for n in reader.get_variable_to_shape_map() if n != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    return {name: reader.get_tensor(name) for name in names}


def assert_near(found, expected, folder, other):
    """Two trainings are the same but for the order in which numbers were added."""
    assert found.keys() == expected.keys()
    assert len(expected["losses"]) == STEPS
    assert len(expected["val_losses"]) == 3
    for name in ("losses", "val_losses"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)
    for name in [n for n in expected if n.startswith("weights/")]:
        np.testing.assert_allclose(found[name], expected[name], atol=TOLERANCE, err_msg=name)
    for name in ("confusion", "val_confusion"):
        # The same pixels; one may turn over where two classes are all but equal.
        np.testing.assert_array_equal(found[name].sum((1, 2)), expected[name].sum((1, 2)))
        assert abs(found[name] - expected[name]).sum() <= 1e-3 * expected[name].sum()
    # The average of the weights and the optimizer's moments lie in the checkpoint alone.
    last = f"checkpoints/step-{STEPS:09d}"
    one, two = arrays_in(folder / last), arrays_in(other / last)
    assert one.keys() == two.keys()
    assert [name for name in one if name.startswith("average/values")]
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=TOLERANCE, err_msg=name)


def test_two_workers_do_what_one_process_does(work, alone, datasets, tmp_path):
    """Each takes its part of every batch, from shards of which there are too few."""
    expected = alone(tmp_path / "one", datasets["data"])
    done = work(tmp_path / "two", datasets["data"])
    assert done.status == [0, 0], done.err
    for record, err in zip(done.records, done.err, strict=True):
        assert set(record["replicas"]) == {2}
        assert "Each worker reads all shards of the train split" in err
        assert_near(record, expected, tmp_path / "one", tmp_path / "two")
    for name, value in done.records[0].items():
        np.testing.assert_array_equal(done.records[1][name], value, f"on both workers: {name}")
    # The run is the chief's alone, and holds what that of one process does.
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    logs = [name for name in two if name.startswith("logs/")]
    assert len(logs) == 1
    assert two.keys() - logs == {name for name in one if not name.startswith("logs/")}
    assert "Epoch 0:" in done.err[0]
    assert "Epoch 0:" not in done.err[1]


@pytest.fixture
def in_parts(monkeypatch):
    """Makes one process read what two workers read, each its own shards, side by side."""

    def read(manifest, options, start_step, part=None):
        parts = [
            batches_train(manifest, options, start_step, batches.Part(i, 2, "file"))
            for i in range(2)
        ]
        return tf.data.Dataset.zip(*parts).map(
            lambda *both: {k: tf.concat([p[k] for p in both], 0) for k in both[0]}
        )

    batches_train = batches.train
    monkeypatch.setattr(batches, "train", read)


def test_workers_that_are_stopped_killed_and_started_again_end_as_if_nothing_had_been(
    work, alone, datasets, tmp_path, in_parts
):
    """Each reads its own shards. One is asked to stop; later one dies; bit for bit the same."""
    data = datasets["file"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done = work(unbroken, data)
    assert done.status == [0, 0], done.err
    assert "Each worker reads its own shards of the train split." in done.err[0]
    assert_near(done.records[0], alone(tmp_path / "one", data), tmp_path / "one", unbroken)

    stopped = work(broken, data, ("-", "TERM@1"))
    assert stopped.status == [130, 130], stopped.err
    for err in stopped.err:
        assert "Stopped after step 2 of 6, which is kept." in err
        assert f"flexseg train --data={data} --run={broken}" in err
    assert checkpoints.latest(str(broken / "checkpoints")).endswith("step-000000002")

    killed = work(broken, data, ("-", "KILL@4"))
    assert killed.status == [1, -9], killed.err
    assert f"Worker 1 ({killed.addresses[1]}) was lost" in killed.err[0]
    assert "The last checkpoint is that of step 4." in killed.err[0]
    assert "Start the same command again on every worker" in killed.err[0]
    assert "Traceback" not in killed.err[0]

    again = work(broken, data)
    assert again.status == [0, 0], again.err
    assert "Going on after step 4 of 6." in again.err[1]
    one, two = files_of(unbroken), files_of(broken)
    for name in set(one) - {n for n in one if n.startswith(("logs/", "checkpoints/"))}:
        assert two[name] == one[name], name
    last = f"checkpoints/step-{STEPS:09d}"
    assert two[f"{last}/state.json"] == one[f"{last}/state.json"]
    expected, found = arrays_in(unbroken / last), arrays_in(broken / last)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)


class Talking(Workers):
    """Workers in threads of this process, which add up by a barrier instead of a network."""

    def __init__(self, index, table, barrier):
        self.index, self.count = index, 3
        self._addresses = tuple(f"host{i}:1" for i in range(3))
        self._table, self._barrier = table, barrier

    def _sum(self, values):
        self._table[self.index] = list(values)
        self._barrier.wait(timeout=BOUND)
        total = [sum(column) for column in zip(*self._table, strict=True)]
        self._barrier.wait(timeout=BOUND)
        return total


def on_three(action):
    """Does something on three workers at once; hands back what each returned or raised."""
    table, barrier, seen = [None] * 3, threading.Barrier(3), [None] * 3

    def work_as(index):
        try:
            seen[index] = action(Talking(index, table, barrier))
        except Exception as error:
            seen[index] = error

    threads = [threading.Thread(target=work_as, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def test_what_one_worker_wants_all_learn():
    assert on_three(lambda w: w.any(w.index == 2)) == [True] * 3
    assert on_three(lambda w: w.any(False)) == [False] * 3
    assert on_three(lambda w: w.of_chief(7 + w.index)) == [7] * 3


def test_workers_that_were_not_started_alike_all_stop():
    def compare(worker):
        rate = 0.2 if worker.index == 1 else 0.1
        worker.refuse_differences({"the dataset": "d", "the experiment": f"rate {rate}"})

    for error in on_three(compare):
        assert isinstance(error, FlexsegError)
        assert "the experiment of worker 1 (host1:1) differs from that of worker 0" in str(error)
        assert "dataset" not in str(error)
    assert on_three(lambda w: w.refuse_differences({"a": "b"})) == [None] * 3


def test_what_fails_on_the_chief_fails_on_all_and_is_told_there():
    def refuse():
        raise FlexsegError("holds something else")

    first, *others = on_three(lambda w: w.on_chief(refuse))
    assert "holds something else" in str(first)
    for error in others:
        assert "Stopped, because worker 0 (host0:1) did" in str(error)
    assert on_three(lambda w: w.on_chief(lambda: w.index + 5)) == [5, None, None]


def test_what_fails_on_one_fails_on_all():
    def look(worker):
        if worker.index == 2:
            raise FlexsegError("does not see it")
        return worker.index

    *others, last = on_three(lambda w: w.on_all(lambda: look(w)))
    assert "does not see it" in str(last)
    assert all("because worker 2 (host2:1) did" in str(error) for error in others)


def test_the_chief_goes_first():
    order = []
    seen = on_three(lambda w: w.chief_first(lambda: order.append(w.index) or w.index))
    assert seen == [0, 1, 2]
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


def test_all_go_on_from_the_checkpoint_that_the_chief_takes(planned):
    """The newest is torn; nobody may take it, nor one that he alone sees."""
    run = planned()
    runs.claim(run)
    folder = run.path(runs.CHECKPOINTS)
    for step in (3, 6):
        saved = tf.train.Checkpoint(v=tf.Variable(float(step)))
        checkpoints.save(folder, step, saved, {"step": step}, keep=2)
    (Path(folder) / "step-000000006" / "state.json").write_text("{")

    def restore(worker):
        variables = tf.train.Checkpoint(v=tf.Variable(0.0))
        own = run if worker.is_chief else dataclasses.replace(run, writes=False)
        return resume.restore(own, variables, worker).step, float(variables.v)

    assert on_three(restore) == [(3, 3.0)] * 3


def test_a_worker_that_does_not_see_the_run_says_so(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "_SHARED_SECONDS", 0)
    run = planned()
    runs.claim(run)
    saved = tf.train.Checkpoint(v=tf.Variable(1.0))
    checkpoints.save(run.path(runs.CHECKPOINTS), 3, saved, {"step": 3}, keep=2)
    elsewhere = dataclasses.replace(run, folder=str(tmp_path / "own disk"), writes=False)

    def restore(worker):
        variables = tf.train.Checkpoint(v=tf.Variable(0.0))
        return resume.restore(run if worker.is_chief else elsewhere, variables, worker)

    chief, *others = on_three(restore)
    assert "because worker 1 (host1:1), worker 2 (host2:1) did" in str(chief)
    for error in others:
        assert "put it on storage that they share" in str(error)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (
            "Collective ops is aborted by: failed to connect to all addresses, remote target "
            "/job:worker/replica:0/task:1 while calling /tensorflow.WorkerService/RecvBuf",
            "Worker 1 (host1:1)",
        ),
        (
            "Collective ops is aborted by: Error reported from /job:worker/task:2: Task "
            "/job:worker/replica:0/task:2 heartbeat timeout.",
            "Worker 2 (host2:1)",
        ),
        ("Collective ops is aborted by: Socket closed", "A worker"),
    ],
)
def test_a_lost_worker_is_named(message, name):
    worker = Talking(0, [], None)
    with (
        pytest.raises(FlexsegError) as error,
        worker.watch(lambda: "The last checkpoint is that of step 5."),
    ):
        raise tf.errors.UnavailableError(None, None, message)
    assert str(error.value).startswith(f"{name} was lost")
    assert "that of step 5. Start the same command again on every worker" in str(error.value)


def test_what_has_nothing_to_do_with_workers_stays_what_it_is():
    with pytest.raises(tf.errors.DataLossError), Talking(0, [], None).watch(str):
        raise tf.errors.DataLossError(None, None, "corrupted record at 12")


def test_one_process_asks_nobody():
    alone = Workers(tf.distribute.OneDeviceStrategy("/cpu:0"), None)
    assert (alone.index, alone.count, alone.is_chief) == (0, 1, True)
    assert alone.any(True)
    assert not alone.any(False)
    with pytest.raises(FlexsegError, match="as it is"):
        alone.on_all(lambda: (_ for _ in ()).throw(FlexsegError("as it is")))
    assert Cluster(("a:1", "b:2"), 1).index == 1
