"""What a training is made of, from its run: loss, input, steps. A rehearsal makes the same."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from flexseg_errors import FlexsegError
from pipelines.manifest import Manifest
from train import class_weights
from train.console import say
from train.runs import Run

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from pipelines.batches import TrainInput
    from train.loop import Steps
    from train.losses import WeightedSum


def make_loss(run: Run, manifest: Manifest) -> WeightedSum:
    """The loss of the experiment; what the classes weigh in it is told to the person."""
    from train import losses

    config, split = run.experiment.train, manifest.split("train")
    weights = class_weights.class_weights(
        config.class_weights,
        split.class_pixels,
        split.class_examples,
        beta=config.class_weight_beta,
        cap=config.class_weight_cap,
    )
    if weights:
        say(class_weights.describe(weights, run.label_map.names))
    return losses.parse(config.loss, weights)


def train_input(run: Run) -> TrainInput:
    """What decides the stream of training batches."""
    from pipelines import batches
    from pipelines.online_augment import Augmentation

    data = run.experiment.data
    return batches.TrainInput(
        batch_size=data.batch_size,
        seed=run.experiment.train.seed,
        crop_size=data.crop_size,
        augmentation=Augmentation(**dataclasses.asdict(run.experiment.augment)),
        shuffle_bytes=data.shuffle_mb << 20,
        foreground_share=data.foreground_share,
        foreground_classes=data.foreground_classes,
        empty_rate=data.empty_rate,
        cache=data.cache,
        on_corrupt=data.on_corrupt,
        service="" if data.service == "none" else data.service,
        threads=data.threads,
        ram_bytes=data.ram_mb << 20,
    )


def check_input(
    manifest: Manifest, source: TrainInput, strategy: tf.distribute.Strategy, workers: int
) -> None:
    """Refuses an input that cannot be dealt out.

    Raises:
      FlexsegError: naming the key.
    """
    from pipelines import batches

    if source.batch_size % strategy.num_replicas_in_sync:
        raise FlexsegError(
            f"data.batch_size={source.batch_size} cannot be divided among "
            f"{strategy.num_replicas_in_sync} replicas; give a multiple."
        )
    batches.check(manifest, source, workers)


def steps_per_epoch(run: Run, manifest: Manifest) -> int:
    """Steps between two evaluations: as the experiment says, or about one pass over all records."""
    size = run.experiment.data.batch_size * run.experiment.optimizer.accumulate_steps
    steps = round(manifest.split("train").examples / size)
    return run.experiment.train.steps_per_epoch or max(1, steps)


def make_steps(
    run: Run,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    loss: WeightedSum,
    total_steps: int,
) -> Steps:
    """The steps of the experiment; `model` was made in the strategy's scope."""
    from train import execution, loop

    config = run.experiment.train
    return loop.Steps(
        strategy,
        model,
        loss,
        run.experiment.optimizer,
        num_classes=run.label_map.num_classes,
        total_steps=total_steps,
        output_weights=config.deep_supervision_weights,
        loss_scaling=config.precision == "mixed_float16",
        ema_decay=config.ema_decay,
        jit_compile=execution.wants_xla(config.jit_compile, strategy, loss),
        deterministic=config.deterministic,
    )
