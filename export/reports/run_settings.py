"""The settings of a run as text: each with its default, and what it means."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from train import experiment as experiments
from train.experiment import Experiment
from train.runs import Run


@dataclasses.dataclass(frozen=True)
class Setting:
    """One key of an experiment: its value and its default as text, and what it means.

    The default is that of the run's own network; a network's name has the one that is taken where
    none is named.
    """

    key: str
    value: str
    default: str
    meaning: str

    @property
    def differs(self) -> bool:
        return self.value != self.default


def settings_of(experiment: Experiment) -> tuple[Setting, ...]:
    """All keys of an experiment in the order of its sections."""
    network = {"model": {"name": experiment.model.name}}
    own = _flat(experiments.to_dict(experiment))
    default = _flat(experiments.to_dict(experiments.from_dict(network)))
    default["model.name"] = Experiment().model.name
    meanings = _meanings(experiment)
    return tuple(
        Setting(key, shown(value), shown(default[key]), meanings.get(key, ""))
        for key, value in own.items()
    )


def shown(value: Any) -> str:
    """A value as YAML shows it in a line; floats as short as they are exact."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower() if value is not None else "none"
    return repr(value) if isinstance(value, float) else str(value)


def preparation(run: Run) -> str:
    """What was done to the sources, in a few words."""
    return ", ".join(run.preparation.in_words()) or "none"


def _meanings(experiment: Experiment) -> dict[str, str]:
    """Key -> the sentence that `flexseg train --help` says of it."""
    meanings = {}
    for section in dataclasses.fields(experiment):
        config = getattr(experiment, section.name)
        for part in (config, getattr(config, "network", None)):
            for field in dataclasses.fields(part) if part is not None else ():
                if "doc" in field.metadata:
                    meanings[f"{section.name}.{field.name}"] = field.metadata["doc"]
    return meanings


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for name, part in data.items() for key, value in part.items()}
