"""Reads the INI files of older projects: sections, keys, and values as Python literals.

Lines are taken as `configparser` took them there: `#` and `;` begin a comment at the start of a
line alone, indented lines go on with a value, keys have no capitals. A value was then handed to
`eval`; here it is parsed as a literal and never evaluated. What is no literal is code, which is
refused, or could not be evaluated there either, which is told.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

from flexseg_errors import FlexsegError

_MOST_BYTES = 1 << 20
_SECTION = re.compile(r"\[(?P<name>.+)\]")
_OPTION = re.compile(r"(?P<key>.*?)\s*[=:]\s*(?P<value>.*)$")
_CONSTANT = re.compile(r"cv2\.[A-Z][A-Z0-9_]*")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class Word:
    """Text that stands where a quoted one was wanted, such as Adam or cv2.INTER_CUBIC."""

    text: str


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A value that the older projects could not evaluate, and so passed over.

    Attributes:
      reason: why, for the person.
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One key of the file.

    Attributes:
      section: its name, as written.
      key: in lower case.
      text: the value as written; lines that go on with it are joined by line feeds.
      line: its number in the file, from 1.
      value: the literal, a `Word`, or `Unreadable`.
      twice: the key of a dictionary that its literal holds more than once; None where none is.
    """

    section: str
    key: str
    text: str
    line: int
    value: Any
    twice: Any = None

    @property
    def shown(self) -> str:
        """The value for messages: on one line, and not long."""
        return shorten(self.text)


@dataclasses.dataclass(frozen=True)
class OldFile:
    """What a file holds.

    Attributes:
      path: of the file.
      entries: (section, key) -> the last entry of that name.
      sections: the sections, in the order of the file; some may be empty.
      repeated: entries that a later one of the same name takes the place of.
      repeated_sections: (name, line) of every second heading of a section.
      marked: whether the file begins with a byte order mark.
    """

    path: str
    entries: dict[tuple[str, str], Entry]
    sections: tuple[str, ...]
    repeated: tuple[Entry, ...]
    repeated_sections: tuple[tuple[str, int], ...]
    marked: bool


def shorten(text: str, most: int = 60) -> str:
    """Text on one line, printable, cut where it is long."""
    flat = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    return flat if len(flat) <= most else flat[: most - 3] + "..."


def read(path: str) -> OldFile:
    """Reads a file.

    Raises:
      FlexsegError: it cannot be read, is no such file, or a value in it is code.
    """
    data = _bytes(path)
    marked = data.startswith(_BOM)
    text = data.removeprefix(_BOM).decode("utf-8", "surrogateescape")
    entries: dict[tuple[str, str], Entry] = {}
    repeated: list[Entry] = []
    headings: list[tuple[str, int]] = []
    for section, key, value, line in _lines(path, text):
        if not key:
            headings.append((section, line))
            continue
        where = f"{path}, line {line}, [{section}] {key}"
        entry = Entry(section, key, value, line, *_parse(value, where))
        if (section, key) in entries:
            repeated.append(entries[section, key])
        entries[section, key] = entry
    names = [name for name, _ in headings]
    again = tuple(h for i, h in enumerate(headings) if h[0] in names[:i])
    sections = tuple(dict.fromkeys(names))
    return OldFile(path, entries, sections, tuple(repeated), again, marked)


def is_old(path: str) -> bool:
    """Whether a file is INI, not YAML: by what its first line that counts looks like.

    An experiment in YAML is a mapping, which never begins with a name in brackets alone.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16).removeprefix(_BOM).decode("utf-8", "replace")
    except (OSError, ValueError):  # a path with a null byte
        return False
    for line in head.splitlines():
        if line.strip() and not line.lstrip().startswith((";", "#")):
            return bool(_SECTION.fullmatch(line.strip()))
    return False


def _bytes(path: str) -> bytes:
    if os.path.isdir(path):
        raise FlexsegError(f"{path} is a folder; expected a file such as train_eval_infer.config.")
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise FlexsegError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a path with a null byte
        raise FlexsegError(f"{path!r} cannot be read: {error}.") from error
    if data.startswith(_UTF16):
        raise FlexsegError(f"{path} is UTF-16; save it as UTF-8.")
    if b"\0" in data:
        raise FlexsegError(f"{path} is no text file: it holds null bytes.")
    if len(data) > _MOST_BYTES:
        raise FlexsegError(f"{path} is larger than {_MOST_BYTES} bytes: that is no config file.")
    return data


def _lines(path: str, text: str) -> Iterator[tuple[str, str, str, int]]:
    """(section, key, value, line) of every key, and (section, "", "", line) of every heading."""
    section = None
    key, parts, start, indent = "", [""], 0, 0
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        bare = line.strip()
        if bare.startswith(("#", ";")):
            continue
        depth = len(line) - len(line.lstrip())
        if key and (not bare or depth > indent):  # the value goes on
            parts.append(bare)
            continue
        if not bare:
            continue
        where = f"{path}, line {number}"
        if not bare.isprintable() and any(0xDC80 <= ord(c) <= 0xDCFF for c in bare):
            raise FlexsegError(
                f"{where} holds bytes that are not UTF-8 (outside of a comment); save the file "
                "as UTF-8."
            )
        if key:
            yield str(section), key, "\n".join(parts).strip(), start
        key, indent = "", depth
        heading = _SECTION.match(bare)
        if heading:
            section = heading["name"]
            yield section, "", "", number
            continue
        if section is None:
            raise FlexsegError(
                f'{where}: "{shorten(bare)}" stands before any [section]; this is no config file '
                "of an older project."
            )
        option = _OPTION.match(bare)
        if not option or not option["key"]:
            raise FlexsegError(f'{where}: "{shorten(bare)}" is neither [section] nor key = value.')
        key, parts, start = option["key"].rstrip().lower(), [option["value"].strip()], number
    if key:
        yield str(section), key, "\n".join(parts).strip(), start


def _parse(text: str, where: str) -> tuple[Any, Any]:
    """The value that a text stands for, and what a dictionary in it has twice."""
    if any(0xDC80 <= ord(c) <= 0xDCFF for c in text):
        raise FlexsegError(f"{where} holds bytes that are not UTF-8; save the file as UTF-8.")
    if not text:
        return Unreadable("it is empty"), None
    if "%" in text.replace("%%", ""):
        return Unreadable("it holds a single %, which configparser takes for a reference"), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\d" and its like, as in Windows paths
            node = ast.parse(text.replace("%%", "%"), mode="eval").body
    except RecursionError as error:
        raise FlexsegError(f"{where} is nested too deeply to be read.") from error
    except MemoryError as error:  # what CPython's parser raises for the same
        raise FlexsegError(f"{where} is nested too deeply to be read.") from error
    except (SyntaxError, ValueError):
        return Unreadable(_why(text)), None
    try:
        return _literal(node), _twice(node)
    except _CodeError as error:
        raise FlexsegError(
            f'{where}: "{shorten(text)}" is code ({error}), which is never run here. Write the '
            "value that it stands for."
        ) from error
    except (ValueError, TypeError) as error:  # a list as key, a sign before text
        return Unreadable(f"it is no value: {error}"), None
    except RecursionError as error:
        raise FlexsegError(f"{where} is nested too deeply to be read.") from error


class _CodeError(Exception):
    pass


def _literal(node: ast.expr) -> Any:
    """What `ast.literal_eval` makes of a node, with `Word` for names.

    Raises:
      _CodeError: for anything that would have to be run.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Tuple):
        return tuple(map(_literal, node.elts))
    if isinstance(node, ast.List):
        return list(map(_literal, node.elts))
    if isinstance(node, ast.Set):
        return set(map(_literal, node.elts))
    if isinstance(node, ast.Dict) and all(node.keys):
        pairs = zip(node.keys, node.values, strict=True)
        return {_literal(k): _literal(v) for k, v in pairs if k is not None}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _literal(node.operand)
        if type(value) not in (int, float):
            raise TypeError("a sign stands before what is no number")
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Name):
        return Word(node.id)
    if isinstance(node, ast.Attribute) and _CONSTANT.fullmatch(ast.unparse(node)):
        return Word(ast.unparse(node))
    raise _CodeError(_KINDS.get(type(node), "an expression"))


_KINDS: dict[type, str] = {
    ast.Call: "a call",
    ast.Attribute: "an attribute",
    ast.BinOp: "a calculation",
    ast.Lambda: "a function",
    ast.JoinedStr: "a formatted string",
}


def _twice(node: ast.expr) -> Any:
    """A key that a dictionary holds twice; Python keeps the last value without a word."""
    if not isinstance(node, ast.Dict):
        return None
    keys = [_literal(key) for key in node.keys if key is not None]
    return next((key for i, key in enumerate(keys) if key in keys[:i]), None)


def _why(text: str) -> str:
    """Why a text is no Python; what is most often the reason comes first."""
    before, comment, _ = text.partition(";")
    if comment:
        try:
            ast.parse(before.strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return "it is no Python value"
        return "a comment after a value begins with #; with ; it is part of the value"
    return "it is no Python value"
