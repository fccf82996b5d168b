"""YAML for people to read: values on one line, comments wrapped."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

_WIDTH = 98


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 20)
    return text.removesuffix("...\n").rstrip()


def comment(text: str, indent: str = "", hanging: str = "") -> list[str]:
    """Text as lines of a comment.

    Args:
      text: one paragraph.
      indent: before every line.
      hanging: before the text of every line but the first.
    """
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# {hanging}",
        break_long_words=False,
        break_on_hyphens=False,
    )
