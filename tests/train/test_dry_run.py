"""`flexseg train --dry_run` tells what a training would be, and leaves the disk as it is."""

import contextlib
import dataclasses
import io
import re

import pytest

import flexseg
from models import describe
from pipelines import manifest as manifests
from train import dry_run, runs
from train.dry_run import Timing

from .conftest import experiment_of


def listing(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def told(train_command, tmp_path_factory):
    """The rows of a dry run's table, and what it left."""
    folder = tmp_path_factory.mktemp("dry")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert flexseg.main([*train_command(folder / "run"), "--dry_run"]) == 0
    rows: dict[str, str] = {}
    name = ""
    for line in out.getvalue().splitlines():
        name = line[:13].strip() or name
        rows[name] = (rows.get(name, "") + "\n" + line[15:]).strip()
    return rows, list(folder.iterdir())


def test_nothing_is_written(told):
    assert told[1] == []


def test_the_shapes_are_those_of_data_and_network(told):
    rows, _ = told
    assert "images [2, 32, 32, 3] uint8" in rows["input"]
    assert "masks [2, 32, 32] uint8" in rows["input"]
    assert rows["output"] == "logits [2, 32, 32, 3] float32"
    assert "background, class_1, class_2" in rows["classes"]
    assert "train 6 examples, valid 3 examples" in rows["data"]
    assert "6 records of 32x32" in rows["reads train"]


def test_the_sizes_are_the_networks(told):
    rows, _ = told
    model = experiment_of({}).model
    network = describe.abstract("flex_unet", config=model.network, num_classes=3)
    described = describe.describe(network, (32, 32))
    assert rows["parameters"].startswith(dry_run._short(described.parameters))
    assert rows["multiply-adds"].startswith(dry_run._short(described.multiply_adds))


def test_steps_and_checkpoints_are_what_a_training_makes(told, trained):
    rows, _ = told
    assert rows["steps"] == "3 an epoch, 6 in 2 epochs"  # as tests/train/test_train.py has it
    assert re.search(r"run/checkpoints, about .* each, 2 kept", rows["checkpoints"])
    assert rows["validation"] == "2 batches after each epoch"
    assert (trained / "checkpoints" / "step-000000006").is_dir()


def test_times_are_told(told):
    rows, _ = told
    for name in ("step", "input alone", "time", "first loss", "memory"):
        assert re.search(r"\d", rows[name]), name
    assert "training" in rows["time"]


def test_a_run_that_is_there_is_looked_at_and_not_changed(command, train_command, trained):
    before = listing(trained)
    keys = {"train.previews": 2, "model.dropout_rate": 0.2, "train.checkpoint_steps": 2}
    outcome = command(*train_command(trained, keys), "--dry_run")
    assert outcome.status == 0, outcome.err
    assert "begun already; nothing is written now" in outcome.out
    assert listing(trained) == before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model.levels": 9}, "data.crop_size"),
        ({"train.loss": "nothing"}, "is not a loss"),
        ({"data.fold": 1}, "has no folds"),
    ],
)
def test_what_a_start_refuses_is_refused(command, train_command, tmp_path, keys, message):
    outcome = command(*train_command(tmp_path / "run", keys), "--dry_run")
    assert outcome.status == 1
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_and_a_run_that_differs_are_refused(
    command, train_command, trained, tmp_path
):
    (tmp_path / "mine.txt").write_text("mine")
    outcome = command(*train_command(tmp_path), "--dry_run")
    assert outcome.status == 1
    assert "holds something else (mine.txt)" in outcome.err
    before = listing(trained)
    outcome = command(*train_command(trained, {"model.base_filters": 4}), "--dry_run")
    assert outcome.status == 1
    assert "holds a run that differs" in outcome.err
    assert listing(trained) == before


def test_a_claim_on_trial_makes_no_folder(planned, tmp_path):
    runs.claim(planned(folder=tmp_path / "new"), dry=True)
    assert list(tmp_path.iterdir()) == []


def test_the_slower_of_input_and_step_sets_the_pace():
    assert Timing(9.0, 0.5, 100.0, 1.0).seconds_per_step(8) == 0.5
    assert Timing(9.0, 0.5, 4.0, 1.0).seconds_per_step(8) == 2.0


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (17, "17"), (999, "999"), (1234, "1.23 k"), (7.78e6, "7.78 M"), (1.2e13, "12 T")],
)
def test_large_numbers_are_short(number, text):
    assert dry_run._short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (89, "89 s"), (120, "2 min"), (5400, "1.5 h")]
)
def test_durations_are_in_the_unit_that_people_use(seconds, text):
    assert dry_run._duration(seconds) == text


def test_validation_counts_the_tiles_that_records_are_cut_into(planned):
    split = manifests.load(planned().data).split("valid")
    assert dry_run._valid_batches(split, (32, 32), 2) == 2
    assert dry_run._valid_batches(split, (16, 16), 2) == 6
    larger = dataclasses.replace(split, examples=5, pixels=5 * 32 * 32)
    assert dry_run._valid_batches(larger, (64, 64), 2) == 3, "a small record is a tile all the same"
