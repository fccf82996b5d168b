"""Documented, checked fields for the configs of architectures. Imports no Keras.

A config is a frozen dataclass whose fields are made by `knob` and which calls `check` when it is
made. What the fields say of themselves is all that the command line's help shows, so it must be
readable without loading a deep learning framework.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from flexseg_errors import FlexsegError, nearest

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "mish", "selu", "silu", "swish")
NORMALIZATIONS = ("none", "batch", "group", "instance")
INPUT_NORMALIZATIONS = ("unit", "none")


def knob(
    default: Any,
    doc: str,
    *,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field that says what it is for and which values it takes.

    Args:
      default: the value where none is given; immutable (a tuple, not a list).
      doc: what the knob does, with its unit, for the person who turns it.
      choices: the names it takes; empty for any.
      minimum: the least value, of each item where the knob is a tuple.
      below: what the value, or each item, must stay below.
    """
    metadata = {"doc": doc, "choices": tuple(choices), "minimum": minimum, "below": below}
    return dataclasses.field(default=default, metadata=metadata)


def check(config: Any) -> None:
    """Holds every knob of a config to its type, its choices and its range.

    Raises:
      FlexsegError: a value does not fit; the message names the field and what would.
    """
    types = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if "doc" not in field.metadata:
            continue
        _check_type(field.name, value, types[field.name])
        for item in value if isinstance(value, tuple) else (value,):
            _check_value(field, item)


def _check_type(name: str, value: Any, expected: Any) -> None:
    options = typing.get_args(expected)
    if type(None) in options:
        if value is None:
            return
        expected = next(option for option in options if option is not type(None))
    if typing.get_origin(expected) is tuple:
        kind = typing.get_args(expected)[0]
        fits = isinstance(value, tuple) and all(_is_a(item, kind) for item in value)
        wanted = f"a list of {kind.__name__} values"
    else:
        fits, wanted = _is_a(value, expected), f"a value of type {expected.__name__}"
    if not fits:
        raise FlexsegError(f"{name} must be {wanted}, not {value!r}.")


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool):  # a bool is an int to Python, though never meant as one
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _check_value(field: dataclasses.Field[Any], value: Any) -> None:
    choices = field.metadata["choices"]
    minimum, below = field.metadata["minimum"], field.metadata["below"]
    if value is None:
        return
    if choices and value not in choices:
        raise FlexsegError(
            f'{field.name} "{value}" is unknown; known are {", ".join(choices)}.'
            f"{nearest(value, choices)}"
        )
    # Written so that a NaN, for which every comparison is false, is refused.
    if minimum is not None and not value >= minimum:
        raise FlexsegError(f"{field.name} must be at least {minimum}, not {value}.")
    if below is not None and not value < below:
        raise FlexsegError(f"{field.name} must be less than {below}, not {value}.")
