"""Optimizers by name: Keras' formulas and state, each update in one pass over the weights.

An update touches every weight several times; for networks of 10^8 weights on a CPU that is a large
part of a step. TensorFlow has Adam's and Nesterov's updates as single operations, which Keras does
not use. Weight decay is decoupled (Loshchilov & Hutter 2019): before the update, a weight w becomes
w - learning_rate * weight_decay * w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from train.experiment import OptimizerConfig

_BETA_2 = {"adam": 0.999, "adamw": 0.999, "lion": 0.99}  # the papers' values
_LEAST_RANK = 2  # of what decays


def make_optimizer(
    config: OptimizerConfig, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """The optimizer of these variables, without clipping and schedule, which the steps see to.

    It takes gradients that were summed over replicas already. Call it in the strategy's scope.
    """
    rate, beta_1 = config.learning_rate, config.beta_1
    beta_2 = _BETA_2.get(config.name) if config.beta_2 is None else config.beta_2
    common = {"learning_rate": rate, "name": config.name}
    optimizer: Any
    if config.name == "sgd":
        optimizer = _Nesterov(momentum=beta_1, nesterov=True, **common)
    elif config.name == "lion":
        optimizer = _Lion(beta_1=beta_1, beta_2=beta_2, **common)
    else:
        optimizer = _Adam(beta_1=beta_1, beta_2=beta_2, epsilon=config.epsilon, **common)
    optimizer.build(list(variables))
    optimizer.set_decay(0.0 if config.name == "adam" else config.weight_decay, variables)
    return optimizer


def decays(variable: keras.Variable) -> bool:
    """Whether weight decay is for a variable: kernels, which layers multiply their inputs with.

    Not biases, scales and offsets of norms, or learned positions: a layer without them would do
    less, not the same more smoothly. A variable of a name that nobody thought of does not decay.
    """
    return variable.name.endswith("kernel") and len(variable.shape) >= _LEAST_RANK


class _OnSummed:
    """Mixed into a Keras optimizer: gradients that are summed already, and decay of some weights.

    Keras would sum them itself, but after clipping, which makes another update of it.
    """

    _decay = 0.0
    _decaying: frozenset[Any] = frozenset()

    def set_decay(self: Any, decay: float, variables: Sequence[keras.Variable]) -> None:
        self.weight_decay = None  # Keras' own, which takes more passes
        self._decay = decay
        self._decaying = frozenset(self._var_key(v) for v in variables if decays(v))

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars

    def _shrink(self: Any, variable: tf.Variable, rate: tf.Tensor) -> None:
        if self._decay and self._var_key(variable) in self._decaying:
            variable.assign(variable * (1.0 - rate * self._decay))


class _Adam(_OnSummed, keras.optimizers.Adam):
    """Adam, and AdamW where weights decay; the state is Keras' own."""

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        rate = tf.cast(learning_rate, variable.dtype)
        self._shrink(variable, rate)
        count = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(self.beta_1, count),
            beta2_power=tf.pow(self.beta_2, count),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class _Nesterov(_OnSummed, keras.optimizers.SGD):
    """Gradient descent: a = momentum * a - rate * g, w = w + momentum * a - rate * g."""

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        rate = tf.cast(learning_rate, variable.dtype)
        self._shrink(variable, rate)
        if not self.momentum:
            variable.assign_sub(rate * gradient)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=_handle(self.momentums[self._get_variable_index(variable)]),
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=True,
        )


class _Lion(_OnSummed, keras.optimizers.Lion):
    """Lion (Chen et al. 2023, arXiv:2302.06675)."""

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        self._shrink(variable, tf.cast(learning_rate, variable.dtype))
        super().update_step(gradient, variable, learning_rate)


def _handle(variable: keras.Variable) -> tf.Tensor:
    """What an operation on resources takes; on a replica's device its own copy's."""
    return variable.value.handle
