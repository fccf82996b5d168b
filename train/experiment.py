"""What a run is made of: typed sections, read from YAML and from flags `--config.x.y=value`.

One conversion serves both, so that a value means the same wherever it stands. An unknown key is an
error that names the nearest known one. This module imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from absl import flags

from flexseg_errors import FlexsegError, nearest
from models import registry
from train import shipped
from train.sections import (
    AugmentConfig,
    DataConfig,
    DistributeConfig,
    InferenceConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run, apart from the dataset."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    distribute: DistributeConfig = dataclasses.field(default_factory=DistributeConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)


def from_dict(data: Any, origin: str = "experiment") -> Experiment:
    """Builds an experiment from nested plain data; what is not named keeps its default.

    Raises:
      FlexsegError: naming the key that is unknown, or whose value does not fit.
    """
    return _build(Experiment, data, "", origin)


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain data, complete; `from_dict` is its inverse."""
    data = _plain(dataclasses.asdict(experiment))
    network = data["model"].pop("network")
    data["model"].update(network)
    return data


def load(path: str | None, overrides: Mapping[str, str] | None = None) -> Experiment:
    """Reads an experiment: defaults, over them a YAML file, over that flags.

    Args:
      path: the file, or the name of an experiment that comes with flexseg; None for the defaults.
      overrides: dotted key -> value as text, read as YAML reads it.
    """
    data: Any = {}
    path = shipped.find(path) if path else None
    origin = path or "--config"
    if path:
        try:
            with open(path, encoding="utf-8") as file:
                data = yaml.safe_load(file) or {}
        except OSError as error:
            raise FlexsegError(f"--experiment={path} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise FlexsegError(f"--experiment={path} is not a YAML file: {error}") from error
    _build(Experiment, data, "", origin)  # so that an error in the file is told as the file's
    for key, text in (overrides or {}).items():
        *parents, leaf = key.split(".")
        section = data
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
        try:
            section[leaf] = yaml.safe_load(text)
        except yaml.YAMLError:
            section[leaf] = text
        origin = "--config"
    return from_dict(data, origin)


def dump(experiment: Experiment) -> str:
    """The experiment as YAML, complete, the form that `load` reads."""
    return yaml.safe_dump(to_dict(experiment), sort_keys=False, default_flow_style=None)


def differences(one: Experiment, other: Experiment) -> list[str]:
    """The keys in which two experiments differ, with both values, as text."""
    flat_one, flat_other = dict(_flat(to_dict(one))), dict(_flat(to_dict(other)))
    keys = list(dict.fromkeys([*flat_one, *flat_other]))
    return [
        f"{key}: {flat_one.get(key)!r}, now {flat_other.get(key)!r}"
        for key in keys
        if flat_one.get(key) != flat_other.get(key)
    ]


def define_flags(values: flags.FlagValues) -> None:
    """Defines a flag `--config.x.y` for every key of every architecture's experiment."""
    for key, uses in _leaves().items():
        texts: dict[str, list[str]] = {}  # what it means -> the architectures that mean it
        for name, field, default in uses:
            shown = "" if default in (None, ()) else f" Default: {_text(default)}."
            texts.setdefault(field.metadata["doc"] + shown, []).append(name)
        parts = [
            f"({', '.join(names)}) {text}" if names[0] else text for text, names in texts.items()
        ]
        flags.DEFINE_string(f"config.{key}", None, " ".join(parts), flag_values=values)


def forms() -> dict[str, str]:
    """Key -> what its value looks like: choices as a|b, a number as INT or FLOAT, lists as X,..."""
    found = {}
    for key, uses in _leaves().items():
        words: dict[str, None] = {}
        for _, field, _ in uses:
            words |= dict.fromkeys(field.metadata["choices"] or [_form(str(field.type))])
        found[key] = "|".join(words)
    return found


def _form(kind: str) -> str:
    kind, _, optional = kind.partition(" | ")
    form = _FORMS.get(kind) or f"{_FORMS[kind[len('tuple[') : -len(', ...]')]]},..."
    return f"none|{form}" if optional else form


_FORMS = {
    "bool": "true|false",
    "int": "INT",
    "float": "FLOAT",
    "str": "TEXT",
    "Size": "HEIGHT,WIDTH",
}


def overrides_from(values: flags.FlagValues) -> dict[str, str]:
    """The experiment's keys that were given as flags."""
    return {
        name.removeprefix("config."): str(values[name].value)
        for name in values
        if name.startswith("config.") and values[name].value is not None
    }


def _leaves() -> dict[str, list[tuple[str, dataclasses.Field[Any], Any]]]:
    """Key -> (architecture, field, default) of each that has it; the architecture is "" for all."""
    leaves: dict[str, list[tuple[str, dataclasses.Field[Any], Any]]] = {}
    for section in dataclasses.fields(Experiment):
        config = getattr(Experiment(), section.name)
        for field in dataclasses.fields(config):
            if field.name != "network":
                use = ("", field, getattr(config, field.name))
                leaves[f"{section.name}.{field.name}"] = [use]
    for architecture in registry.ARCHITECTURES.values():
        config = architecture.config()
        for field in dataclasses.fields(config):
            use = (architecture.name, field, getattr(config, field.name))
            leaves.setdefault(f"model.{field.name}", []).append(use)
    return leaves


def _build(kind: type[Any], data: Any, path: str, origin: str) -> Any:
    if data is None:  # a section's name with nothing below it
        data = {}
    if not isinstance(data, Mapping):
        where = f'"{path}"' if path else "it"
        raise FlexsegError(f"{origin}: {where} must hold keys and values, not {data!r}.")
    if kind is ModelConfig:
        return _build_model(data, path, origin)
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    values = {}
    for key, value in data.items():
        _refuse_unknown(key, fields, path, origin)
        full = f"{path}.{key}" if path else key
        if dataclasses.is_dataclass(hints[key]):
            values[key] = _build(hints[key], value, full, origin)
        else:
            values[key] = _convert(value, hints[key], full, origin)
    return _checked(kind, values, path, origin)


def _build_model(data: Mapping[str, Any], path: str, origin: str) -> ModelConfig:
    architecture = registry.find(str(data.get("name", ModelConfig().name)))
    hints = typing.get_type_hints(architecture.config)
    knobs, own = {}, {}
    for key, value in data.items():
        _refuse_unknown(key, {"name", "head", *hints}, path, f"{origin} ({architecture.name})")
        if key in ("name", "head"):
            own[key] = str(value)
        else:
            knobs[key] = _convert(value, hints[key], f"{path}.{key}", origin)
    network = _checked(architecture.config, knobs, path, origin)
    return _checked(ModelConfig, {**own, "network": network}, path, origin)


def _refuse_unknown(key: Any, known: set[str], path: str, origin: str) -> None:
    if key not in known:
        where = f'"{path}" has no key' if path else "there is no section"
        raise FlexsegError(
            f'{origin}: {where} "{key}"; known are {", ".join(sorted(known))}.'
            + nearest(str(key), known)
        )


def _checked(kind: type[Any], values: dict[str, Any], path: str, origin: str) -> Any:
    try:
        return kind(**values)
    except FlexsegError as error:
        raise FlexsegError(f"{origin}: {path}.{error}" if path else f"{origin}: {error}") from error


def _convert(value: Any, kind: Any, path: str, origin: str) -> Any:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), path, origin)
    if typing.get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        items = items if isinstance(items, (list, tuple)) else [items]
        fixed = Ellipsis not in arguments
        if fixed and len(items) != len(arguments):
            raise FlexsegError(
                f"{origin}: {path} needs {len(arguments)} values, such as "
                f"{','.join('256' for _ in arguments)}; got {value!r}."
            )
        return tuple(_convert(item, arguments[0], path, origin) for item in items)
    wrong = FlexsegError(f"{origin}: {path} must be {_KINDS[kind]}; got {value!r}.")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if isinstance(value, bool) and kind is not str:
        raise wrong
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise wrong
    if isinstance(value, (list, tuple, Mapping)):
        raise wrong  # str() would make text of them
    if kind is str and not isinstance(value, str):
        value = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    try:
        return kind(value)  # YAML reads 1e-3 as text; float() reads it as a number
    except (TypeError, ValueError) as error:
        raise wrong from error


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _flat(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        full = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _flat(value, full)
        else:
            yield full, value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
