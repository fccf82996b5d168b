"""Everything that a report shows of a run, read from its directory; without TensorFlow.

A run that is still training, has no evaluation or no previews, or was made by an older release,
lacks some of it: what is not there is empty here. What is there and cannot be read is a note.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from export.reports import evaluation_facts, run_settings
from export.reports.evaluation_facts import Evaluation
from export.reports.run_settings import Setting
from flexseg_errors import FlexsegError
from pipelines import storage
from train import film, postprocessing, runs, software
from train.runs import Run
from train.software import Used

History = Mapping[str, tuple[float | None, ...]]

_HISTORY = "history.json"
_EVALUATIONS = "evaluation"
_STRIP = "strip_"  # before the names of the strips among the previews


@dataclasses.dataclass(frozen=True)
class Course:
    """How far a run has come.

    Attributes:
      epochs: that are done, as far as its history goes.
      planned: epochs at most.
      step: of its newest checkpoint; None where it has none.
      ended_by: why it ended, a word of `progress.Progress`; "" where it has not, or does not say.
      best_epoch: counted from 0; None where none is kept yet.
      monitored: the figure that decided.
      best: what the best epoch reached in it.
    """

    epochs: int
    planned: int
    step: int | None
    ended_by: str
    best_epoch: int | None
    monitored: str
    best: float | None


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """A run, as far as its directory tells.

    Attributes:
      name: the last part of its path.
      run: what it is.
      settings: all keys of its experiment.
      history: figure -> a value for each epoch.
      course: how far it has come.
      evaluations: the splits that it was scored on, test first, then valid.
      strips: paths of its film strips.
      cleaning: what is done to class ids, in the words of its file; None for nothing.
      software: what it was trained with, in the order of its steps.
      notes: what could not be read, in sentences.
    """

    name: str
    run: Run
    settings: tuple[Setting, ...]
    history: History
    course: Course
    evaluations: tuple[Evaluation, ...]
    strips: tuple[str, ...]
    cleaning: tuple[str, ...] | None
    software: tuple[Used, ...]
    notes: tuple[str, ...]

    @property
    def changed(self) -> tuple[Setting, ...]:
        """The settings that differ from their defaults."""
        return tuple(s for s in self.settings if s.differs)

    @property
    def has_weights(self) -> bool:
        return storage.is_file(self.run.path(runs.BEST_WEIGHTS))

    def evaluation(self, split: str) -> Evaluation | None:
        """What was found on a split, if it was scored."""
        return next((e for e in self.evaluations if e.split == split), None)


def read(folder: str) -> RunFacts:
    """Reads a run directory.

    Raises:
      FlexsegError: where it is none, or the files that make it one are damaged.
    """
    folder = folder.rstrip("/") or folder
    run = runs.load(folder)
    notes: list[str] = []
    history = _history(run, notes)
    return RunFacts(
        name=name_of(folder),
        run=run,
        settings=run_settings.settings_of(run.experiment),
        history=history,
        course=_course(run, history, notes),
        evaluations=_evaluations(run, notes),
        strips=_strips(run),
        cleaning=_cleaning(run, notes),
        software=_software(run, notes),
        notes=tuple(notes),
    )


def name_of(folder: str) -> str:
    """What to call a run: the last part of its path, also where that is `.`."""
    path = folder if storage.is_remote(folder) else os.path.abspath(folder)
    return path.rstrip("/").rpartition("/")[2] or path


def distinct_names(folders: Sequence[str]) -> list[str]:
    """Names for several runs: of each as many last parts of its path as tell it from the others."""
    parts = [
        (f if storage.is_remote(f) else os.path.abspath(f)).rstrip("/").split("/") for f in folders
    ]

    def tail(place: int, length: int) -> str:
        return "/".join(parts[place][-length:])

    names = []
    for place, own in enumerate(parts):
        others = [i for i in range(len(parts)) if i != place]
        lengths = range(1, len(own) + 1)
        telling = (n for n in lengths if all(tail(place, n) != tail(i, n) for i in others))
        names.append(tail(place, next(telling, len(own))))
    return names


def _history(run: Run, notes: list[str]) -> History:
    """The figures of each epoch; all of one length, those that are missing at the end None."""
    path = run.path(_HISTORY)
    if not storage.is_file(path):
        return {}
    try:
        found = {
            str(name): tuple(evaluation_facts.number(v) for v in values)
            for name, values in json.loads(storage.read_bytes(path)).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        notes.append(f"{_HISTORY} is damaged ({error}): there are no curves.")
        return {}
    epochs = max(map(len, found.values()), default=0)
    return {name: values + (None,) * (epochs - len(values)) for name, values in found.items()}


def _course(run: Run, history: History, notes: list[str]) -> Course:
    config = run.experiment.train
    best: dict[str, Any] = {}
    if storage.is_file(run.path(runs.BEST)):
        try:
            best = json.loads(storage.read_bytes(run.path(runs.BEST)))
            best = {"epoch": int(best["epoch"]), config.monitor: best.get(config.monitor)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            notes.append(f"{runs.BEST} is damaged ({error}): the best epoch is not marked.")
            best = {}
    state = _newest_state(run)
    return Course(
        epochs=max(map(len, history.values()), default=0),
        planned=config.epochs,
        step=state.get("step"),
        ended_by=str(state.get("ended_by") or ""),
        best_epoch=best.get("epoch"),
        monitored=config.monitor,
        best=evaluation_facts.number(best.get(config.monitor)),
    )


def _newest_state(run: Run) -> dict[str, Any]:
    """What the newest checkpoint says of where the run stands; {} where none says anything."""
    folder = run.path(runs.CHECKPOINTS)
    for name in sorted((n for n in storage.names(folder) if n.startswith("step-")), reverse=True):
        try:
            state = json.loads(storage.read_bytes(storage.join(folder, name, "state.json")))
            return {"step": int(state["step"]), "ended_by": state.get("ended_by")}
        except (OSError, FlexsegError, ValueError, TypeError, KeyError):
            continue  # being written, being removed, or torn: the one before says enough
    return {}


def _evaluations(run: Run, notes: list[str]) -> tuple[Evaluation, ...]:
    found = []
    for name in sorted(storage.names(run.path(_EVALUATIONS))):
        if not name.endswith(".json"):
            continue
        path = run.path(_EVALUATIONS, name)
        table = f"{path.removesuffix('.json')}_images.csv"
        try:
            lines = storage.read_bytes(table) if storage.is_file(table) else None
            found.append(evaluation_facts.read(storage.read_bytes(path), lines))
        except (FlexsegError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            notes.append(
                f"{_EVALUATIONS}/{name} is damaged ({error!r}) and left out; run flexseg evaluate "
                "again, or remove it."
            )
    order = {"test": 0, "valid": 1}
    return tuple(sorted(found, key=lambda e: (order.get(e.split, 2), e.split)))


def _strips(run: Run) -> tuple[str, ...]:
    names = storage.names(run.path(film.SHEETS))
    found = sorted(n for n in names if n.startswith(_STRIP) and n.endswith(".png"))
    return tuple(run.path(film.SHEETS, name) for name in found)


def _cleaning(run: Run, notes: list[str]) -> tuple[str, ...] | None:
    try:
        chosen = postprocessing.of_run(run)
    except FlexsegError as error:
        notes.append(str(error))
        return None
    return (
        None if chosen.is_identity else evaluation_facts.rules_in_words(chosen, run.label_map.names)
    )


def _software(run: Run, notes: list[str]) -> tuple[Used, ...]:
    try:
        return software.read(run)
    except FlexsegError as error:
        notes.append(str(error))
        return ()
