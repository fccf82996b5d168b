"""The learning rate of every step is its formula's."""

import math

import pytest
import tensorflow as tf

from train import schedules
from train.experiment import OptimizerConfig


def expected(config, step, total):
    warmup = min(config.warmup_steps, total - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.learning_rate
    share = (step - warmup) / (total - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * share)) / 2


def rates(config, total, steps=None):
    steps = range(total) if steps is None else steps
    return [float(schedules.learning_rate(config, tf.constant(s, tf.int64), total)) for s in steps]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 5, 19, 20, 500])
@pytest.mark.parametrize("total", [1, 2, 20])
def test_every_step_has_the_rate_of_the_formula(schedule, warmup, total):
    config = OptimizerConfig(schedule=schedule, warmup_steps=warmup, learning_rate=0.3)
    wanted = [expected(config, step, total) for step in range(total)]
    assert rates(config, total) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 5, 500])
def test_the_rate_is_positive_at_every_step_and_never_above_the_highest(schedule, warmup):
    config = OptimizerConfig(schedule=schedule, warmup_steps=warmup, learning_rate=0.3)
    found = rates(config, 30)
    assert min(found) > 0
    assert max(found) == pytest.approx(0.3)


def test_the_warm_up_rises_in_equal_steps_to_the_highest():
    config = OptimizerConfig(schedule="cosine", warmup_steps=4, learning_rate=1.0)
    assert rates(config, 100)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_the_cosine_ends_at_zero_when_the_run_does_and_stays_there():
    config = OptimizerConfig(schedule="cosine", warmup_steps=3, learning_rate=1.0)
    assert rates(config, 40, [40, 41, 1000]) == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_warm_up_longer_than_the_run_is_cut_to_it():
    config = OptimizerConfig(schedule="constant", warmup_steps=500, learning_rate=1.0)
    assert rates(config, 4) == pytest.approx([0.25, 0.5, 0.75, 1.0])
