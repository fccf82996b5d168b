"""`flexseg plan`: a file that a person reads and `flexseg train` takes."""

import itertools
import os

import pytest
import yaml

from train import experiment as experiments


@pytest.fixture
def planned(command, dataset, tmp_path):
    """The command's outcome and the file that it wrote."""
    path = tmp_path / "experiment.yaml"
    return command("plan", dataset, f"--output={path}"), path


def test_the_file_is_an_experiment_whose_every_key_has_a_reason(planned):
    outcome, path = planned
    assert outcome.status == 0, outcome.err
    assert f"--experiment={path}" in outcome.out
    assert experiments.load(str(path)).model.network.levels == 3, "for records of 32x32"
    lines = path.read_text().splitlines()
    assert max(map(len, lines)) <= 100
    keys = [line for line in lines if line.startswith("  ") and ":" in line and "#" not in line]
    assert len(keys) == sum(len(s) for s in yaml.safe_load(path.read_text()).values())
    alone = [
        line.split(":")[0].strip()
        for before, line in itertools.pairwise(lines)
        if line in keys and not before.startswith("  # ")
    ]
    assert alone == ["scale", "brightness", "contrast"], "of which rotation's reason speaks too"
    first = next(line for line in lines if line and not line.startswith("#"))
    assert first == "model:", "above it stand comments alone"


def test_what_is_printed_is_what_would_be_written(planned, command, dataset):
    _, path = planned
    assert command("plan", dataset).out == path.read_text()
    assert command("plan", dataset).out == path.read_text()


def test_it_is_trained_as_it_is(planned, command, dataset, tmp_path):
    _, path = planned
    outcome = command(
        "train",
        f"--experiment={path}",
        f"--data={dataset}",
        f"--run={tmp_path / 'run'}",
        "--config.train.epochs=1",
        "--config.train.steps_per_epoch=2",
        "--config.train.previews=0",
        "--config.model.base_filters=2",
    )
    assert outcome.status == 0, outcome.err
    assert "val_dice" in outcome.err


def test_memory_is_a_number_of_gigabytes(command, dataset):
    text = " ".join(command("plan", dataset, "--memory_gb=3").out.replace("#", "").split())
    assert "3 GB for training" in text
    assert "of the 3.0 GB allowed" in text
    outcome = command("plan", dataset, "--memory_gb=0.5")
    assert outcome.status == 1
    assert "A memory of 0.5 GB is too small" in outcome.err
    assert command("plan", dataset, "--memory_gb=-1").status == 2


def test_a_file_that_is_there_is_not_touched(command, dataset, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    outcome = command("plan", dataset, f"--output={path}")
    assert outcome.status == 1
    assert "exists; nothing was touched" in outcome.err
    assert path.read_text() == "mine"


def test_what_cannot_be_written_leaves_nothing(command, dataset, tmp_path):
    outcome = command("plan", dataset, f"--output={tmp_path / 'no' / 'such.yaml'}")
    assert outcome.status == 1
    assert "cannot be written: No such file or directory" in outcome.err
    assert os.listdir(tmp_path) == []


def test_what_is_no_dataset_is_said(command, tmp_path):
    outcome = command("plan", tmp_path)
    assert outcome.status == 1
    assert "holds no dataset.json" in outcome.err
