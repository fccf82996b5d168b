"""What follows an epoch: validation, the record, the best weights, and whether to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines import manifest as manifests
from pipelines.parts import Part
from train import break_training, monitor
from train.console import say
from train.progress import Progress, save_best
from train.runs import Run
from train.watcher import Watcher

if TYPE_CHECKING:
    from train.loop import Steps


def end_epoch(
    run: Run,
    steps: Steps,
    manifest: manifests.Manifest,
    progress: Progress,
    per_epoch: int,
    total: int,
    watcher: Watcher,
    part: Part | None = None,
) -> None:
    """Validates, records, keeps the best, and decides whether and how to go on.

    Of several workers, each validates on its part.
    """
    epoch = progress.step // per_epoch - 1
    with steps.averaged():  # what is judged, kept and shown is what will be used
        values, confusion = _values(run, steps, manifest, progress, part)
        progress.epoch_losses, progress.epoch_confusion = [], []
        for key, value in values.items():
            progress.history.setdefault(key, []).append(value)
        _judge(run, steps, progress, epoch, values)
        progress.ended_by = _reason_to_end(run, progress, total)
        progress.finished = bool(progress.ended_by)
        watcher.epoch(progress, epoch, values, steps, confusion)


def _values(
    run: Run,
    steps: Steps,
    manifest: manifests.Manifest,
    progress: Progress,
    part: Part | None,
) -> tuple[monitor.Values, np.ndarray]:
    """The epoch's figures, and the confusion matrix of the valid split, else of the train split."""
    from pipelines import batches

    loss = sum(progress.epoch_losses) / len(progress.epoch_losses)
    confusion = np.array(progress.epoch_confusion)
    values = monitor.values("", loss, confusion, run.label_map)
    values["learning_rate"] = float(steps.optimizer.learning_rate.numpy())
    if "valid" in manifest.splits:
        data = run.experiment.data
        dataset = batches.evaluation(
            manifest, "valid", data.batch_size, data.crop_size, part, data.on_corrupt
        )
        loss, confusion = steps.evaluate(dataset)
        values.update(monitor.values(monitor.VALID, loss, confusion, run.label_map))
    return values, confusion


def _judge(run: Run, steps: Steps, progress: Progress, epoch: int, values: monitor.Values) -> None:
    """Keeps the weights if they are the best so far; else lets patience run down."""
    config = run.experiment.train
    monitored = values.get(config.monitor)
    # Without a validation split the newest weights are the best that can be said.
    if config.monitor not in values or monitor.is_better(monitored, progress.best, config.monitor):
        progress.best, progress.best_epoch = monitored, epoch
        progress.stale = progress.plateau_stale = 0
        save_best(run, steps, epoch, values)
    else:
        progress.stale += 1
        progress.plateau_stale += 1
    if config.plateau_patience and progress.plateau_stale >= config.plateau_patience:
        steps.plateau.assign(steps.plateau * config.plateau_factor)
        progress.plateau_stale = 0
        say(f"No better epoch for {config.plateau_patience} epochs: the learning rate is reduced.")


def _reason_to_end(run: Run, progress: Progress, total: int) -> str:
    """Why the training is over; "" where it is not."""
    patience = run.experiment.train.patience
    if break_training.is_there(run):
        say(f"There is a file {break_training.NAME}: training ends after this epoch.")
        return break_training.NAME
    if patience and progress.stale >= patience:
        say(f"Stopped early: no better epoch for {progress.stale} epochs.")
        return "patience"
    return "epochs" if progress.step >= total else ""
