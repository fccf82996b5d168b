"""An exponential moving average of a network's weights, which often does better than they do.

The moving statistics of batch normalization are averaged with the weights, at the same pace: an
averaged network then has statistics of the very steps that its weights are a mean of. Those of the
newest weights would be of a network that it is not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class WeightAverage(tf.Module):
    """a = d a + (1 - d) w after every update, with d = min(decay, (1 + t) / (10 + t)).

    t is the number of updates before, so that the first weights, which are random, are soon
    forgotten (the rule of TensorFlow's ExponentialMovingAverage). It begins with a = w.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy, weights: Sequence[keras.Variable], decay: float
    ):
        """Makes a variable for each weight; call it in the strategy's scope."""
        super().__init__()
        self._strategy = strategy
        self._weights = list(weights)
        self._decay = decay
        self.values = [
            tf.Variable(w.numpy(), trainable=False, name=f"average/{w.path}") for w in weights
        ]

    def update(self, updates_before: tf.Tensor) -> None:
        """Moves the averages; call it above the replicas, after the weights have changed.

        Args:
          updates_before: t, an integer scalar.
        """
        t = tf.cast(updates_before, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + t) / (10.0 + t))
        for average, weight in zip(self.values, self._weights, strict=True):
            # Every device moves its own copy: they are equal, and nothing has to be sent.
            self._strategy.extended.update(average, _move, args=(weight.value, share), group=False)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages stand in the network's place, until the end, however it comes."""
        own = [weight.numpy() for weight in self._weights]
        try:
            for weight, average in zip(self._weights, self.values, strict=True):
                weight.assign(average)
            yield
        finally:
            for weight, value in zip(self._weights, own, strict=True):
                weight.assign(value)


def _move(average: tf.Variable, weight: tf.Tensor, share: tf.Tensor) -> None:
    average.assign_add((weight - average) * share)
