"""A training that begins with another run's best weights: fine-tuning.

Every variable is taken whose name and shape are the same in both networks. What is left begins as
it was drawn: the head where the classes differ, the first convolution where the channels do.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from flexseg_errors import FlexsegError
from pipelines import storage
from train import runs
from train.console import say
from train.progress import Progress
from train.runs import Origin, Run

if TYPE_CHECKING:
    import keras

    from train.loop import Steps

_HEAD = "logits"  # how the layers that make logits are called, in every architecture
_TOLD = 12


def plan(run: Run, source: str) -> Run:
    """The run with the note that it begins from another one.

    Where it has begun already, what it began from is not looked at again, and need not be there.

    Args:
      run: what will be trained.
      source: the other run's directory, a path or a URL.

    Raises:
      FlexsegError: where the other has no weights.
    """
    if not storage.is_remote(source):
        source = os.path.abspath(source)
    if storage.is_file(storage.join(run.folder, runs.EXPERIMENT)):
        there = runs.load(run.folder).init_from
        if there and there.run == source:
            return dataclasses.replace(run, init_from=there)
    if source == run.folder or source == os.path.abspath(run.folder):
        raise FlexsegError(
            f"--init_from={source} is the run itself. To go on with it, leave --init_from away; to "
            "begin from it, give a new --run."
        )
    other = runs.load(source)
    return dataclasses.replace(run, init_from=Origin(source, _sha256(other)))


def apply(run: Run, model: keras.Model) -> None:
    """Gives a new network the weights of the run that it begins from, as far as they fit.

    Raises:
      FlexsegError: where no kernel fits, or the other run has trained on since this one was begun.
    """
    if not run.init_from:
        return
    other = runs.load(run.init_from.run)
    if _sha256(other) != run.init_from.weights_sha256:
        raise FlexsegError(
            f"The best weights of {other.folder} are not those that {run.folder} was to begin with:"
            " it was trained on. Give a new --run."
        )
    theirs = {v.path: v.numpy() for v in other.load_model().weights}
    taken, left = fitting(
        {name: value.shape for name, value in theirs.items()},
        {v.path: tuple(v.shape) for v in model.weights},
        same_classes=_classes(other) == _classes(run),
    )
    # A bias of the head may fit anything.
    if not any(theirs[name].ndim > 1 and not name.startswith(_HEAD) for name in taken):
        raise FlexsegError(
            f"--init_from={other.folder}: no kernel of its network ({_network(other)}) fits this "
            f"one ({_network(run)}). Use the same model.name and the same sizes."
        )
    for variable in model.weights:
        if variable.path in taken:
            variable.assign(theirs[variable.path].astype(np.float32))
    say(f"Begins with {len(taken)} of {len(model.weights)} variables of {other.folder}.")
    for name, reason in list(left.items())[:_TOLD]:
        say(f"  anew: {name} ({reason})")
    if len(left) > _TOLD:
        say(f"  and {len(left) - _TOLD} more")


def keep(run: Run, steps: Steps, send: Callable[[], None]) -> None:
    """Keeps the weights that a run begins with, so that it no longer needs what they are from.

    Raises:
      FlexsegError: where there are checkpoints already, and none is whole.
    """
    from train import checkpoints

    folder = run.path(runs.CHECKPOINTS)
    if checkpoints.latest(folder):
        return
    if checkpoints.begun(folder):
        checkpoints.latest(folder, say)
        raise FlexsegError(
            f"No checkpoint in {storage.join(run.folder, runs.CHECKPOINTS)} is whole. Give a new "
            "--run to begin again."
        )
    state = dataclasses.asdict(Progress())
    checkpoints.save(folder, 0, steps.checkpoint, state, run.experiment.train.keep_checkpoints)
    send()


def fitting(
    theirs: Mapping[str, tuple[int, ...]],
    ours: Mapping[str, tuple[int, ...]],
    *,
    same_classes: bool,
) -> tuple[set[str], dict[str, str]]:
    """Which variables can be taken, and why the others cannot.

    Args:
      theirs: name -> shape of the network that is taken from.
      ours: of the one that takes.
      same_classes: whether a logit means the same in both.
    """
    taken, left = set(), {}
    for name, shape in ours.items():
        if name not in theirs:
            left[name] = "the other has none"
        elif tuple(theirs[name]) != tuple(shape):
            left[name] = f"{list(shape)}, there {list(theirs[name])}"
        elif name.startswith(_HEAD) and not same_classes:
            left[name] = "the classes are others"
        else:
            taken.add(name)
    return taken, left


def _classes(run: Run) -> tuple[str, tuple[str, ...]]:
    return run.experiment.model.head, run.label_map.names


def _network(run: Run) -> str:
    knobs = dataclasses.asdict(run.experiment.model.network)
    shown = ", ".join(
        f"{key}={value}" for key, value in knobs.items() if key in ("base_filters", "levels")
    )
    return run.experiment.model.name + (f" with {shown}" if shown else "")


def _sha256(run: Run) -> str:
    path = storage.join(run.folder, runs.BEST_WEIGHTS)
    if not storage.is_file(path):
        raise FlexsegError(
            f"--init_from={run.folder} has no trained weights yet ({runs.BEST_WEIGHTS} is missing)."
        )
    return storage.sha256(path)
