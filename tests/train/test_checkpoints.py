"""A checkpoint is whole, or it is left out and the one before it is taken."""

import json
import os
import shutil

import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from train import checkpoints

FILES = ["checksums.json", "state.json", "variables.data-00000-of-00001", "variables.index"]


def variables_of(value, **more):
    return tf.train.Checkpoint(v=tf.Variable(value), **more)


@pytest.fixture
def two(tmp_path):
    """A folder with checkpoints of the steps 3 and 6."""
    for step in (3, 6):
        checkpoints.save(str(tmp_path), step, variables_of([float(step)] * 50), {"s": step}, keep=3)
    return tmp_path


def newest(folder):
    """The step of the newest whole checkpoint, the value in it, and what was said of others."""
    said = []
    path = checkpoints.latest(str(folder), said.append)
    restored = variables_of([0.0] * 50)
    state = checkpoints.restore(path, restored)
    assert set(restored.v.numpy()) == {float(state["s"])}
    return checkpoints.step_of(path), said


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def corrupt(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def test_a_checkpoint_has_these_files_and_no_other(two):
    assert sorted(os.listdir(two)) == ["step-000000003", "step-000000006"]
    assert sorted(os.listdir(two / "step-000000006")) == FILES
    assert newest(two) == (6, [])


@pytest.mark.parametrize("harm", [truncate, corrupt, empty, os.remove])
@pytest.mark.parametrize("name", FILES)
def test_a_torn_one_is_left_out_and_it_is_said_why(two, harm, name):
    harm(two / "step-000000006" / name)
    step, said = newest(two)
    assert step == 3
    if harm is os.remove and name == "state.json":
        return  # that is one whose copying was broken off: nothing to be told
    assert len(said) == 1
    assert str(two / "step-000000006") in said[0]
    assert "left out: " in said[0]
    # By name, but where the list of sums itself was changed to another valid one.
    assert name in said[0] or name == "checksums.json"


@pytest.mark.parametrize("name", [n for n in FILES if not n.endswith(".json")])
def test_one_with_a_file_that_cannot_be_opened_is_left_out(two, name):
    path = two / "step-000000006" / name
    path.unlink()
    path.mkdir()
    step, said = newest(two)
    assert step == 3
    assert f"{name} cannot be read" in said[0]


def test_the_next_one_takes_the_place_of_what_was_left_out(two):
    """And is itself never among those that are removed, even if but one is kept."""
    truncate(two / "step-000000006" / "variables.index")
    checkpoints.save(str(two), 4, variables_of([4.0] * 50), {"s": 4}, keep=1)
    assert os.listdir(two) == ["step-000000004"]
    checkpoints.save(str(two), 5, variables_of([5.0] * 50), {"s": 5}, keep=1)
    assert newest(two) == (5, [])


def test_one_of_the_same_step_is_replaced(two):
    truncate(two / "step-000000006" / "variables.index")
    checkpoints.save(str(two), 6, variables_of([7.0] * 50), {"s": 7}, keep=2)
    assert newest(two) == (6, [])
    assert sorted(os.listdir(two)) == ["step-000000003", "step-000000006"]


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_while_one_is_written_leaves_the_one_before(two, monkeypatch, moment):
    """At each rename and each write to the disk; the next one leaves nothing of it."""

    class Killed(BaseException):
        pass

    left = [moment]

    def deadly(function):
        def call(*args, **kwargs):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", deadly(os.replace))
        patch.setattr(os, "fsync", deadly(os.fsync))
        with pytest.raises(Killed):
            checkpoints.save(str(two), 9, variables_of([9.0] * 50), {"s": 9}, keep=3)
    assert newest(two) == (6, [])
    checkpoints.save(str(two), 9, variables_of([9.0] * 50), {"s": 9}, keep=3)
    assert newest(two) == (9, [])
    assert sorted(os.listdir(two)) == ["step-000000003", "step-000000006", "step-000000009"]


def without_checksums(folder):
    """Makes of a checkpoint one as they were before there were checksums."""
    (folder / "checksums.json").unlink()
    state = json.loads((folder / "state.json").read_text())
    del state["format"]
    (folder / "state.json").write_text(json.dumps(state))


def test_one_of_before_there_were_checksums_is_read(two):
    without_checksums(two / "step-000000006")
    assert newest(two) == (6, [])


@pytest.mark.parametrize("name", [n for n in FILES if n != "checksums.json"])
@pytest.mark.parametrize("harm", [truncate, empty])
def test_a_torn_one_of_before_there_were_checksums_is_left_out(two, harm, name):
    without_checksums(two / "step-000000006")
    harm(two / "step-000000006" / name)
    step, said = newest(two)
    assert step == 3
    assert len(said) == 1


def test_none_is_taken_where_none_is_whole(two):
    for folder in two.iterdir():
        truncate(folder / "state.json")
    said = []
    assert checkpoints.latest(str(two), said.append) is None
    assert len(said) == 2


def test_variables_that_do_not_fit_are_named_with_their_shapes(tmp_path):
    saved = variables_of([1.0, 2.0], kept=tf.Variable(1.0))
    checkpoints.save(str(tmp_path), 1, saved, {}, keep=1)
    other = variables_of([1.0, 2.0, 3.0], kept=tf.Variable(0.0), w=[tf.Variable(0.0)])
    with pytest.raises(FlexsegError) as error:
        checkpoints.restore(checkpoints.latest(str(tmp_path)), other)
    assert "v is [2], expected [3]" in str(error.value)
    assert "w/0 [] is missing" in str(error.value)
    assert "kept" not in str(error.value)
    assert other.kept == 0.0, "nothing was touched"


def test_a_copy_that_was_broken_off_is_no_checkpoint(two):
    shutil.copytree(two / "step-000000006", two / "step-000000009")
    (two / "step-000000009" / "state.json").unlink()
    assert newest(two) == (6, [])
