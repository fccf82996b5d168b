"""From where a run goes on, on every worker, and what there is to say about it."""

from __future__ import annotations

import dataclasses
import shlex
import time
from typing import TYPE_CHECKING, Any

from absl import flags

from flexseg_errors import FlexsegError
from pipelines import storage
from train import checkpoints, runs
from train.console import say
from train.experiment import TrainConfig
from train.progress import Progress
from train.runs import Run

if TYPE_CHECKING:
    import tensorflow as tf

    from train.workers import Workers

_SHARED_SECONDS = 5  # until a file of another host must be seen; network file systems lag
_PATIENCE, _EPOCHS = "patience", "epochs"  # why a run ended; see Progress.ended_by


def restore(run: Run, variables: tf.train.Checkpoint, workers: Workers) -> Progress:
    """Goes back to the newest checkpoint that is whole, the same on all workers.

    Raises:
      FlexsegError: where it does not fit, or a worker does not see it; where there is none although
        there were some, and the run did not begin with drawn weights.
    """
    folder = run.path(runs.CHECKPOINTS)
    last = workers.on_chief(lambda: checkpoints.latest(folder, say))
    step = workers.of_chief(checkpoints.step_of(last) if last else -1)
    if step < 0:
        return Progress()
    path = checkpoints.at(folder, step)

    def read() -> dict[str, Any]:
        if not run.writes:
            see(run, lambda: not checkpoints.damage(path), path)
        return checkpoints.restore(path, variables)

    return _progress(workers.on_all(read), path)


def see(run: Run, condition: Any, what: str) -> None:
    """Waits a little until this worker sees what the chief wrote.

    Raises:
      FlexsegError: where it does not.
    """
    for _ in range(_SHARED_SECONDS):
        if condition():
            return
        time.sleep(1)
    if not condition():
        raise FlexsegError(
            f"This worker does not see {what}, which the first worker wrote. --run={run.folder} "
            "must be the same folder for all workers: put it on storage that they share, or give "
            "an s3:// URL."
        )


def is_over(progress: Progress, config: TrainConfig, total: int) -> bool:
    """Whether a finished run is still that, should patience or epochs have been changed since."""
    if not progress.finished:
        return False
    if progress.ended_by == _EPOCHS:
        return progress.step >= total
    if progress.ended_by == _PATIENCE:
        return progress.step >= total or 0 < config.patience <= progress.stale
    return True


def kept(run: Run) -> str:
    """What there is to go on from, for the person."""
    folder = storage.join(run.folder, runs.CHECKPOINTS)
    try:
        steps = [
            int(name.removeprefix("step-"))
            for name in storage.names(folder)
            if name.removeprefix("step-").isdecimal()
        ]
    except FlexsegError as error:
        return f"Which checkpoint is the last cannot be seen: {error}"
    if not steps:
        return "There is no checkpoint yet."
    return f"The last checkpoint is that of step {max(steps)}."


def command(values: flags.FlagValues) -> str:
    """The command line that these flags were given by, for a shell."""
    given = [f"--{name}={values[name].value}" for name in values if values[name].present]
    return shlex.join(["flexseg", "train", *given])


def _progress(state: dict[str, Any], path: str) -> Progress:
    known = {field.name for field in dataclasses.fields(Progress)}
    unknown = sorted(set(state) - known)
    if unknown:
        raise FlexsegError(
            f"The checkpoint {path} says {', '.join(unknown)}, which this version of flexseg does "
            "not know. Go on with the version that began the run."
        )
    return Progress(**state)
