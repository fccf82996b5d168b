"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from train.experiment import OptimizerConfig

_PEAK = 0.45  # where one_cycle is highest: the cycle takes .9 of the run, as Smith advises


def learning_rate(config: OptimizerConfig, step: tf.Tensor, total_steps: int) -> tf.Tensor:
    """The learning rate of a step, a float32 scalar.

    With w warm-up steps and T steps in all, the step s has the rate

        learning_rate * f(0) * (s + 1) / (w + 1)     for s < w,
        learning_rate * f((s - w) / (T - w))         after it,

    so that the warm-up leads to where the schedule f begins. For t in [0, 1], with e = final_share
    and b = start_share:

    - constant: 1.
    - cosine: e + (1 - e) (1 + cos(pi t)) / 2 (Loshchilov & Hutter 2017).
    - polynomial: e + (1 - e) (1 - t)^power.
    - step: step_factor^n, n being how many milestones are at or before t.
    - one_cycle: straight lines from b to 1 at t = .45, back to b at t = .9, and to e at the end
      (L. N. Smith 2018, arXiv:1803.09820).
    - exponential: b^(1 - t).

    Args:
      config: the schedule and its keys.
      step: scalar, from 0.
      total_steps: T, the length of the whole run, in steps.
    """
    shape = _SCHEDULES[config.schedule]
    step = tf.cast(step, tf.float32)
    warmup = min(config.warmup_steps, max(0, total_steps - 1))
    done = tf.clip_by_value((step - warmup) / max(1, total_steps - warmup), 0.0, 1.0)
    rising = shape(config, tf.constant(0.0)) * (step + 1.0) / (warmup + 1.0)
    return config.learning_rate * tf.where(step < warmup, rising, shape(config, done))


def _constant(config: OptimizerConfig, done: tf.Tensor) -> tf.Tensor:
    return tf.ones_like(done)


def _cosine(config: OptimizerConfig, done: tf.Tensor) -> tf.Tensor:
    last = config.final_share
    return last + (1.0 - last) * 0.5 * (1.0 + tf.cos(math.pi * done))


def _polynomial(config: OptimizerConfig, done: tf.Tensor) -> tf.Tensor:
    last = config.final_share
    return last + (1.0 - last) * (1.0 - done) ** config.power


def _step(config: OptimizerConfig, done: tf.Tensor) -> tf.Tensor:
    passed = tf.reduce_sum(tf.cast(done >= tf.constant(config.milestones, tf.float32), tf.float32))
    return tf.pow(config.step_factor, passed)


def _one_cycle(config: OptimizerConfig, done: tf.Tensor) -> tf.Tensor:
    first, last = config.start_share, config.final_share
    rising = first + (1.0 - first) * done / _PEAK
    falling = first + (1.0 - first) * (2.0 - done / _PEAK)
    ending = first + (last - first) * (done - 2.0 * _PEAK) / (1.0 - 2.0 * _PEAK)
    return tf.where(done < _PEAK, rising, tf.where(done < 2.0 * _PEAK, falling, ending))


def _exponential(config: OptimizerConfig, done: tf.Tensor) -> tf.Tensor:
    return tf.pow(config.start_share, 1.0 - done)


_SCHEDULES: dict[str, Callable[[OptimizerConfig, tf.Tensor], tf.Tensor]] = {
    "constant": _constant,
    "cosine": _cosine,
    "polynomial": _polynomial,
    "step": _step,
    "one_cycle": _one_cycle,
    "exponential": _exponential,
}
