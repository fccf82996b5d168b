"""A training up to its first steps, without a run directory: for lr-find and --dry_run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipelines.manifest import Manifest
from train import setup
from train.runs import Run

if TYPE_CHECKING:
    import tensorflow as tf

    from pipelines.batches import TrainInput
    from train.loop import Steps


@dataclasses.dataclass(frozen=True, eq=False)
class Rehearsal:
    """What a training consists of before its first step.

    Attributes:
      steps: with a network that has its first weights.
      source: what decides the stream of batches.
      dataset: the stream, from its beginning.
      per_epoch: steps of an epoch.
      total: steps of the whole training.
    """

    steps: Steps
    source: TrainInput
    dataset: tf.data.Dataset
    per_epoch: int
    total: int

    def iterator(self) -> Iterator[Any]:
        return self.steps.distribute(self.dataset)


def rehearse(run: Run, manifest: Manifest, total: int | None = None) -> Rehearsal:
    """Makes what `train` would make of the same run; writes nothing.

    Args:
      run: see `runs.plan`.
      manifest: of its dataset, as the run sees it.
      total: steps of the whole training, for the schedule; None for what the run says.

    Raises:
      FlexsegError: as a training's start would.
    """
    from pipelines import batches
    from train import distribution, execution

    config = run.experiment.train
    loss = setup.make_loss(run, manifest)
    if config.deterministic:
        execution.make_deterministic(config.seed)
    strategy = distribution.make_strategy(run.experiment.distribute)
    source = setup.train_input(run)
    setup.check_input(manifest, source, strategy, 1)
    per_epoch = setup.steps_per_epoch(run, manifest)
    total = total or per_epoch * config.epochs
    with strategy.scope():
        model = run.build()
    steps = setup.make_steps(run, strategy, model, loss, total)
    return Rehearsal(steps, source, batches.train(manifest, source), per_epoch, total)
