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

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from flexseg_errors import UsageError
from pipelines import folds, storage
from pipelines import manifest as manifests
from train import (
    break_training,
    dry_run,
    event_files,
    init_from,
    old_config,
    resume,
    runs,
    setup,
    shipped,
    software,
)
from train import experiment as experiments
from train.console import detail, say
from train.epoch_end import end_epoch
from train.guard import Guard
from train.progress import Progress
from train.runs import Run
from train.stall import Stall
from train.stop_signal import StopSignal
from train.watcher import Watcher

if TYPE_CHECKING:
    import keras

    from pipelines.batches import TrainInput
    from pipelines.parts import Part
    from train.loop import Steps
    from train.workers import Workers

_SKIPPED = "{} made no update: float16 could not hold the gradients, and the loss scale was halved."
_DIVIDED = {
    "file": "Each worker reads its own shards of the train split.",
    "data": "Each worker reads all shards of the train split and takes its part of every batch: "
    "there are less than two shards a worker.",
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "data", None, "Dataset made by flexseg prepare. Required.", flag_values=values
    )
    flags.DEFINE_string(
        "run", None, "Run directory; made, or gone on with. Required.", flag_values=values
    )
    flags.DEFINE_string(
        "experiment",
        None,
        "YAML file with some or all of the keys below, the INI config of an older project, or the "
        f"name of an experiment that comes with flexseg: {', '.join(shipped.names())}. Default: "
        "the defaults of the keys.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "init_from",
        None,
        "Run whose best weights are begun with, as far as they fit; its head is replaced where the "
        "classes differ. Default: weights are drawn.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Tell shapes, size, memory, steps and an estimate of the time from two real steps; write "
        "nothing.",
        flag_values=values,
    )
    experiments.define_flags(values)


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    for name in ("data", "run"):
        if not getattr(values, name):
            raise UsageError(f"train needs --{name}. See flexseg train --help.")
    experiment = old_config.load_experiment(values.experiment, experiments.overrides_from(values))
    manifest = folds.view(manifests.load(values.data), experiment.data.fold)
    plan = runs.plan(values.run, experiment, manifest)
    if values.init_from:
        plan = init_from.plan(plan, values.init_from)
    if values.dry_run:
        dry_run.report(plan, manifest)
        return
    try:
        train(plan)
    except KeyboardInterrupt:
        say(f"Go on with:\n  {resume.command(values)}")
        raise


def train(run: Run) -> Progress:
    """Trains a run to its end, from its beginning or from its last checkpoint.

    Args:
      run: what to train; see `runs.plan`.

    Raises:
      FlexsegError: where the run directory holds something else, or the loss is no number.
      KeyboardInterrupt: after a checkpoint, on SIGINT or SIGTERM.
    """
    from pipelines import batches
    from train import distribution, execution, mirror
    from train.workers import Workers

    config = run.experiment.train
    manifest = folds.view(manifests.load(run.data), run.experiment.data.fold)
    loss = setup.make_loss(run, manifest)
    if config.deterministic:
        execution.make_deterministic(config.seed)
    strategy = distribution.make_strategy(run.experiment.distribute)
    execution.wants_xla(config.jit_compile, strategy, loss)  # refuses before there is a folder
    cluster = distribution.choose_cluster(run.experiment.distribute)
    workers = Workers(strategy, cluster)
    run = dataclasses.replace(run, writes=workers.is_chief)
    source = setup.train_input(run)
    setup.check_input(manifest, source, strategy, workers.count)
    with workers.watch(lambda: resume.kept(run)), contextlib.ExitStack() as stack:
        workers.refuse_differences(
            {
                "the experiment": experiments.dump(run.experiment),
                "the dataset": run.dataset_fingerprint,
                "--init_from": str(run.init_from),
                "the cluster in TF_CONFIG": str(cluster and cluster.addresses),
            }
        )
        with strategy.scope():
            model = run.build()
        detail(f"built {run.experiment.model.name}, {model.count_params():,} weights")
        workers.on_chief(lambda: _begin(run, model))
        per_epoch = setup.steps_per_epoch(run, manifest)
        steps = setup.make_steps(run, strategy, model, loss, per_epoch * config.epochs)
        begun = storage.join(run.folder, runs.EXPERIMENT)

        def enter() -> tuple[Run, Callable[[], None]]:
            if not run.writes:
                resume.see(run, lambda: storage.is_file(begun), begun)
            copy, send = stack.enter_context(mirror.working_copy(run))
            if run.writes and run.init_from:
                init_from.keep(copy, steps, send)
            return copy, send

        copy, send = workers.chief_first(enter)
        part = None
        if workers.count > 1:
            part = batches.choose_part(manifest, workers.index, workers.count)
            say(_DIVIDED[part.by])
        return _train(copy, manifest, source, part, steps, per_epoch, workers, send)


def _begin(run: Run, model: keras.Model) -> None:
    """Makes the run's folder; before that, as a refusal must leave none, the first weights."""
    from train import checkpoints

    if not checkpoints.begun(storage.join(run.folder, runs.CHECKPOINTS)):
        init_from.apply(run, model)
    runs.claim(run)


def _train(
    run: Run,
    manifest: manifests.Manifest,
    source: TrainInput,
    part: Part | None,
    steps: Steps,
    per_epoch: int,
    workers: Workers,
    send: Callable[[], None],
) -> Progress:
    """Trains a run that is claimed; `send` is called when there is something to be kept."""
    from pipelines import batches
    from train import checkpoints

    config = run.experiment.train
    total = per_epoch * config.epochs
    folder = run.path(runs.CHECKPOINTS)
    progress = resume.restore(run, steps.checkpoint, workers)
    detail(f"the run begins at step {progress.step} of {total}, {per_epoch} an epoch")
    if progress.step:
        say(f"Going on after step {progress.step} of {total}.")
    progress.finished = resume.is_over(progress, config, total)
    if progress.finished:
        say(f"{run.folder} is finished: best epoch {progress.best_epoch}.")
        return progress
    stop = StopSignal()
    watcher: Any = _Silent()
    if run.writes:
        software.record(run, progress.step)
        event_files.drop_after(run.path("logs"), progress.step)
        watcher = Watcher(run, manifest, per_epoch, total, progress.step)

    last = progress.step
    guard = Guard(run, manifest, source, part)

    def save() -> None:
        nonlocal last
        guard.weights(steps, progress)
        if run.writes and last != progress.step:
            last = progress.step
            state = dataclasses.asdict(progress)
            keep = config.keep_checkpoints
            checkpoints.save(folder, progress.step, steps.checkpoint, state, keep)
            detail(f"the checkpoint of step {progress.step} is kept")
            send()

    def stop_if_asked() -> None:
        if workers.any(stop.is_set):
            save()
            workers.any(False)  # the others wait until it is kept
            say(f"Stopped after step {progress.step} of {total}, which is kept.")
            raise KeyboardInterrupt

    first = progress.step * run.experiment.optimizer.accumulate_steps  # in batches
    iterator = steps.distribute(batches.train(manifest, source, first, part))
    left_out = batches.skipped(manifest, source, part)
    stall = Stall(source.service)
    with stop, batches.explained(manifest, "train", "valid"):
        while not progress.finished:
            _train_epoch(
                run,
                steps,
                iterator,
                progress,
                per_epoch,
                guard,
                save,
                stop_if_asked,
                watcher,
                stall,
            )
            guard.weights(steps, progress)
            end_epoch(run, steps, manifest, progress, per_epoch, total, watcher, part)
            if left_out:
                say(batches.describe_damage(left_out))
            if workers.any(progress.finished) and not progress.finished:
                progress.finished, progress.ended_by = True, "another worker"
            save()
            if not progress.finished:
                stop_if_asked()
    watcher.close()
    break_training.remove(run)  # not before a checkpoint says that the run has ended
    if run.writes:
        send()  # what the log held back
    workers.any(False)  # the chief is the last to go
    say(f"{run.folder}: finished after step {progress.step}; best epoch {progress.best_epoch}.")
    return progress


def _train_epoch(
    run: Run,
    steps: Steps,
    iterator: Any,
    progress: Progress,
    per_epoch: int,
    guard: Guard,
    save: Callable[[], None],
    stop_if_asked: Callable[[], None],
    watcher: Watcher,
    stall: Stall,
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
        with stall.watched():
            result = steps.train(iterator, progress.step, count)
        guard.losses(progress, result)
        if result.skipped:
            last = progress.step + count - 1
            several = f"{result.skipped} of the steps {progress.step} to {last}"
            say(_SKIPPED.format(several if count > 1 else f"Step {last}"))
        progress.step += count
        progress.epoch_losses += [float(v) for v in result.losses]
        so_far = np.array(progress.epoch_confusion or np.zeros_like(result.confusion))
        progress.epoch_confusion = (so_far + result.confusion).tolist()
        watcher.steps(progress, result, time.perf_counter() - began, count)
        if progress.step == end:
            return
        if config.checkpoint_steps and progress.step % config.checkpoint_steps == 0:
            save()
        stop_if_asked()


class _Silent:
    """Stands for the watcher where another worker has it."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None
