"""Trains a network on a dataset that `flexseg prepare` made.

The experiment is a YAML file, or its keys as flags, or both; what is not given keeps its default.
The run directory gets the resolved experiment, checkpoints, the best weights, curves and previews.
A run that was interrupted goes on, exactly, when the same command is run again. Dataset and run
directory may be remote (s3://bucket/name); a remote run is sent there with every checkpoint.

Examples:
  flexseg train --data=records --run=runs/lung
  flexseg train --experiment=lung.yaml --data=records --run=runs/wide --config.model.base_filters=32
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from flexseg_errors import FlexsegError, UsageError
from pipelines import folds, storage
from pipelines import manifest as manifests
from train import class_weights, runs
from train import experiment as experiments
from train.runs import Run

if TYPE_CHECKING:
    import tensorflow as tf

    from pipelines.batches import TrainInput
    from train.loop import Steps
    from train.losses import Loss


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("data", None, "Dataset made by flexseg prepare.", flag_values=values)
    flags.DEFINE_string("run", None, "Run directory; made, or gone on with.", flag_values=values)
    flags.DEFINE_string(
        "experiment", None, "YAML file with some or all of the keys below.", flag_values=values
    )
    experiments.define_flags(values)


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    for name in ("data", "run"):
        if not getattr(values, name):
            raise UsageError(f"train needs --{name}. See flexseg train --help.")
    experiment = experiments.load(values.experiment, experiments.overrides_from(values))
    manifest = folds.view(manifests.load(values.data), experiment.data.fold)
    train(runs.plan(values.run, experiment, manifest))


@dataclasses.dataclass
class Progress:
    """Where a run stands, beside its variables; kept with every checkpoint.

    Attributes:
      step: steps done.
      history: name -> a value for each epoch that is done.
      best: the best value of what is monitored, and the epoch that reached it.
      stale: epochs since then.
      plateau_stale: epochs since then or since the last reduction of the learning rate.
      epoch_losses: losses of the steps of the epoch that is going on.
      epoch_confusion: their confusion matrix.
      finished: whether training is over.
    """

    step: int = 0
    history: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)
    best: float | None = None
    best_epoch: int = -1
    stale: int = 0
    plateau_stale: int = 0
    epoch_losses: list[float] = dataclasses.field(default_factory=list)
    epoch_confusion: list[list[int]] = dataclasses.field(default_factory=list)
    finished: bool = False


def train(run: Run) -> Progress:
    """Trains a run to its end, from its beginning or from its last checkpoint.

    Args:
      run: what to train; see `runs.plan`.

    Raises:
      FlexsegError: where the run directory holds something else, or the loss is no number.
      KeyboardInterrupt: after a checkpoint, on SIGINT or SIGTERM.
    """
    from pipelines import batches
    from pipelines.online_augment import Augmentation
    from train import loop, losses, mirror

    config = run.experiment.train
    manifest = folds.view(manifests.load(run.data), run.experiment.data.fold)
    loss = losses.parse(config.loss, _class_weights(run, manifest))
    strategy = loop.make_strategy(run.experiment.distribute)
    source = batches.TrainInput(
        batch_size=run.experiment.data.batch_size,
        seed=config.seed,
        crop_size=run.experiment.data.crop_size,
        augmentation=Augmentation(**dataclasses.asdict(run.experiment.augment)),
        shuffle_bytes=run.experiment.data.shuffle_mb << 20,
    )
    if source.batch_size % strategy.num_replicas_in_sync:
        raise FlexsegError(
            f"data.batch_size={source.batch_size} cannot be divided among "
            f"{strategy.num_replicas_in_sync} replicas; give a multiple."
        )
    runs.claim(run)  # not before: a run that is refused must leave no folder behind
    with mirror.working_copy(run) as (copy, send):
        return _train(copy, manifest, source, strategy, loss, send)


def _class_weights(run: Run, manifest: manifests.Manifest) -> tuple[float, ...]:
    """The weights of the classes in the loss, told to the person; none where none are wanted."""
    config, split = run.experiment.train, manifest.split("train")
    weights = class_weights.class_weights(
        config.class_weights,
        split.class_pixels,
        split.class_examples,
        beta=config.class_weight_beta,
        cap=config.class_weight_cap,
    )
    if weights:
        _say(class_weights.describe(weights, run.label_map.names))
    return weights


def _train(
    run: Run,
    manifest: manifests.Manifest,
    source: TrainInput,
    strategy: tf.distribute.Strategy,
    loss: Loss,
    send: Callable[[], None],
) -> Progress:
    """Trains a run that is claimed; `send` is called when there is something to be kept."""
    from pipelines import batches
    from train import checkpoints, loop

    config = run.experiment.train
    per_epoch = config.steps_per_epoch or max(
        1, round(manifest.split("train").examples / source.batch_size)
    )
    total = per_epoch * config.epochs
    with strategy.scope():
        model = run.build()
    steps = loop.Steps(
        strategy,
        model,
        loss,
        run.experiment.optimizer,
        num_classes=run.label_map.num_classes,
        total_steps=total,
        output_weights=config.deep_supervision_weights,
        loss_scaling=config.precision == "mixed_float16",
    )
    progress = Progress()
    folder = run.path(runs.CHECKPOINTS)
    last = checkpoints.latest(folder)
    if last:
        progress = Progress(**checkpoints.restore(last, steps.checkpoint))
        _say(f"Going on after step {progress.step} of {total}.")
    if progress.finished:
        _say(f"{run.folder} is finished: best epoch {progress.best_epoch}.")
        return progress
    stop = _StopSignal()

    def save() -> None:
        state = dataclasses.asdict(progress)
        checkpoints.save(folder, progress.step, steps.checkpoint, state, config.keep_checkpoints)
        send()

    iterator = steps.distribute(batches.train(manifest, source, progress.step))
    watcher = _Watcher(run, manifest, per_epoch, total)
    with stop:
        while not progress.finished:
            _train_epoch(run, steps, iterator, progress, per_epoch, save, stop, watcher)
            _end_epoch(run, steps, manifest, progress, per_epoch, total, watcher)
            save()
            stop.raise_if_set()
    watcher.close()
    send()  # what the log held back
    _say(f"{run.folder}: finished after step {progress.step}; best epoch {progress.best_epoch}.")
    return progress


def _train_epoch(
    run: Run,
    steps: Steps,
    iterator: Any,
    progress: Progress,
    per_epoch: int,
    save: Any,
    stop: _StopSignal,
    watcher: _Watcher,
) -> None:
    """Trains to the end of the epoch in which the run stands."""
    config = run.experiment.train
    end = (progress.step // per_epoch + 1) * per_epoch
    while progress.step < end:
        # Calls begin at the same steps in every run, resumed or not.
        count = min(config.steps_per_call, end - progress.step)
        if config.checkpoint_steps:
            until = config.checkpoint_steps - progress.step % config.checkpoint_steps
            count = min(count, until)
        began = time.perf_counter()
        result = steps.train(iterator, progress.step, count)
        bad = np.flatnonzero(~np.isfinite(result.losses))
        if bad.size:
            raise FlexsegError(
                f"The loss of step {progress.step + int(bad[0])} is {result.losses[bad[0]]}. "
                "Lower optimizer.learning_rate or optimizer.clip_threshold; the checkpoint before "
                f"it is in {storage.join(run.folder, runs.CHECKPOINTS)}."
            )
        progress.step += count
        progress.epoch_losses += [float(v) for v in result.losses]
        so_far = np.array(progress.epoch_confusion or np.zeros_like(result.confusion))
        progress.epoch_confusion = (so_far + result.confusion).tolist()
        watcher.steps(progress, result, time.perf_counter() - began, count)
        if progress.step == end:
            return
        if config.checkpoint_steps and progress.step % config.checkpoint_steps == 0:
            save()
        if stop.is_set:
            save()
            stop.raise_if_set()


def _end_epoch(
    run: Run,
    steps: Steps,
    manifest: manifests.Manifest,
    progress: Progress,
    per_epoch: int,
    total: int,
    watcher: _Watcher,
) -> None:
    """Validates, records, keeps the best, and decides whether and how to go on."""
    from pipelines import batches
    from train import metrics

    config = run.experiment.train
    epoch = progress.step // per_epoch - 1
    values: dict[str, float | None] = {
        "loss": sum(progress.epoch_losses) / len(progress.epoch_losses),
        "dice": metrics.foreground(np.array(progress.epoch_confusion)).dice_macro,
        "learning_rate": float(steps.optimizer.learning_rate.numpy()),
    }
    progress.epoch_losses, progress.epoch_confusion = [], []
    if "valid" in manifest.splits:
        dataset = batches.evaluation(
            manifest, "valid", run.experiment.data.batch_size, run.experiment.data.crop_size
        )
        values["val_loss"], matrix = steps.evaluate(dataset)
        values["val_dice"] = metrics.foreground(matrix).dice_macro
    for key, value in values.items():
        finite = value is not None and math.isfinite(value)  # JSON knows no NaN
        progress.history.setdefault(key, []).append(value if finite else None)
    monitored = values.get(config.monitor)
    # Without a validation split the newest weights are the best that can be said.
    if config.monitor not in values or _is_better(monitored, progress.best, config.monitor):
        progress.best, progress.best_epoch = monitored, epoch
        progress.stale = progress.plateau_stale = 0
        _save_best(run, steps, epoch, values)
    else:
        progress.stale += 1
        progress.plateau_stale += 1
    if config.plateau_patience and progress.plateau_stale >= config.plateau_patience:
        steps.plateau.assign(steps.plateau * config.plateau_factor)
        progress.plateau_stale = 0
    if config.patience and progress.stale >= config.patience:
        _say(f"Stopped early: no better epoch for {progress.stale} epochs.")
        progress.finished = True
    if progress.step >= total:
        progress.finished = True
    watcher.epoch(progress, epoch, values, steps)


def _is_better(value: float | None, best: float | None, monitor: str) -> bool:
    if best is None:
        return True  # something has to be kept
    if value is None or not math.isfinite(value):
        return False
    if not math.isfinite(best):
        return True
    return value < best if monitor == "val_loss" else value > best


def _save_best(run: Run, steps: Steps, epoch: int, values: dict[str, float | None]) -> None:
    path = run.path(runs.BEST_WEIGHTS)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = path.replace("model.weights", "unfinished.weights")
    steps.model.save_weights(temporary)
    os.replace(temporary, path)
    with open(run.path(runs.BEST) + ".tmp", "w", encoding="utf-8") as file:
        json.dump({"epoch": epoch, **values}, file, indent=1)
    os.replace(run.path(runs.BEST) + ".tmp", run.path(runs.BEST))


class _StopSignal:
    """Turns SIGINT and SIGTERM into a wish that is granted after the next step is safe."""

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._set)
        except ValueError:
            self._before = {}  # not in the main thread: signals are somebody else's

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_set(self) -> None:
        if self.is_set:
            raise KeyboardInterrupt

    def _set(self, *_: object) -> None:
        if self.is_set:  # asked twice: at once, losing the steps since the last checkpoint
            raise KeyboardInterrupt
        self.is_set = True
        _say("Stopping after the next checkpoint ...")


class _Watcher:
    """All that only looks on: progress bar, TensorBoard, curves, previews."""

    def __init__(self, run: Run, manifest: manifests.Manifest, per_epoch: int, total: int):
        import tensorflow as tf
        from tqdm import tqdm

        self._run = run
        self._manifest = manifest
        self._per_epoch = per_epoch
        self._batch_size = run.experiment.data.batch_size
        self._writer = tf.summary.create_file_writer(run.path("logs"))
        self._bar = tqdm(total=total, unit="step", disable=None, dynamic_ncols=True)
        self._samples: list[Any] | None = None

    def steps(self, progress: Progress, result: Any, seconds: float, count: int) -> None:
        """Shows what a call of several steps did."""
        import tensorflow as tf

        from train import metrics

        dice = metrics.foreground(np.array(progress.epoch_confusion)).dice_macro
        rate = count * self._batch_size / seconds
        waiting = min(1.0, result.waited / seconds)
        with self._writer.as_default(step=progress.step):
            tf.summary.scalar("train/loss", float(np.mean(result.losses)))
            tf.summary.scalar("train/learning_rate", result.learning_rate)
            tf.summary.scalar("train/examples_per_second", rate)
            tf.summary.scalar("train/waiting_share", waiting)
        self._bar.n = progress.step
        self._bar.set_postfix_str(
            f"loss {np.mean(result.losses):.4f}, dice {_figure(dice)}, {rate:.1f} examples/s, "
            f"waiting {waiting:.0%}"
        )

    def epoch(
        self, progress: Progress, epoch: int, values: dict[str, float | None], steps: Steps
    ) -> None:
        """Writes what is to be seen after an epoch."""
        import tensorflow as tf

        from train import previews

        with self._writer.as_default(step=progress.step):
            for key, value in values.items():
                if value is not None:
                    tf.summary.scalar(f"epoch/{key}", value)
        self._writer.flush()
        history, folder = progress.history, self._run.path("eval")
        for name, keys in (
            ("train_losses", ("loss", "val_loss")),
            ("train_metrics", ("dice", "val_dice")),
        ):
            columns = {k: history[k] for k in keys if k in history}
            header = "epoch, " + ", ".join(columns)
            previews.write_curves(folder, name, columns, header)
        with open(self._run.path("history.json.tmp"), "w", encoding="utf-8") as file:
            json.dump(history, file, indent=1)
        os.replace(self._run.path("history.json.tmp"), self._run.path("history.json"))
        self._preview(epoch, steps)
        shown = ", ".join(f"{key} {_figure(value)}" for key, value in values.items())
        star = " (best so far)" if progress.best_epoch == epoch else ""
        _say(f"Epoch {epoch}: {shown}{star}")

    def close(self) -> None:
        """Closes bar and log."""
        self._bar.close()
        self._writer.close()

    def _preview(self, epoch: int, steps: Steps) -> None:
        count = self._run.experiment.train.previews
        if not count or "valid" not in self._manifest.splits:
            return
        from pipelines import batches
        from train import metrics, previews
        from train.deep_supervision import main_logits

        if self._samples is None:
            dataset = batches.evaluation(
                self._manifest, "valid", count, self._run.experiment.data.crop_size
            )
            batch = next(iter(dataset.take(1).as_numpy_iterator()))
            self._samples = [batch["image"], batch["mask"]]
        images, masks = self._samples
        found = metrics.predicted_ids(main_logits(steps.model(images, training=False))).numpy()
        keep = [i for i in range(count) if (masks[i] != 255).any()]
        picture = previews.sheet(
            [images[i] for i in keep],
            [(masks[i], found[i].astype(np.uint8)) for i in keep],
            self._run.label_map,
        )
        previews.write_png(self._run.path("previews", f"epoch_{epoch:04d}.png"), picture)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _say(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)
