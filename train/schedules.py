"""The learning rate as a function of the step."""

from __future__ import annotations

import math

import tensorflow as tf

from train.experiment import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: tf.Tensor, total_steps: int) -> tf.Tensor:
    """The learning rate of a step, a float32 scalar.

    Linear warm-up from learning_rate / (warmup + 1) to learning_rate; then constant, or along half
    a cosine (Loshchilov & Hutter 2017) that reaches zero where the run ends.

    Args:
      config: schedule, learning_rate and warmup_steps.
      step: scalar, from 0.
      total_steps: length of the whole run, in steps.
    """
    step = tf.cast(step, tf.float32)
    warmup = min(config.warmup_steps, max(0, total_steps - 1))
    rising = (step + 1.0) / (warmup + 1.0)
    after = tf.constant(1.0)
    if config.schedule == "cosine":
        done = tf.clip_by_value((step - warmup) / max(1, total_steps - warmup), 0.0, 1.0)
        after = 0.5 * (1.0 + tf.cos(math.pi * done))
    return config.learning_rate * tf.where(step < warmup, rising, after)
