"""The distributed steps: one program for one device, several, or several hosts.

Keras' `fit` fails under several hosts, clips gradients before they are summed, and hides the step;
so the steps are ours. On every replica: forward, loss from sums over all replicas, gradients,
summed over replicas, then clipped, and the optimizer applied to gradients that are the same on
each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from flexseg_errors import FlexsegError
from train import deep_supervision, losses, metrics, schedules
from train.experiment import DistributeConfig, OptimizerConfig

_SCALE_GROWTH_STEPS = 2000  # steps without overflow after which the loss scale is doubled


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a call of several training steps did.

    Attributes:
      losses: loss of each step, float32 [steps].
      confusion: int64 [K, K], of the predictions before each update, summed.
      learning_rate: of the last step.
      waited: seconds spent waiting for input.
    """

    losses: np.ndarray
    confusion: np.ndarray
    learning_rate: float
    waited: float


def make_strategy(config: DistributeConfig) -> tf.distribute.Strategy:
    """Chooses where to run. Call it before TensorFlow has touched a device.

    Raises:
      FlexsegError: where logical devices are asked for too late.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if config.cpu_devices > 1:
        try:
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0],
                [tf.config.LogicalDeviceConfiguration()] * config.cpu_devices,
            )
        except RuntimeError as error:
            raise FlexsegError(f"distribute.cpu_devices comes too late: {error}") from error
    devices = [d.name for d in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    wanted = config.strategy
    if wanted == "auto":
        wanted = "mirrored" if len(devices) > 1 else "one"
    if wanted == "one":
        return tf.distribute.OneDeviceStrategy(devices[0])
    # CPUs have no collective of their own; reducing to one device is exact and always there.
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


class _SummedGradients:
    """Mixed into a Keras optimizer, takes gradients that were summed over replicas already.

    Keras would sum them itself, but after clipping, which makes another update of it.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


class _Adam(_SummedGradients, keras.optimizers.Adam):
    pass


class _AdamW(_SummedGradients, keras.optimizers.AdamW):
    pass


def make_optimizer(config: OptimizerConfig) -> keras.optimizers.Optimizer:
    """The optimizer without clipping and schedule, which the steps see to. Call it in scope."""
    common = {
        "learning_rate": config.learning_rate,
        "beta_1": config.beta_1,
        "beta_2": config.beta_2,
        "epsilon": config.epsilon,
    }
    if config.name == "adam":
        return _Adam(**common)
    optimizer = _AdamW(weight_decay=config.weight_decay, **common)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


class Steps:
    """The training and evaluation steps of one model under one strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        loss: losses.Loss,
        config: OptimizerConfig,
        *,
        num_classes: int,
        total_steps: int,
        loss_scaling: bool = False,
        output_weights: Sequence[float] = (),
    ):
        """Makes optimizer and variables.

        Args:
          strategy: under whose scope `model` was made.
          model: images [B, H, W, C] to logits [B, H, W, K or 1], or to several such outputs, of
            which the first is what metrics and evaluation look at.
          loss: what is minimized.
          config: optimizer and schedule.
          num_classes: K.
          total_steps: length of the whole run, for the schedule.
          loss_scaling: scale the loss so that float16 gradients do not vanish.
          output_weights: of the losses of several outputs; () for 2^-i.
        """
        self.strategy = strategy
        self.model = model
        self._loss = loss
        weights = deep_supervision.weights_of_outputs(len(model.outputs), output_weights)
        self._train_loss: Any = loss
        if len(weights) > 1:
            self._train_loss = deep_supervision.DeepSupervision(loss, weights)
        self._config = config
        self._num_classes = num_classes
        self._total_steps = total_steps
        self._loss_scaling = loss_scaling
        with strategy.scope():
            self.optimizer = make_optimizer(config)
            self.optimizer.build(model.trainable_variables)
            self.plateau = tf.Variable(1.0, trainable=False, name="plateau")
            self.loss_scale = tf.Variable(
                32768.0 if loss_scaling else 1.0, trainable=False, name="loss_scale"
            )
            self.good_steps = tf.Variable(0, trainable=False, name="good_steps")
        self._train = tf.function(self._train_steps)
        self._evaluate = tf.function(self._evaluate_step)

    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        """All variables that decide how the training goes on."""
        return tf.train.Checkpoint(
            model=self.model,
            optimizer=self.optimizer,
            plateau=self.plateau,
            loss_scale=self.loss_scale,
            good_steps=self.good_steps,
        )

    def distribute(self, dataset: tf.data.Dataset) -> Iterator[Any]:
        """An iterator that hands each replica its part of every global batch."""
        return iter(self.strategy.experimental_distribute_dataset(dataset))

    def train(self, iterator: Iterator[Any], first_step: int, count: int) -> StepResult:
        """Runs `count` training steps; the first of them is the step `first_step` of the run."""
        values, confusion, rate, waited = self._train(
            iterator, tf.constant(first_step, tf.int64), tf.constant(count)
        )
        return StepResult(
            values.numpy(), confusion.numpy(), float(rate.numpy()), float(waited.numpy())
        )

    def evaluate(self, dataset: tf.data.Dataset) -> tuple[float, np.ndarray]:
        """Loss of a whole dataset, taken from sums over all of it, and its confusion matrix.

        Of several outputs it is the loss of the first alone, so that networks can be compared.
        """
        totals: dict[str, np.ndarray] = {}
        matrix = np.zeros([self._num_classes] * 2, np.int64)
        for batch in self.strategy.experimental_distribute_dataset(dataset):
            sums, confusion = self._evaluate(batch)
            matrix += confusion.numpy()
            for key, value in sums.items():
                totals[key] = totals.get(key, 0.0) + value.numpy().astype(np.float64)
        sums = {key: tf.constant(value, tf.float32) for key, value in totals.items()}
        return float(self._loss.value(sums).numpy()), matrix

    def _train_steps(
        self, iterator: Any, first_step: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        values = tf.TensorArray(tf.float32, count)
        confusion = tf.zeros([self._num_classes] * 2, tf.int64)
        waited = tf.constant(0.0, tf.float64)
        rate = tf.constant(0.0)
        for i in tf.range(count):
            begin = tf.timestamp()
            with tf.control_dependencies([begin]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(self._local(batch))):
                waited += tf.timestamp() - begin
            step = first_step + tf.cast(i, tf.int64)
            rate = schedules.learning_rate(self._config, step, self._total_steps) * self.plateau
            self.optimizer.learning_rate.assign(rate)
            gradients, value, matrix = self.strategy.run(self._replica_step, (batch,))
            self._apply(gradients)
            values = values.write(i, self._local(value)[0])
            confusion += self.strategy.reduce("SUM", matrix, axis=None)
        return values.stack(), confusion, rate, waited

    def _replica_step(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = self.model(batch["image"], training=True)
            sums = self._train_loss.sums(outputs, batch["mask"])
            value = self._train_loss.value(over_replicas(sums))
            scaled = value * self.loss_scale
        gradients = tape.gradient(scaled, [v.value for v in self.model.trainable_variables])
        context = tf.distribute.get_replica_context()
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        gradients = [g / self.loss_scale for g in gradients]
        predicted = metrics.predicted_ids(deep_supervision.main_logits(outputs))
        matrix = metrics.confusion(batch["mask"], predicted, self._num_classes)
        return gradients, value, matrix

    def _clip(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        limit = self._config.clip_threshold
        if self._config.clip == "value":
            return [tf.clip_by_value(g, -limit, limit) for g in gradients]
        if self._config.clip == "norm":
            return [tf.clip_by_norm(g, limit) for g in gradients]
        if self._config.clip == "global_norm":
            return tf.clip_by_global_norm(gradients, limit)[0]
        return gradients

    def _apply(self, gradients: list[Any]) -> None:
        """Applies gradients that are the same on every replica."""
        if not self._loss_scaling:
            self.strategy.run(self._replica_apply, (gradients,))
            return
        finite = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(self._local(g)[0])) for g in gradients]
        )
        # The choice is made above the replicas: an optimizer cannot be applied in a branch of one.
        tf.cond(finite, lambda: self._apply_finite(gradients), self._skip)

    def _replica_apply(self, gradients: list[tf.Tensor]) -> None:
        # Clipped after the look at what overflowed: clipping by value makes infinite ones finite.
        self.optimizer.apply(self._clip(gradients), self.model.trainable_variables)

    def _apply_finite(self, gradients: list[Any]) -> tf.Tensor:
        self.strategy.run(self._replica_apply, (gradients,))
        grow = self.good_steps + 1 >= _SCALE_GROWTH_STEPS
        self.loss_scale.assign(tf.where(grow, self.loss_scale * 2.0, self.loss_scale))
        self.good_steps.assign(tf.where(grow, 0, self.good_steps + 1))
        return tf.constant(True)

    def _skip(self) -> tf.Tensor:
        self.loss_scale.assign(tf.maximum(self.loss_scale * 0.5, 1.0))
        self.good_steps.assign(0)
        return tf.constant(False)

    def _evaluate_step(self, batch: Any) -> tuple[losses.Sums, tf.Tensor]:
        def replica(part: dict[str, tf.Tensor]) -> tuple[losses.Sums, tf.Tensor]:
            logits = deep_supervision.main_logits(self.model(part["image"], training=False))
            sums = self._loss.sums(logits, part["mask"])
            return sums, metrics.confusion(
                part["mask"], metrics.predicted_ids(logits), self._num_classes
            )

        sums, matrix = self.strategy.run(replica, (batch,))
        sums = {k: self.strategy.reduce("SUM", v, axis=None) for k, v in sums.items()}
        return sums, self.strategy.reduce("SUM", matrix, axis=None)

    def _local(self, value: Any) -> Any:
        return self.strategy.experimental_local_results(value)


def over_replicas(sums: losses.Sums) -> losses.Sums:
    """Adds sums over replicas; the gradient flows into this replica's own part alone.

    Each replica then holds its part of the gradient of the loss of the whole batch, and adding the
    parts up gives all of it.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return sums
    totals = context.all_reduce(tf.distribute.ReduceOp.SUM, list(sums.values()))
    return {
        key: own + tf.stop_gradient(total - own)
        for (key, own), total in zip(sums.items(), totals, strict=True)
    }
