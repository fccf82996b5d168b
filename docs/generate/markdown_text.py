"""Plain text, docstrings and tables as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")
_CODE = re.compile(r"(`[^`]+`)")


def escape(text: str) -> str:
    """Text as Markdown that shows it as it is; what stands between backticks stays code."""
    parts = _CODE.split(text)
    return "".join(
        part.replace("|", "&#124;") if i % 2 else _SPECIAL.sub(r"\\\1", part)
        for i, part in enumerate(parts)
    )


def code(text: str) -> str:
    """Text as code within a line, a cell of a table included; "" stays ""."""
    if not text:
        return ""
    ticks = "``" if "`" in text else "`"
    text = " ".join(text.split()).replace("|", "&#124;") if "|" in text else " ".join(text.split())
    if "&#124;" in text:  # an entity is not read within backticks
        return f"<code>{text.replace('<', '&lt;')}</code>"
    return f"{ticks}{text}{ticks}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(" ".join(c.split()) for c in line) + " |" for line in lines)


def prose(docstring: str) -> str:
    """A docstring as Markdown: paragraphs stay paragraphs, what is indented becomes a code block.

    A line of its own that ends in a colon and stands before an indented block introduces it.
    """
    result: list[str] = []
    block: list[str] = []

    def close() -> None:
        if not block:
            return
        text = textwrap.dedent("\n".join(block)).strip("\n")
        language = "sh" if re.match(r"flexseg |python |pip ", text) else "text"
        result.extend(["", f"```{language}", text, "```", ""])
        block.clear()

    for line in textwrap.dedent(docstring).strip("\n").split("\n"):
        if line.startswith("  ") or (block and not line.strip()):
            block.append(line)
        else:
            close()
            result.append(escape(line))
    close()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(result)).strip()


def sections(docstring: str) -> dict[str, str]:
    """A Google-style docstring in parts; "" is what stands before Attributes, Args and so on."""
    parts: dict[str, list[str]] = {"": []}
    name = ""
    for line in docstring.split("\n"):
        match = re.fullmatch(r"(Attributes|Args|Returns|Raises):", line)
        if match:
            name = match[1]
            parts[name] = []
        else:
            parts[name].append(line)
    return {key: "\n".join(lines).strip("\n") for key, lines in parts.items()}


def entries(text: str) -> dict[str, str]:
    """Name -> meaning of the indented `name: meaning` lines of a docstring's section."""
    result: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(text).split("\n"):
        match = re.match(r"([A-Za-z_0-9]+): (.*)", line)
        if match:
            name = match[1]
            result[name] = match[2]
        elif name and line.strip():
            result[name] += " " + line.strip()
    return result
