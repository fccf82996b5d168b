"""The learning rate of every step is its formula's."""

import math

import numpy as np
import pytest
import tensorflow as tf

from train import schedules
from train.experiment import OptimizerConfig

HIGHEST = 0.3
SCHEDULES = ("constant", "cosine", "polynomial", "step", "one_cycle", "exponential")
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def config_of(schedule, **keys):
    given = {"final_share": 0.1, "start_share": 0.02, "power": 1.7, "milestones": (0.3, 0.75, 0.9)}
    return OptimizerConfig(
        schedule=schedule, learning_rate=HIGHEST, step_factor=0.2, **{**given, **keys}
    )


def share(config, done):
    """Of the highest rate, where `done` of the run after warm-up is over, 0 to 1."""
    first, last = config.start_share, config.final_share
    return {
        "constant": lambda: 1.0,
        "cosine": lambda: last + (1 - last) * math.cos(math.pi * done / 2) ** 2,
        "polynomial": lambda: np.interp((1 - done) ** config.power, [0, 1], [last, 1]),
        "step": lambda: config.step_factor ** sum(done >= m for m in config.milestones),
        "one_cycle": lambda: np.interp(done, [0, 0.45, 0.9, 1], [first, 1, first, last]),
        "exponential": lambda: 10 ** np.interp(done, [0, 1], [math.log10(first), 0]),
    }[config.schedule]()


def expected(config, step, total):
    warmup = min(config.warmup_steps, total - 1)
    if step < warmup:
        return HIGHEST * share(config, 0.0) * (step + 1) / (warmup + 1)
    return HIGHEST * share(config, min(1.0, (step - warmup) / (total - warmup)))


def rates(config, total, steps=None):
    steps = range(total) if steps is None else steps
    rate = tf.function(lambda step: schedules.learning_rate(config, step, total))
    return [float(rate(tf.constant(s, tf.int64))) for s in steps]


@every_schedule
@pytest.mark.parametrize("warmup", [0, 1, 19, 20, 500])
@pytest.mark.parametrize("total", [1, 2, 24])
def test_every_step_has_the_rate_of_the_formula(schedule, warmup, total):
    config = config_of(schedule, warmup_steps=warmup)
    wanted = [expected(config, step, total) for step in range(total)]
    assert rates(config, total) == pytest.approx(wanted, rel=1e-4)


@every_schedule
@pytest.mark.parametrize("warmup", [0, 5, 500])
def test_the_rate_is_positive_at_every_step_and_never_above_the_highest(schedule, warmup):
    found = rates(config_of(schedule, warmup_steps=warmup, final_share=0.0), 40)
    assert min(found) > 0
    assert max(found) <= HIGHEST * (1 + 1e-6)


@every_schedule
def test_the_warm_up_rises_in_equal_steps_to_where_the_schedule_begins(schedule):
    config = config_of(schedule, warmup_steps=4)
    found = np.array(rates(config, 1004)) / (HIGHEST * share(config, 0.0))
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5] == pytest.approx(1.0, rel=0.11), "nor is there a leap after it"


@every_schedule
def test_it_ends_where_it_should_when_the_run_does_and_stays_there(schedule):
    config = config_of(schedule, warmup_steps=3)
    last = {"constant": 1.0, "step": 0.2**3, "exponential": 1.0}.get(schedule, 0.1)
    assert rates(config, 40, [40, 41, 1000]) == pytest.approx([HIGHEST * last] * 3, rel=1e-5)


@every_schedule
def test_no_other_schedules_rates(schedule):
    others = [rates(config_of(s, warmup_steps=0), 12) for s in SCHEDULES if s != schedule]
    mine = rates(config_of(schedule, warmup_steps=0), 12)
    assert all(np.abs(np.subtract(mine, other)).max() > 1e-3 for other in others)


def test_the_cosine_and_the_polynomial_end_at_zero_by_default():
    for schedule in ("cosine", "polynomial", "one_cycle"):
        config = OptimizerConfig(schedule=schedule, warmup_steps=3, learning_rate=1.0)
        assert rates(config, 40, [40]) == pytest.approx([0.0], abs=1e-6)


def test_milestones_may_be_none_and_need_no_order():
    plain = rates(config_of("step", warmup_steps=0), 20)
    turned = rates(config_of("step", warmup_steps=0, milestones=(0.9, 0.3, 0.75)), 20)
    assert turned == plain
    none = rates(config_of("step", warmup_steps=0, milestones=()), 20)
    assert none == pytest.approx([HIGHEST] * 20)


def test_an_exponential_over_many_powers_of_ten_rises_by_equal_factors():
    found = rates(config_of("exponential", warmup_steps=0, start_share=1e-8), 50)
    assert np.diff(np.log(found)) == pytest.approx([math.log(1e8) / 50] * 49, rel=1e-2)


def test_a_warm_up_longer_than_the_run_is_cut_to_it():
    config = OptimizerConfig(schedule="constant", warmup_steps=500, learning_rate=1.0)
    assert rates(config, 4) == pytest.approx([0.25, 0.5, 0.75, 1.0])
