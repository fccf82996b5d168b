"""A run whose loss is no number or diverges stops, says all that helps, and keeps nothing bad."""

import json
import os

import numpy as np
import pytest

from pipelines import batches
from pipelines import manifest as manifests
from train import divergence, loop, runs, setup

KEYS = {
    "train.epochs": 2,
    "train.steps_per_epoch": 5,
    "train.steps_per_call": 2,
    "train.checkpoint_steps": 2,
    "train.keep_checkpoints": 9,
    "data.batch_size": 2,
}


@pytest.fixture
def losses(monkeypatch):
    """`losses[step] = value` is what the steps of a run then seem to return."""
    given = {}
    taught = loop.Steps.train

    def train(self, iterator, first_step, count):
        result = taught(self, iterator, first_step, count)
        for step in range(first_step, first_step + count):
            result.losses[step - first_step] = given.get(step, result.losses[step - first_step])
        return result

    monkeypatch.setattr(loop.Steps, "train", train)
    return given


def kept(folder):
    inside = folder / "checkpoints"
    return sorted(os.listdir(inside)) if inside.exists() else []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_no_number_names_step_records_rate_and_checkpoint(
    losses, dataset, train_command, tmp_path, command, accumulate
):
    losses[3] = np.nan
    keys = {**KEYS, "optimizer.accumulate_steps": accumulate, "optimizer.learning_rate": 0.00321}
    keys["optimizer.schedule"] = "constant"
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 1
    assert "The loss of step 3 is nan." in done.err
    assert "0.00321" in done.err
    run = runs.load(str(tmp_path / "run"))
    source = setup.train_input(run)
    names = [
        name
        for batch in range(3 * accumulate, 4 * accumulate)
        for name in batches.record_ids(manifests.load(str(dataset)), source, batch)
    ]
    assert len(names) == 2 * accumulate
    assert f"the records {', '.join(names)}." in done.err
    good = tmp_path / "run" / "checkpoints" / "step-000000002"
    assert f"The last good checkpoint is {good}." in done.err
    for key in ("learning_rate", "clip_threshold", "warmup_steps"):
        assert f"optimizer.{key}" in done.err
    assert kept(tmp_path / "run") == ["step-000000002"]


def test_without_a_checkpoint_the_message_says_so(losses, train_command, tmp_path, command):
    losses[1] = np.inf
    done = command(*train_command(tmp_path / "run", KEYS))
    assert done.status == 1
    assert "The loss of step 1 is inf." in done.err
    assert "There is no checkpoint from before it." in done.err
    assert kept(tmp_path / "run") == []


@pytest.mark.parametrize("poisoned", [2, 4, 5])
def test_weights_that_are_no_numbers_are_never_kept(
    train_command, tmp_path, command, monkeypatch, poisoned
):
    """Though every loss is one: after a step in the middle of an epoch, and after its last."""
    taught = loop.Steps.train

    def train(self, iterator, first_step, count):
        result = taught(self, iterator, first_step, count)
        if first_step + count == poisoned:
            weight = self.model.trainable_variables[0]
            weight.assign(np.full(weight.shape, np.nan, np.float32))
        return result

    monkeypatch.setattr(loop.Steps, "train", train)
    done = command(*train_command(tmp_path / "run", KEYS))
    assert done.status == 1
    assert f"After step {poisoned - 1} there are weights that are no numbers" in done.err
    assert "It saw the records " in done.err
    steps = [f"step-{n:09d}" for n in (2, 4) if n < poisoned]
    assert kept(tmp_path / "run") == steps
    assert not (tmp_path / "run" / runs.BEST_WEIGHTS).exists()


@pytest.fixture
def impatient(monkeypatch):
    """Divergence after two steps above ten times the first two."""
    monkeypatch.setattr(divergence, "_WINDOW", 2)
    monkeypatch.setattr(divergence, "_BLOWN_UP_STEPS", 2)


def test_a_loss_that_diverges_stops_the_run_and_names_the_checkpoint_before_it(
    losses, impatient, train_command, tmp_path, command
):
    """Smoothed it is above from step 4 on; it was sound when step 4 was begun."""
    losses.update({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 50.0, 5: 50.0, 6: 50.0})
    done = command(*train_command(tmp_path / "run", KEYS))
    assert done.status == 1
    assert "The loss diverges: from 1 at first it fell to 1" in done.err
    assert "since step 4" in done.err
    assert "stopped at step 5" in done.err
    good = tmp_path / "run" / "checkpoints" / "step-000000004"
    assert f"The last good checkpoint is {good}." in done.err
    assert "train.stop_on_divergence=false" in done.err


def test_it_goes_on_where_it_is_told_to(losses, impatient, train_command, tmp_path, command):
    losses.update({step: 50.0 if step > 3 else 1.0 for step in range(10)})
    keys = {**KEYS, "train.stop_on_divergence": "false"}
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 0, done.err
    assert kept(tmp_path / "run")[-1] == "step-000000010"


def test_the_trend_is_kept_with_every_checkpoint(losses, train_command, tmp_path, command):
    losses.update({step: 1.0 + step for step in range(10)})
    assert command(*train_command(tmp_path / "run", KEYS)).status == 0
    for name in kept(tmp_path / "run"):
        state = json.loads((tmp_path / "run" / "checkpoints" / name / "state.json").read_text())
        steps = int(name.removeprefix("step-"))
        assert state["trend"]["steps"] == steps
        assert state["trend"]["first"] == pytest.approx((steps + 1) / 2)
