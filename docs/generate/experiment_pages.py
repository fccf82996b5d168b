"""The experiment's keys, the networks' knobs, and the experiments that come with flexseg."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from markdown_text import code, escape, table

from models import registry
from train import shipped
from train.experiment import Experiment

_HEAD = ("key", "value", "default", "meaning")


def experiment() -> str:
    """The page of every key of an experiment."""
    lines = [
        "# The experiment",
        "",
        "An experiment is a YAML file of sections and keys; what is not named keeps its default. "
        "As a flag of [flexseg train](commands/train.md) a key is written "
        "`--config.SECTION.KEY=VALUE`, and goes before the file. A key that does not exist is an "
        "error that names the nearest one. The run directory keeps the resolved file, "
        "`experiment.yaml`, with every key.",
        "",
        "```yaml",
        "model: {name: flex_unet, base_filters: 32, levels: 6}",
        "optimizer: {learning_rate: 5.0e-4}",
        "train: {epochs: 100, patience: 15}",
        "```",
        "",
    ]
    for section in dataclasses.fields(Experiment):
        config = getattr(Experiment(), section.name)
        lines += [f"## {section.name}", "", escape(_summary(type(config))), ""]
        lines += [table(_HEAD, _rows(config, f"{section.name}.")), ""]
        if section.name == "model":
            lines += ["The knobs of each network stand on [its own page](networks.md).", ""]
    return "\n".join(lines)


def networks() -> str:
    """The page of the networks and their knobs."""
    lines = [
        "# Networks",
        "",
        "`model.name` in the [experiment](experiment.md) names the network, the other keys of the "
        "section `model` are its knobs. `flexseg models` lists parameters and multiply-adds, "
        "`flexseg inspect --model=NAME` shows one level by level.",
        "",
    ]
    rows = [(f"[{a.name}](#{a.name})", escape(a.summary)) for a in registry.ARCHITECTURES.values()]
    lines += [table(("network", "what it is"), rows), ""]
    for architecture in registry.ARCHITECTURES.values():
        config = architecture.config()
        lines += [
            f"## {architecture.name} {{ #{architecture.name} }}",
            "",
            escape(architecture.summary) + ".",
            "",
            f"With its defaults both sides of what the network sees must be multiples of "
            f"{config.size_divisor} pixels and at least {config.size_minimum}.",
            "",
            table(_HEAD, _rows(config, "model.")),
            "",
        ]
    return "\n".join(lines)


def shipped_experiments() -> str:
    """The page of the experiments that come with the package, in full."""
    lines = [
        "# Experiments that come with flexseg",
        "",
        "`flexseg train --experiment=NAME` takes them by name. `published_...` are the "
        "hyper-parameters of older projects as they were published, `flexseg_...` are recipes for "
        "short trainings on the same data.",
        "",
    ]
    for name in shipped.names():
        with open(shipped.find(name), encoding="utf-8") as file:
            lines += [f"## {name}", "", "```yaml", file.read().strip(), "```", ""]
    return "\n".join(lines)


def _summary(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


def _rows(config: Any, prefix: str) -> list[tuple[str, str, str, str]]:
    hints = typing.get_type_hints(type(config))
    return [
        (
            code(prefix + field.name),
            _values(hints[field.name], field),
            code(_text(getattr(config, field.name))),
            escape(field.metadata["doc"]),
        )
        for field in dataclasses.fields(config)
        if "doc" in field.metadata
    ]


def _values(kind: Any, field: dataclasses.Field[Any]) -> str:
    """What a key may be, in words."""
    if field.metadata["choices"]:
        return ", ".join(code(c) for c in field.metadata["choices"])
    text = _kind(kind)
    minimum, below = field.metadata["minimum"], field.metadata["below"]
    if minimum is not None:
        text += f", from {minimum}"
    if below is not None:
        text += " to 1" if below == 1.000001 else f" below {below}"
    return text


def _kind(kind: Any) -> str:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        inner = next(a for a in arguments if a is not type(None))
        return f"{_kind(inner)} or `none`"
    if typing.get_origin(kind) is tuple:
        if Ellipsis in arguments:
            return f"list of {_kind(arguments[0])}s"
        return f"{_kind(arguments[0])}s with commas, {len(arguments)} of them"
    return {bool: "`true` or `false`", int: "whole number", float: "number", str: "text"}[kind]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    return str(value)
