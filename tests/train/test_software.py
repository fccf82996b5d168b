"""What a run says of the software that trained it."""

import dataclasses
import importlib.metadata
import json

import numpy as np
import pytest

from flexseg_errors import FlexsegError
from train import software
from train.software import Used


@pytest.fixture
def known(planned, tmp_path, monkeypatch):
    """A run whose folder is there, and a function that sets what trains it."""
    run = dataclasses.replace(planned(), folder=str(tmp_path))
    before = software.current()

    def trains(**changes):
        now = dataclasses.replace(before, **changes)
        monkeypatch.setattr(software, "current", lambda: now)
        return now

    return run, trains


def test_what_is_there_is_what_imports_say():
    now = software.current()
    assert now.numpy == np.__version__
    assert str(now).startswith("flexseg ")
    assert f"NumPy {np.__version__}" in str(now)
    assert str(now).endswith("on CPU")


def test_a_copy_of_the_source_that_is_not_installed_has_an_unknown_version(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    assert software.version() == importlib.metadata.version("flexseg")
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert software.version() == "unknown"
    assert str(software.current()).startswith("flexseg unknown, TensorFlow ")


def test_of_what_did_not_change_nothing_is_told(known, tmp_path, capsys):
    run, trains = known
    assert software.read(run) == ()
    first = trains()
    software.record(run, 0)
    software.record(run, 7)
    assert software.read(run) == (Used(0, first),)
    assert [path.name for path in tmp_path.iterdir()] == [software.FILE]
    assert capsys.readouterr() == ("", "")


def test_a_change_is_kept_with_its_step_and_told(known, capsys):
    run, trains = known
    first = trains()
    software.record(run, 0)
    second = trains(tensorflow="9.9")
    software.record(run, 40)
    third = trains(tensorflow="9.9", device="NVIDIA H1")
    software.record(run, 60)
    assert software.read(run) == (Used(0, first), Used(40, second), Used(60, third))
    told = " ".join(capsys.readouterr().err.split())
    assert f"trained with {first}; it goes on with {second}: what follows may differ" in told
    assert "TensorFlow 9.9" in told
    assert "on NVIDIA H1" in told


def test_what_left_no_checkpoint_is_forgotten(known, capsys):
    run, trains = known
    trains(tensorflow="1.0")
    software.record(run, 0)
    second = trains(tensorflow="2.0")
    software.record(run, 0)
    assert software.read(run) == (Used(0, second),)
    trains(tensorflow="3.0")
    software.record(run, 40)
    trains(tensorflow="4.0")
    software.record(run, 40)
    trains(tensorflow="2.0")
    software.record(run, 30)  # an older checkpoint was gone on with
    assert software.read(run) == (Used(0, second),)


@pytest.mark.parametrize("text", ["{", "3", "[{}]", '[{"from_step": 1}]', '[{"from_step": "x"}]'])
def test_a_damaged_file_is_told_and_begun_anew(known, tmp_path, text, capsys):
    run, trains = known
    (tmp_path / software.FILE).write_text(text)
    with pytest.raises(FlexsegError, match=r"software\.json of the run .* is damaged"):
        software.read(run)
    now = trains()
    software.record(run, 8)
    assert software.read(run) == (Used(8, now),)
    assert "begun anew" in capsys.readouterr().err
    assert json.loads((tmp_path / software.FILE).read_text())[0]["from_step"] == 8
