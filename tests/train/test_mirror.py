"""A run directory on S3: what lies there is whole at every moment, and can be gone on with."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest

from flexseg_errors import FlexsegError
from pipelines import storage
from train import evaluate, loop, mirror, runs


@pytest.fixture
def remote(bucket, request):
    """A folder in the bucket that is this test's own."""
    return f"{bucket}/{request.node.name}"


class BrokenError(Exception):
    """The end of a process, as far as the store sees it."""


@pytest.fixture
def breaking_after(monkeypatch):
    """A function: so many files may still be sent or removed; returns how many are left to be."""
    left = [None]

    def counted(change):
        def changing(*arguments, **how):
            if left[0] == 0:
                raise BrokenError
            left[0] = left[0] and left[0] - 1
            change(*arguments, **how)

        return changing

    monkeypatch.setattr(storage, "upload", counted(storage.upload))
    monkeypatch.setattr(storage, "remove", counted(storage.remove))

    def let(changes):
        before, left[0] = left[0], changes
        return before

    return let


def write(folder, name, text):
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def work(folder, steps):
    """What a training leaves after so many steps, the newest two checkpoints kept."""
    write(folder, "experiment.yaml", "-")
    write(folder, "best/model.weights.h5", str(steps))
    write(folder, "best/best.json", str(steps))
    for old in Path(folder, "checkpoints").glob("*"):
        if int(old.name[5:]) < steps - 1:
            shutil.rmtree(old)
    for name in ("variables.index", "variables.data-00000-of-00001", "state.json"):
        write(folder, f"checkpoints/step-{steps:09d}/{name}", str(steps))


def texts(folder):
    return {f.name: storage.read_bytes(f.path).decode() for f in storage.walk(folder)}


def assert_whole(remote):
    """Every checkpoint that has its state is whole, and what it counts on is as new as it is."""
    found = texts(remote)
    states = [int(text) for name, text in found.items() if name.endswith("state.json")]
    for step in states:
        for name in ("variables.index", "variables.data-00000-of-00001"):
            assert found[f"checkpoints/step-{step:09d}/{name}"] == str(step)
    if "best/best.json" in found:
        assert int(found["best/model.weights.h5"]) >= int(found["best/best.json"])
    if states:
        assert int(found["best/best.json"]) >= max(states)
    return max(states, default=0)


def test_wherever_sending_breaks_off_what_lies_there_is_whole_and_is_gone_on_with(
    breaking_after, tmp_path
):
    """A folder stands for the store: only the order counts here."""
    seen, left = set(), 0
    for changes in itertools.count():
        remote, here, again = (tmp_path / f"{changes}-{n}" for n in ("remote", "here", "again"))
        first = mirror.Mirror(str(remote), str(here))
        breaking_after(changes)
        with contextlib.suppress(BrokenError):
            for steps in (1, 2, 3, 4):
                work(here, steps)
                first.send()
        left = breaking_after(None)
        newest = assert_whole(str(remote))
        seen.add(newest)

        second = mirror.Mirror(str(remote), str(again))
        second.fetch()
        assert assert_whole(str(again)) == newest
        for steps in range(newest + 1, 6):
            work(again, steps)
        second.send()
        assert texts(str(remote)) == texts(str(again))
        assert sorted(os.listdir(again / "checkpoints")) == ["step-000000004", "step-000000005"]
        if left:  # nothing was left to break
            break
    assert seen == {0, 1, 2, 3, 4}


def test_only_what_changed_is_sent_again(remote, breaking_after, tmp_path):
    work(tmp_path, 1)
    copy = mirror.Mirror(remote, str(tmp_path))
    copy.send()
    breaking_after(0)
    copy.send()
    write(tmp_path, "best/best.json", "other")
    breaking_after(1)
    copy.send()
    assert texts(remote) == texts(str(tmp_path))


def test_logs_and_previews_are_fetched_as_they_are_gone_on_with(remote, tmp_path):
    """The log is cut off at the checkpoint, and film strips are made of all previews."""
    for name in ("logs/events.1", "previews/epoch_0000.png", "history.json"):
        storage.write_whole(storage.join(remote, *name.split("/")), b"12")
    copy = mirror.Mirror(remote, str(tmp_path))
    copy.fetch()
    assert set(texts(str(tmp_path))) == {"logs/events.1", "previews/epoch_0000.png", "history.json"}
    write(tmp_path, "logs/events.1", "1")
    write(tmp_path, "logs/events.2", "2")
    copy.send()
    found = texts(remote)
    assert set(found) == {*texts(str(tmp_path))}
    assert found == texts(str(tmp_path))


def test_a_checkpoint_without_its_state_is_not_fetched_and_goes_away(remote, tmp_path):
    work(tmp_path / "here", 1)
    mirror.Mirror(remote, str(tmp_path / "here")).send()
    half = "checkpoints/step-000000002/variables.index"
    storage.write_whole(storage.join(remote, half), b"half")
    copy = mirror.Mirror(remote, str(tmp_path / "there"))
    copy.fetch()
    assert texts(str(tmp_path / "there")) == texts(str(tmp_path / "here"))
    assert half in texts(remote)
    copy.send()
    assert texts(remote) == texts(str(tmp_path / "here"))


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The folder in which working copies are made."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def weights_in(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return found


def test_a_remote_run_that_broke_off_ends_as_the_local_one(
    trained, train_command, remote, breaking_after, copies, command
):
    """In the middle of its second checkpoint; the same files, to the bit."""
    keys = {"train.previews": 2, "model.dropout_rate": 0.2, "train.checkpoint_steps": 2}
    send = mirror.Mirror.send

    def breaking(copy):
        if storage.exists(storage.join(remote, "checkpoints")):
            breaking_after(15)
        send(copy)

    with mock.patch.object(mirror.Mirror, "send", breaking):
        assert command(*train_command(remote, keys)).status == 1
    half = storage.join(remote, "checkpoints", "step-000000003")
    assert storage.is_folder(half)
    assert not storage.is_file(storage.join(half, "state.json"))
    breaking_after(None)
    done = command(*train_command(remote, keys))
    assert done.status == 0, done.err
    assert "Going on after step 2 of 6." in done.err
    assert f"{remote}: finished after step 6" in done.err
    local = {str(p.relative_to(trained)): p for p in trained.rglob("*") if p.is_file()}
    compared = {n for n in local if n.partition("/")[0] not in ("logs", "evaluation")}
    there = {f.name: f.path for f in storage.walk(remote)}
    assert {n for n in there if not n.startswith("logs/")} == compared
    for name in compared - {runs.BEST_WEIGHTS}:
        if "variables" not in name and "checksums" not in name:
            assert storage.read_bytes(there[name]) == local[name].read_bytes(), name
    with storage.local_copy(there[runs.BEST_WEIGHTS]) as copy:
        expected, found = weights_in(trained / runs.BEST_WEIGHTS), weights_in(copy)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
    assert list(copies.glob("flexseg*")) == []


def test_a_loss_that_is_no_number_names_the_checkpoint_where_it_lies(
    train_command, remote, monkeypatch, command
):
    taught = loop.Steps.train

    def train(self, iterator, first_step, count):
        result = taught(self, iterator, first_step, count)
        if first_step >= 3:  # in the second epoch
            result.losses[:] = np.nan
        return result

    monkeypatch.setattr(loop.Steps, "train", train)
    done = command(*train_command(remote))
    assert done.status == 1
    assert f"The last good checkpoint is {remote}/checkpoints/step-000000003." in done.err


@pytest.fixture
def kept(untrained, remote):
    """A run with weights, and the same run on S3."""
    local = untrained()
    for file in storage.walk(local.folder):
        storage.upload(file.path, storage.join(remote, file.name), keep=True)
    return local, runs.load(remote)


def test_a_remote_run_is_the_run_that_was_put_there(kept, remote):
    local, there = kept
    assert there == dataclasses.replace(local, folder=remote)
    for one, other in zip(local.load_model().weights, there.load_model().weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_remote_run_is_scored_like_a_local_one(kept, remote, copies, command):
    local, _ = kept
    scores = [command("evaluate", f"--run={folder}") for folder in (local.folder, remote)]
    assert scores[0].status == 0, scores[0].err
    assert scores[0][:2] == scores[1][:2]
    for name in ("test.json", "test.csv"):
        there = storage.read_bytes(storage.join(remote, "evaluation", name))
        assert there == Path(local.path("evaluation", name)).read_bytes()
    assert list(copies.glob("flexseg*")) == []


def test_a_remote_folder_that_holds_something_else_is_not_touched(planned, remote):
    storage.write_whole(storage.join(remote, "thesis.tex"), b"mine")
    with pytest.raises(FlexsegError, match=r"s3://.*thesis\.tex\); nothing was touched"):
        runs.claim(planned(folder=remote))
    assert texts(remote) == {"thesis.tex": "mine"}


def test_a_remote_run_of_another_experiment_is_refused(planned, remote):
    runs.claim(planned(folder=remote))
    runs.claim(planned(folder=remote))
    with pytest.raises(FlexsegError, match=r"s3://.* holds a run that differs \(model\.levels"):
        runs.claim(planned({"model.levels": 3}, folder=remote))
    assert runs.load(remote) == planned(folder=remote)


def test_the_dataset_of_a_run_keeps_its_url(planned, dataset, bucket):
    from pipelines import manifest as manifests

    here = planned()
    manifest = dataclasses.replace(manifests.load(str(dataset)), folder=f"{bucket}/data")
    assert runs.plan(here.folder, here.experiment, manifest).data == f"{bucket}/data"


def test_what_is_no_remote_run_is_told(bucket):
    with pytest.raises(FlexsegError, match="There is no folder s3://bucket/none: it is not a run"):
        runs.load(f"{bucket}/none")
    storage.write_whole(f"{bucket}/some/x", b"1")
    with pytest.raises(FlexsegError, match=r"No experiment\.yaml in s3://bucket/some"):
        runs.load(f"{bucket}/some")


def test_evaluations_are_written_as_they_are_read(kept):
    _, there = kept
    evaluation = {"split": "test", "classes": [{"id": 0, "name": "a,b"}]}
    path = evaluate.write(there, evaluation)
    assert json.loads(storage.read_bytes(path)) == evaluation
    assert storage.read_bytes(path.replace(".json", ".csv")) == b'id,name\r\n0,"a,b"\r\n'
