"""What is known of a key of the older projects' configs, and the forms that values have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from train.old_config.ini import Word


@dataclasses.dataclass(frozen=True)
class Key:
    """What the older project knew of a key.

    Attributes:
      kind: a key of `KINDS`, the form that its value must have.
      default: what was taken where it is missing or could not be read; if `required`, what is
        taken here instead.
      place: where what comes of it stands: `SECTION.KEY` of the experiment, "label_map",
        "augmentation", the name of a command, or "" for no place of its own.
      idle: why it had no effect there; "" where it had.
      gap: why nothing here does the same; "" where something does.
      required: whether the old program stopped without it.
      words: the names that it takes, for a value without quotes; empty for any.
    """

    kind: str
    default: Any = None
    place: str = ""
    idle: str = ""
    gap: str = ""
    required: bool = False
    words: tuple[str, ...] = ()


Table = Mapping[tuple[str, str], Key]


def _flag(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int)):  # `if value:` was all they asked
        return bool(value)
    raise ValueError


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError
    if abs(value) > 1 << 40:
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    if isinstance(value, int) and abs(value) > 1 << 60:
        raise ValueError
    if not math.isfinite(value):
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, (str, Word)):
        raise ValueError
    return value.text if isinstance(value, Word) else value


def _list(item: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def read(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return [item(v) for v in value]

    return read


def _pair(item: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    def read(value: Any) -> tuple[Any, Any]:
        first, second = _list(item)(value)
        return first, second

    return read


def _or_none(item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else item(value)


def _color(value: Any) -> tuple[int, int, int]:
    red, green, blue = _list(_whole)(value)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise ValueError
    return red, green, blue


def _color_map(value: Any) -> dict[tuple[int, int, int], Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError
    return {_color(color): index for color, index in value.items()}


def _colors(value: Any) -> list[tuple[int, int, int]]:
    if isinstance(value, dict):  # colour -> anything, or name -> colour
        value = list(value) if all(isinstance(k, tuple) for k in value) else list(value.values())
    return _list(_color)(value)


def _names(value: Any) -> list[str]:
    return [_text(value)] if isinstance(value, (str, Word)) else _list(_text)(value)


KINDS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "flag": (_flag, "True or False"),
    "whole": (_whole, "a whole number"),
    "whole?": (_or_none(_whole), "a whole number or None"),
    "number": (_number, "a number"),
    "number?": (_or_none(_number), "a number or None"),
    "text": (_text, "text in quotes"),
    "text?": (_or_none(_text), "text in quotes, or None"),
    "names": (_names, 'a list such as ["dice_coef"]'),
    "wholes": (_list(_whole), "a list of whole numbers"),
    "numbers": (_list(_number), "a list of numbers"),
    "pair": (_pair(_whole), "two whole numbers such as (3,3)"),
    "pair?": (_or_none(_pair(_whole)), "two whole numbers such as (3,3), or None"),
    "points": (_list(_pair(_number)), "a list of points such as [(0.5,0.5)]"),
    "color map": (_color_map, "colors and class ids such as {(0,0,0):0,(255,0,0):1}"),
    "colors?": (_or_none(_colors), "a list of colors such as [(255,0,0)]"),
    "any": (lambda value: value, "anything"),
}
