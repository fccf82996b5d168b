"""An interrupted training, run again, ends with the same bytes as one that was left alone."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

import flexseg
from flexseg_errors import FlexsegError
from pipelines import storage
from train import checkpoints, loop, resume, runs
from train.stop_signal import StopSignal
from train.workers import Workers

ROOT = Path(__file__).parents[2]
# All that could get out of step: dropout, augmentation, order, a plateau, patience, batch
# normalization, accumulated gradients, the average of the weights. Four epochs of two steps, which
# are no whole passes, saved at each step.
KEYS = {
    "model.dropout_rate": 0.3,
    "augment.brightness": 0.3,
    "augment.rotation": 30,
    "optimizer.schedule": "constant",
    "optimizer.learning_rate": 0.3,
    "optimizer.accumulate_steps": 2,
    "train.ema_decay": 0.6,
    "train.seed": 2,  # with which the second epoch is better than the first, and the third worse
    "train.epochs": 4,
    "train.steps_per_epoch": 2,
    "train.steps_per_call": 1,
    "train.checkpoint_steps": 1,
    "train.keep_checkpoints": 9,
    "train.monitor": "loss",
    "train.patience": 2,
    "train.plateau_patience": 1,
}
STEPS = 8
# Float16 gradients, with a loss scale that changes at each step; see `half`.
HALF_KEYS = {
    **KEYS,
    "train.precision": "mixed_float16",
    "train.epochs": 2,
    "train.ema_decay": 0,
    "optimizer.accumulate_steps": 1,
}


def watched(folder, arguments):
    """Trains `folder`/run, and copies it just before and just after each checkpoint."""
    save = checkpoints.save

    def saving(where, step, *args, **kwargs):
        shutil.copytree(folder / "run", folder / f"before-{step}")
        save(where, step, *args, **kwargs)
        shutil.copytree(folder / "run", folder / f"after-{step}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", saving)
        assert flexseg.main(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def unbroken(train_command, tmp_path_factory):
    """A finished run, and copies of it from just before and just after each checkpoint."""
    folder = tmp_path_factory.mktemp("resume")
    return watched(folder, train_command(folder / "run", KEYS))


def arrays_in_checkpoint(folder):
    reader = tf.train.load_checkpoint(str(Path(folder) / "variables"))
    names = [n for n in reader.get_variable_to_shape_map() if n != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    return {name: reader.get_tensor(name) for name in names}


def arrays_in_weights(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return found


def events_in(run):
    """What TensorBoard shows, but for times: (step, tag, value) in order, from all files."""
    found = []
    for path in (run / "logs").iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.tag not in ("train/examples_per_second", "train/waiting_share"):
                    found.append((event.step, value.tag, value.tensor.SerializeToString()))
    return sorted(found)


def assert_same_end(one, other, steps=STEPS):
    """Last checkpoint with its state, best weights, history, curves: the same, to the bit."""
    last = f"checkpoints/step-{steps:09d}"
    assert checkpoints.latest(str(one / "checkpoints")) == str(one / last)
    assert checkpoints.latest(str(other / "checkpoints")) == str(other / last)
    for read, name in ((arrays_in_checkpoint, last), (arrays_in_weights, runs.BEST_WEIGHTS)):
        expected, found = read(one / name), read(other / name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, key)
    files = [f"{last}/state.json", runs.BEST, runs.BEST_WEIGHTS, "history.json"]
    files += [f"eval/train_{c}.{s}" for c in ("losses", "metrics") for s in ("csv", "png")]
    for name in files:
        assert (other / name).read_bytes() == (one / name).read_bytes(), name
    assert events_in(other) == events_in(one), "none is missing, and none is there twice"


def test_the_unbroken_run_does_what_could_go_wrong(unbroken):
    """The plateau is reached while there is something to go on with, and dropout has a state."""
    history = json.loads((unbroken / "run" / "history.json").read_text())
    assert len(history["loss"]) == 4
    assert history["loss"][1] < history["loss"][0] < 10
    assert history["loss"][2] > history["loss"][1]
    assert history["learning_rate"][3] < history["learning_rate"][2]
    assert json.loads((unbroken / "run" / runs.BEST).read_text())["epoch"] != 0
    names = arrays_in_checkpoint(unbroken / "run" / "checkpoints" / "step-000000003")
    assert [n for n in names if "seed_state" in n]
    assert [n for n in names if n.startswith("average/values")]
    assert [n for n in names if "moving_variance" in n or "_variables" in n]
    losses = json.loads((unbroken / "after-3/checkpoints/step-000000003/state.json").read_text())
    assert len(losses["epoch_losses"]) == 1, "step 3 is in the middle of an epoch"


MOMENTS = [f"after-{k}" for k in range(1, STEPS + 1)] + [f"before-{k}" for k in (2, 4, 6, STEPS)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_restored_at_any_step_ends_as_if_it_had_never_stopped(
    unbroken, train_command, tmp_path, moment
):
    """Killed just after a checkpoint; or just before one, as after an epoch's files are written."""
    run = tmp_path / "run"
    shutil.copytree(unbroken / moment, run)
    assert flexseg.main(train_command(run, KEYS)) == 0
    assert_same_end(unbroken / "run", run)


def tear(run, step, name):
    path = run / "checkpoints" / f"step-{step:09d}" / name
    path.write_bytes(path.read_bytes()[:-7])


def test_a_torn_checkpoint_costs_its_step_alone(unbroken, train_command, tmp_path, command):
    """The one before it is taken, and it is said which was left out and why."""
    run = tmp_path / "run"
    shutil.copytree(unbroken / "after-5", run)
    tear(run, 5, "variables.data-00000-of-00001")
    done = command(*train_command(run, KEYS))
    assert done.status == 0, done.err
    assert "step-000000005 is left out: variables.data-00000-of-00001 is not what" in done.err
    assert "Going on after step 4 of 8." in done.err
    assert_same_end(unbroken / "run", run)


def test_a_kill_between_best_weights_best_json_and_checkpoint(unbroken, train_command, tmp_path):
    """The weights are those of an epoch that no file tells of, and a checkpoint is half there."""
    run = tmp_path / "run"
    shutil.copytree(unbroken / "before-4", run)
    shutil.copy(unbroken / "after-3" / runs.BEST, run / runs.BEST)
    half = run / "checkpoints" / "step-000000004.tmp"
    shutil.copytree(unbroken / "after-4" / "checkpoints" / "step-000000004", half)
    (half / "state.json").unlink()
    assert (run / runs.BEST_WEIGHTS).read_bytes() != (
        unbroken / "after-3" / runs.BEST_WEIGHTS
    ).read_bytes()
    assert flexseg.main(train_command(run, KEYS)) == 0
    assert_same_end(unbroken / "run", run)


@pytest.fixture(scope="module")
def half(train_command, tmp_path_factory):
    """As `unbroken`, in float16, with a loss scale that is doubled after each good step."""
    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_SCALE_GROWTH_STEPS", 1)
        yield watched(folder, train_command(folder / "run", HALF_KEYS))


@pytest.mark.parametrize("moment", ["after-1", "after-3"])
def test_the_loss_scale_goes_on_where_it_was(half, train_command, tmp_path, moment):
    scale = "loss_scale/.ATTRIBUTES/VARIABLE_VALUE"
    steps = [half / "run" / "checkpoints" / f"step-{k:09d}" for k in (1, 2, 3)]
    assert len({float(arrays_in_checkpoint(path)[scale]) for path in steps}) > 1
    run = tmp_path / "run"
    shutil.copytree(half / moment, run)
    assert flexseg.main(train_command(run, HALF_KEYS)) == 0
    assert_same_end(half / "run", run, steps=4)


KILLED = """
import os, signal, sys
import flexseg
from train import checkpoints
save, left = checkpoints.save, 3
def deadly(*args, **kwargs):
    global left
    save(*args, **kwargs)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save = deadly
sys.exit(flexseg.main(sys.argv[1:]))
"""


def test_a_killed_process_leaves_what_the_same_command_goes_on_with(
    unbroken, train_command, tmp_path, command
):
    """kill -9, in the middle of the second epoch of a process of its own."""
    arguments = train_command(tmp_path / "run", KEYS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    done = command(*arguments)
    assert done.status == 0
    assert "Going on after step 3 of 8." in done.err
    assert_same_end(unbroken / "run", tmp_path / "run")


@pytest.fixture
def harmless_signals():
    """Should the product not catch a signal, the test fails and the test runner lives."""

    def fail(number, _):
        raise AssertionError(f"signal {number} was not caught")

    before = {number: signal.signal(number, fail) for number in (signal.SIGTERM, signal.SIGINT)}
    yield fail
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_ends_with_130_and_a_word(
    unbroken, train_command, tmp_path, command, monkeypatch, harmless_signals, number
):
    """In the middle of an epoch, where no checkpoint was due."""
    keys = {**KEYS, "train.checkpoint_steps": 0}
    arguments = train_command(tmp_path / "run", keys)
    teach = loop.Steps.train

    def train(self, iterator, first_step, count):
        if first_step == 2:
            os.kill(os.getpid(), number)
        return teach(self, iterator, first_step, count)

    monkeypatch.setattr(loop.Steps, "train", train)
    stopped = command(*arguments)
    assert stopped.status == 130
    assert "interrupted. Run the same command again to go on." in stopped.err
    assert "Stopped after step 3 of 8, which is kept." in stopped.err
    said = stopped.err.partition("Go on with:\n")[2].splitlines()[0]
    assert sorted(shlex.split(said)) == sorted(["flexseg", *arguments])
    assert signal.getsignal(number) is harmless_signals, "the handler is put back"
    last = checkpoints.latest(str(tmp_path / "run" / "checkpoints"))
    assert last.endswith("step-000000003")
    monkeypatch.undo()
    if number == signal.SIGTERM:
        assert command(*arguments).status == 0
        assert_same_end(unbroken / "run", tmp_path / "run")


def test_a_second_signal_stops_at_once(harmless_signals):
    stop = StopSignal()
    with stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is harmless_signals


def variables_of(value):
    return tf.train.Checkpoint(v=tf.Variable(value))


def test_a_checkpoint_that_was_not_finished_is_no_checkpoint(tmp_path, monkeypatch):
    """A crash while it is written leaves the one before it, and the next one is not hindered."""
    checkpoints.save(str(tmp_path), 1, variables_of(1.0), {"step": 1}, keep=2)

    def crash(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(json, "dump", crash)
        with pytest.raises(OSError, match="no space"):
            checkpoints.save(str(tmp_path), 2, variables_of(2.0), {"step": 2}, keep=2)
    assert checkpoints.latest(str(tmp_path)) == str(tmp_path / "step-000000001")
    checkpoints.save(str(tmp_path), 2, variables_of(2.0), {"step": 2}, keep=2)
    restored = variables_of(0.0)
    assert checkpoints.restore(checkpoints.latest(str(tmp_path)), restored) == {"step": 2}
    assert restored.v == 2.0
    assert sorted(os.listdir(tmp_path)) == ["step-000000001", "step-000000002"]


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_checkpoints_are_kept(tmp_path, keep):
    for step in range(8, 13):  # 8, 9, 10: by number, not by letters
        checkpoints.save(str(tmp_path), step, variables_of(1.0), {}, keep)
    steps = [int(name.removeprefix("step-")) for name in sorted(os.listdir(tmp_path))]
    assert steps == list(range(13 - keep, 13))


def test_there_is_no_latest_checkpoint_where_there_is_none(tmp_path):
    assert checkpoints.latest(str(tmp_path / "nowhere")) is None
    assert checkpoints.latest(str(tmp_path)) is None


def test_a_checkpoint_that_lacks_a_variable_is_refused(tmp_path):
    checkpoints.save(str(tmp_path), 1, variables_of(1.0), {}, keep=1)
    more = tf.train.Checkpoint(v=tf.Variable(0.0), w=tf.Variable(0.0))
    with pytest.raises(FlexsegError, match=r"w \[\] is missing"):
        checkpoints.restore(checkpoints.latest(str(tmp_path)), more)


def test_a_checkpoint_of_a_newer_version_is_not_guessed_at(planned):
    run = planned()
    state = {"step": 3, "weather": "fine", "mood": "good"}
    path = run.path(runs.CHECKPOINTS)
    checkpoints.save(path, 3, variables_of(1.0), state, keep=1)
    workers = Workers(tf.distribute.OneDeviceStrategy("CPU:0"), None)
    with pytest.raises(FlexsegError) as error:
        resume.restore(run, variables_of(0.0), workers)
    assert str(error.value) == (
        f"The checkpoint {path}/step-000000003 says mood, weather, which this version of flexseg "
        "does not know. Go on with the version that began the run."
    )


def test_what_there_is_to_go_on_from_is_told(planned, monkeypatch):
    run = planned()
    assert resume.kept(run) == "There is no checkpoint yet."
    for step in (8, 12):
        checkpoints.save(run.path(runs.CHECKPOINTS), step, variables_of(1.0), {}, keep=9)
    os.makedirs(run.path(runs.CHECKPOINTS, "step-000000013.tmp"))
    assert resume.kept(run) == "The last checkpoint is that of step 12."

    def gone(_):
        raise FlexsegError("s3://b cannot be reached.")

    monkeypatch.setattr(storage, "names", gone)
    told = "Which checkpoint is the last cannot be seen: s3://b cannot be reached."
    assert resume.kept(run) == told


def test_a_file_of_the_first_worker_is_waited_for(planned, monkeypatch):
    naps = []
    monkeypatch.setattr(resume.time, "sleep", naps.append)
    resume.see(planned(), lambda: len(naps) == 3, "the run")
    assert naps == [1, 1, 1]
    with pytest.raises(FlexsegError, match=r"does not see the run, .* --run=.* must be the same"):
        resume.see(planned(), lambda: False, "the run")
