"""The distributed steps: one program for one device, several, or several hosts.

Keras' `fit` fails under several hosts, clips gradients before they are summed, and hides the step;
so the steps are ours. A step is one update: on every replica, for each batch of the step, forward,
loss from sums over all replicas, gradients; these summed over batches and replicas, then clipped,
and the optimizer applied to gradients that are the same on each; then the average of the weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from train import deep_supervision, distribution, losses, metrics, schedules
from train.clipping import clip
from train.ema import WeightAverage
from train.experiment import OptimizerConfig
from train.optimizers import make_optimizer

_SCALE_GROWTH_STEPS = 2000  # steps without overflow after which the loss scale is doubled


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a call of several training steps did.

    Attributes:
      losses: loss of each step, float32 [steps].
      confusion: int64 [K, K], of the predictions before each update, summed.
      learning_rate: of the last step.
      waited: seconds spent waiting for input.
      skipped: steps without an update, as float16 gradients were too large to be held.
    """

    losses: np.ndarray
    confusion: np.ndarray
    learning_rate: float
    waited: float
    skipped: int = 0


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
        ema_decay: float = 0.0,
        jit_compile: bool = False,
        deterministic: bool = False,
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
          ema_decay: of the average of the weights, see `averaged`; 0 for none.
          jit_compile: compile forward and backward by XLA; see `execution.wants_xla`.
          deterministic: whether TensorFlow was told so: it then refuses to read a clock, and
            waiting counts as 0.
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
        self._deterministic = deterministic
        with strategy.scope():
            self.optimizer = make_optimizer(config, model.trainable_variables)
            self.plateau = tf.Variable(1.0, trainable=False, name="plateau")
            self.loss_scale = tf.Variable(
                32768.0 if loss_scaling else 1.0, trainable=False, name="loss_scale"
            )
            self.good_steps = tf.Variable(0, trainable=False, name="good_steps")
            self.average: WeightAverage | None = None
            if ema_decay:
                self.average = WeightAverage(strategy, model.weights, ema_decay)
        self._forward_backward: Any = self._predict_and_differentiate
        if jit_compile:
            self._forward_backward = tf.function(self._forward_backward, jit_compile=True)
        self._train = tf.function(self._train_steps)
        self._evaluate = tf.function(self._evaluate_step)
        self._is_finite = tf.function(self._weights_finite)

    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        """All variables that decide how the training goes on."""
        average = {} if self.average is None else {"average": self.average}
        return tf.train.Checkpoint(
            model=self.model,
            optimizer=self.optimizer,
            plateau=self.plateau,
            loss_scale=self.loss_scale,
            good_steps=self.good_steps,
            **average,
        )

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """While it lasts, the model has the averaged weights, if any are kept.

        To evaluate, to draw and to keep the best; neither train nor save a checkpoint within.
        """
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def is_finite(self) -> bool:
        """Whether weights, their average and the optimizer's state are all numbers."""
        return bool(self._is_finite().numpy())

    def distribute(self, dataset: tf.data.Dataset) -> Iterator[Any]:
        """An iterator that hands each replica its part of every global batch."""
        return distribution.distribute(self.strategy, dataset)

    def train(self, iterator: Iterator[Any], first_step: int, count: int) -> StepResult:
        """Runs `count` training steps; the first of them is the step `first_step` of the run.

        Each takes as many batches from the iterator as the optimizer accumulates.
        """
        values, confusion, rate, waited, skipped = self._train(
            iterator, tf.constant(first_step, tf.int64), tf.constant(count)
        )
        return StepResult(
            values.numpy(),
            confusion.numpy(),
            float(rate.numpy()),
            float(waited.numpy()),
            int(skipped.numpy()),
        )

    def evaluate(self, dataset: tf.data.Dataset) -> tuple[float, np.ndarray]:
        """Loss of a whole dataset, taken from sums over all of it, and its confusion matrix.

        Of several outputs it is the loss of the first alone, so that networks can be compared.
        """
        totals: dict[str, np.ndarray] = {}
        matrix = np.zeros([self._num_classes] * 2, np.int64)
        for batch in self.distribute(dataset):
            sums, confusion = self._evaluate(batch)
            matrix += confusion.numpy()
            for key, value in sums.items():
                totals[key] = totals.get(key, 0.0) + value.numpy().astype(np.float64)
        sums = {key: tf.constant(value, tf.float32) for key, value in totals.items()}
        return float(self._loss.value(sums).numpy()), matrix

    def _train_steps(
        self, iterator: Any, first_step: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        values = tf.TensorArray(tf.float32, count)
        confusion = tf.zeros([self._num_classes] * 2, tf.int64)
        waited = tf.constant(0.0, tf.float64)
        rate, skipped = tf.constant(0.0), tf.constant(0)
        for i in tf.range(count):
            step = first_step + tf.cast(i, tf.int64)
            rate = schedules.learning_rate(self._config, step, self._total_steps) * self.plateau
            self.optimizer.learning_rate.assign(rate)
            gradients, value, matrix, seconds = self._differentiate(iterator)
            updated = self._update(self.strategy.run(self._sum, (gradients,)))
            skipped += tf.cast(~updated, tf.int32)
            values = values.write(i, value)
            confusion += matrix
            waited += seconds
        return values.stack(), confusion, rate, waited, skipped

    def _differentiate(self, iterator: Any) -> tuple[list[Any], tf.Tensor, tf.Tensor, tf.Tensor]:
        """A step's gradients on each replica, summed over its batches, and the mean loss."""
        count = self._config.accumulate_steps
        if count == 1:
            batch, waited = self._next(iterator)
            gradients, value, matrix = self.strategy.run(self._replica_step, (batch,))
            return gradients, self._local(value)[0], self._total(matrix), waited
        total = tf.constant(0.0)
        confusion = tf.zeros([self._num_classes] * 2, tf.int64)
        waited = tf.constant(0.0, tf.float64)
        gradients = self.strategy.run(self._no_gradients)
        for _ in tf.range(count):
            batch, seconds = self._next(iterator)
            gradients, value, matrix = self.strategy.run(self._replica_more, (batch, gradients))
            total += self._local(value)[0]
            confusion += self._total(matrix)
            waited += seconds
        return gradients, total / count, confusion, waited

    def _next(self, iterator: Any) -> tuple[Any, tf.Tensor]:
        """The next batch, and the seconds that it let us wait."""
        if self._deterministic:
            return next(iterator), tf.constant(0.0, tf.float64)
        begin = tf.timestamp()
        with tf.control_dependencies([begin]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(self._local(batch))):
            return batch, tf.timestamp() - begin

    def _no_gradients(self) -> list[tf.Tensor]:
        return [tf.zeros(v.shape, v.dtype) for v in self.model.trainable_variables]

    def _replica_more(
        self, batch: dict[str, tf.Tensor], before: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        gradients, value, matrix = self._replica_step(batch)
        return [a + b for a, b in zip(before, gradients, strict=True)], value, matrix

    def _replica_step(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        gradients, value, predicted = self._forward_backward(batch)
        return gradients, value, metrics.confusion(batch["mask"], predicted, self._num_classes)

    def _predict_and_differentiate(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = self.model(batch["image"], training=True)
            sums = self._train_loss.sums(outputs, batch["mask"])
            value = self._train_loss.value(over_replicas(sums))
            scaled = value * self.loss_scale if self._loss_scaling else value
        gradients = tape.gradient(scaled, [v.value for v in self.model.trainable_variables])
        return gradients, value, metrics.predicted_ids(deep_supervision.main_logits(outputs))

    def _sum(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Sums over replicas, and undoes what the gradients were multiplied with."""
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            # What comes out of a loop is on no device, which several workers do not stand.
            gradients = [tf.identity(g) for g in gradients]
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        # Not a pass over all gradients for nothing: for large networks it is felt.
        if not self._loss_scaling and self._config.accumulate_steps == 1:
            return gradients
        scale = 1.0 / (self.loss_scale * self._config.accumulate_steps)
        return [g * scale for g in gradients]

    def _update(self, gradients: list[Any]) -> tf.Tensor:
        """Applies gradients that are the same on every replica; whether there was an update."""
        if not self._loss_scaling:
            self._apply(gradients)
            return tf.constant(True)
        finite = _all_finite([self._local(g)[0] for g in gradients])
        # The choice is made above the replicas: an optimizer cannot be applied in a branch of one.
        return tf.cond(finite, lambda: self._apply_and_scale(gradients), self._skip)

    def _apply(self, gradients: list[Any]) -> None:
        before = tf.identity(self.optimizer.iterations.value)
        self.strategy.run(self._replica_apply, (gradients,))
        if self.average is not None:
            self.average.update(before)

    def _replica_apply(self, gradients: list[tf.Tensor]) -> None:
        # Clipped after the look at what overflowed: clipping by value makes infinite ones finite.
        gradients = clip(gradients, self._config.clip, self._config.clip_threshold)
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def _apply_and_scale(self, gradients: list[Any]) -> tf.Tensor:
        self._apply(gradients)
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
        return {k: self._total(v) for k, v in sums.items()}, self._total(matrix)

    def _weights_finite(self) -> tf.Tensor:
        kept = [*self.model.weights, *self.optimizer.variables]
        values = [v.value for v in kept] + ([] if self.average is None else self.average.values)
        return _all_finite([self._local(v)[0] for v in values if v.dtype.is_floating])

    def _local(self, value: Any) -> Any:
        return self.strategy.experimental_local_results(value)

    def _total(self, value: Any) -> tf.Tensor:
        return self.strategy.reduce("SUM", value, axis=None)


def _all_finite(values: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in values])


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
