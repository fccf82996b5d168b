"""Old projects' configs (INI) -> experiment, label map, augmentation plan and commands.

Decision: a value here is what the old program did, not what its file said, where the two differ;
the comment beside it says what the file said. A patience that never took effect is not made to.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import yaml

from flexseg_errors import FlexsegError
from models import registry
from pipelines import label_map as label_maps
from pipelines.label_map import LabelMap
from train import experiment as experiments
from train.console import say
from train.experiment import Experiment
from train.old_config import augmentation, ini, labels, sections, shell
from train.old_config.ini import is_old
from train.old_config.sections import Sections
from train.old_config.shell import Command
from train.old_config.values import Note, Values
from train.yaml_text import comment, flow

EXPERIMENT = "experiment.yaml"
LABEL_MAP = "label_map.yaml"
AUGMENTATION = "augmentation.yaml"
COMMANDS = "commands.txt"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What became of a config.

    Attributes:
      name: of its file, without folder.
      dialect: "flex" or "api".
      experiment: section -> key -> value, those that decide what is trained.
      label_map: its classes.
      augmentation: the plan in its YAML form; None where the config says nothing of it.
      commands: what does the same work, from the folder of the config.
      notes: what was odd.
    """

    name: str
    dialect: str
    experiment: Sections
    label_map: LabelMap
    augmentation: dict[str, Any] | None
    commands: tuple[Command, ...]
    notes: tuple[Note, ...]


def convert(path: str, folder: str = ".") -> Conversion:
    """Converts a config.

    Args:
      path: of the config.
      folder: where the files made of it lie, as the commands are to name it.

    Raises:
      FlexsegError: the file cannot be read, is no such config, holds code, or names no network.
    """
    values = Values(ini.read(path))
    experiment = sections.convert(values)
    label_map = labels.convert(values)
    plan, augmented = augmentation.convert(values)
    commands = shell.convert(values, augmented, folder)
    _note_size(values, experiment)
    values.note_idle()
    return Conversion(
        name=os.path.basename(path),
        dialect=values.dialect,
        experiment=experiment,
        label_map=label_map,
        augmentation=plan,
        commands=tuple(commands),
        notes=tuple(values.notes),
    )


def _note_size(values: Values, experiment: Sections) -> None:
    """Notes where the network cannot take the images, on which the old program stopped."""
    size = values.get("model", "image_height"), values.get("model", "image_width")
    network = experiments.from_dict(experiment).model.network
    try:
        registry.check_size(size, network.size_divisor, network.size_minimum)
    except FlexsegError as error:
        values.note(
            "prepare", f"[model] image_height and image_width could not have worked: {error}"
        )


def load_experiment(path: str | None, overrides: Mapping[str, str] | None = None) -> Experiment:
    """Reads an experiment as `experiment.load` does, or one that a config of old is, and tells it.

    Args:
      path: of YAML or of a config; None for the defaults.
      overrides: dotted key -> value as text; they go before what the file says.
    """
    if not path or not is_old(path):
        return experiments.load(path, overrides)
    conversion = convert(path)
    say(
        f"{path} is a config of an older project. It is read as this experiment; flexseg "
        "convert-config writes it to a file, with the label map and the commands that go with it."
    )
    say(experiment_text(conversion).rstrip())
    converted = {
        f"{section}.{key}": flow(value)
        for section, keys in conversion.experiment.items()
        for key, value in keys.items()
    }
    return experiments.load(None, {**converted, **(overrides or {})})


def texts(conversion: Conversion) -> dict[str, str]:
    """File name -> text of every file that a conversion is written to."""
    result = {
        EXPERIMENT: experiment_text(conversion),
        LABEL_MAP: _commented(conversion, "label_map") + label_maps.dump(conversion.label_map),
        COMMANDS: _commands_text(conversion),
    }
    if conversion.augmentation is not None:
        plan = yaml.dump(
            conversion.augmentation, Dumper=_Plain, sort_keys=False, default_flow_style=None
        )
        result[AUGMENTATION] = _commented(conversion, "augmentation") + plan
    return result


def experiment_text(conversion: Conversion) -> str:
    """The experiment as YAML, each note by its key, and those without a place at the head."""
    sections = conversion.experiment
    elsewhere = {"label_map", *_NOTED_COMMANDS}
    if conversion.augmentation is not None:
        elsewhere.add("augmentation")
    lines = _comment(
        f"Converted from {conversion.name}. Values are what the old program did; where its file "
        "said otherwise, a comment tells. What is not named here keeps flexseg's default."
    )
    for note in conversion.notes:
        if note.place not in elsewhere and note.place.partition(".")[0] not in sections:
            lines += _comment(note.text)
    for section, keys in sections.items():
        lines.append(f"{section}:")
        for note in conversion.notes:
            where, _, key = note.place.partition(".")
            if where == section and key not in keys:
                lines += _comment(note.text, "  ")
        for key, value in keys.items():
            for note in conversion.notes:
                if note.place == f"{section}.{key}":
                    lines += _comment(note.text, "  ")
            lines.append(f"  {key}: {flow(value)}")
    return "\n".join(lines) + "\n"


_COMMANDS = ("prepare", "train", "evaluate", "predict")
_NOTED_COMMANDS = ("prepare", "evaluate", "predict")  # training's notes are in the experiment


def _commented(conversion: Conversion, place: str) -> str:
    lines = _comment(f"Converted from {conversion.name}.")
    for note in conversion.notes:
        if note.place == place:
            lines += _comment(note.text)
    return "\n".join(lines) + "\n"


def _commands_text(conversion: Conversion) -> str:
    """The commands, each below its notes; a shell can run the file."""
    lines = _comment(
        f"Converted from {conversion.name}; run these in its folder, from which its paths start."
    )
    for name in _COMMANDS:
        lines.append("")
        for note in conversion.notes:
            if note.place == name and name in _NOTED_COMMANDS:
                lines += _comment(note.text)
        lines += [str(command) for command in conversion.commands if command.name == name]
    return "\n".join(lines) + "\n"


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _comment(text: str, indent: str = "") -> list[str]:
    return comment(text, indent, hanging="  ")
