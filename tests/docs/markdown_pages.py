"""README.md and the pages in docs/ in parts: blocks of code with their markers, links, inline code.

A block of shell or Python is run by the tests, unless the line before it is one of
  <!-- run by the long tests: WHY -->
  <!-- flags checked only: WHY -->
  <!-- not run: WHY -->
Of all of them but the last the commands and their flags must be known.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONG = "run by the long tests"
MARKERS = (LONG, "flags checked only", "not run")

_MARKER = r"(?:^<!--(?P<marker>[^\n]*)-->\n)?"
_BLOCK = re.compile(_MARKER + r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
      place: page and line, for messages.
      language: as the page says it; "" where it does not.
      text: the lines.
      marker: what is said of running it, one of MARKERS; "" where it is always run.
      reason: why not.
    """

    place: str
    language: str
    text: str
    marker: str
    reason: str

    def is_run(self, long: bool = False) -> bool:
        """Whether tests run it; `long`: the long ones, too."""
        return not self.marker or (long and self.marker == LONG)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        marker, _, reason = (match["marker"] or "").strip().partition(":")
        place = f"{name_of(page)}:{line}"
        found.append(Block(place, match["language"], match["text"], marker, reason.strip()))
    return found


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def inline_code(page: Path) -> list[str]:
    return _CODE.findall(prose(page))


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block: lines joined, no comments, $names filled in.

    What follows > or | is left out.
    """
    values: dict[str, str] = {}
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = list(
            itertools.takewhile(lambda w: w not in (">", "|"), shlex.split(line, comments=True))
        )
        assignment = re.fullmatch(r"(\w+)=(.*)", words[0], re.S) if len(words) == 1 else None
        if assignment:
            values[assignment[1]] = assignment[2]
        elif words:
            found.append([_filled(word, values) for word in words])
    return found


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"${name}", value)
    return word
