"""The values of an older project's config as its program saw them, and notes on what was odd."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from flexseg_errors import FlexsegError, nearest
from train.old_config.ini import Entry, OldFile, Unreadable, Word, shorten
from train.old_config.keys import KINDS, Key, Table
from train.old_config.tables import API, FLEX, MEANT, NEVER_READ, TABLES


@dataclasses.dataclass(frozen=True)
class Note:
    """Something a person should know.

    Attributes:
      place: where it belongs: `SECTION.KEY` of the experiment, "label_map", "augmentation", the
        name of a command, or "".
      text: one sentence or two, on one line.
    """

    place: str
    text: str


class Values:
    """Values by section and key, with the old defaults, and the notes gathered while asking.

    Attributes:
      file: what was read.
      dialect: "flex" or "api".
      notes: in the order in which they came.
    """

    def __init__(self, file: OldFile):
        """Finds the dialect, and notes what can be said of the file before any value is asked.

        Raises:
          FlexsegError: where the file is of neither dialect.
        """
        self.file = file
        self.dialect = dialect_of(file)
        self.notes: list[Note] = []
        self._table: dict[tuple[str, str], Key] = dict(TABLES[self.dialect])
        self._note_form()

    def add_keys(self, keys: Table) -> None:
        """Makes more keys known, such as those of an architecture."""
        self._table.update(keys)

    def note(self, place: str, text: str) -> None:
        """Adds a note, once."""
        note = Note(place, shorten(text, 2000))
        if note not in self.notes:
            self.notes.append(note)

    def note_on(self, section: str, key: str, text: str, place: str | None = None) -> None:
        """Adds a note on a key, which says what the file has there."""
        known = self._table.get((section, key))
        place = (known.place if known else "") if place is None else place
        self.note(place, f"{self.name(section, key)} {text}")

    def name(self, section: str, key: str) -> str:
        """What a key is called in a note: with its value and line, where it is in the file."""
        entry = self.file.entries.get((section, key))
        if entry is None:
            return f"[{section}] {key}"
        return f"[{section}] {key} = {entry.shown} (line {entry.line})"

    def given(self, section: str, key: str) -> bool:
        """Whether the file has the key."""
        return (section, key) in self.file.entries

    def get(self, section: str, key: str) -> Any:
        """The value that the old program worked with.

        Raises:
          FlexsegError: where it cannot have had one and there is none to take instead.
        """
        known = self._table[section, key]
        entry = self.file.entries.get((section, key))
        if entry is None:
            if known.required:
                self._missing(section, key, known, "is missing")
            return known.default
        read, expected = KINDS[known.kind]
        if isinstance(entry.value, Unreadable):
            return self._passed_over(section, key, known, entry.value.reason)
        if _has_word(entry.value):
            return self._unquoted(entry, known)
        try:
            return read(entry.value)
        except (ValueError, TypeError, OverflowError):
            text = f"could not have worked: expected {expected}"
            return self._missing(section, key, known, text)

    def note_idle(self) -> None:
        """Notes the keys that had no effect, or have no counterpart; call it last."""
        for (section, key), entry in self.file.entries.items():
            known = self._table.get((section, key))
            if known is None:
                place, text = self._unknown(section, key)
                self.note(place, f"{self.name(section, key)} {text}")
            elif known.idle:
                self.note_on(section, key, f"had no effect: {known.idle}.")
            elif known.gap and not self._had_no_effect(section, key):
                value = self.get(section, key)
                if known.kind == "any" or _bare(value) != _bare(known.default):
                    self.note_on(section, key, f"has no counterpart: {known.gap}.")
            elif isinstance(entry.value, Unreadable) or _has_word(entry.value):
                self.get(section, key)

    def _had_no_effect(self, section: str, key: str) -> bool:
        """Whether a note says so already."""
        start = f"{self.name(section, key)} had no effect"
        return any(note.text.startswith(start) for note in self.notes)

    def _note_form(self) -> None:
        file = self.file
        if file.marked:
            self.note(
                "",
                "The file begins with a byte order mark, on which the old program failed "
                "where files are read as UTF-8, and took the default of every key.",
            )
        if file.repeated or file.repeated_sections:
            self.note(
                "",
                "The old parser refused a file with a section or key given twice, and "
                "its program went on with the default of every key. Here the last value "
                "of a key counts.",
            )
        for name, line in file.repeated_sections:
            self.note("", f"[{name}] is duplicated: it begins again in line {line}.")
        for entry in file.repeated:
            last = file.entries[entry.section, entry.key]
            known = self._table.get((entry.section, entry.key))
            self.note(
                known.place if known else "",
                f"[{entry.section}] {entry.key} is duplicated: {entry.shown} (line {entry.line}), "
                f"then {last.shown} (line {last.line}), which is taken.",
            )
        names = {section for section, _ in self._table}
        for section in file.sections:
            if section not in names:
                self.note(
                    "",
                    f"[{section}] is unknown: the old program had no such section."
                    + nearest(section, names),
                )

    def _missing(self, section: str, key: str, known: Key, what: str) -> Any:
        """The value that is taken for one on which the old program stopped."""
        if known.default is None and known.required:
            if self.given(section, key):
                entry = self.file.entries[section, key]
                where = f"{self.file.path}, line {entry.line}"
                raise FlexsegError(f"{where}: [{section}] {key} = {entry.shown} {what}.")
            raise FlexsegError(f"{self.file.path}: [{section}] {key} {what}, and is needed.")
        ending = f"; {_shown(known.default)} is taken"
        if what == "is missing":
            ending = f", on which the old program stopped{ending}"
        self.note_on(section, key, f"{what}{ending}.")
        return known.default

    def _passed_over(self, section: str, key: str, known: Key, reason: str) -> Any:
        if known.required:
            return self._missing(section, key, known, f"could not be read: {reason}")
        self.note_on(
            section,
            key,
            f"could not be read ({reason}), so that the old program silently took its default, "
            f"{_shown(known.default)}, which stands here, too.",
        )
        return known.default

    def _unquoted(self, entry: Entry, known: Key) -> Any:
        """A word that should stand in quotes: where there is a default, it was taken."""
        read, expected = KINDS[known.kind]
        if not known.required:
            reason = "a word without quotes is a name that Python does not know"
            return self._passed_over(entry.section, entry.key, known, reason)
        try:
            value = read(entry.value)
        except (ValueError, TypeError, OverflowError):
            text = f"could not have worked: expected {expected}"
            return self._missing(entry.section, entry.key, known, text)
        self.note_on(
            entry.section,
            entry.key,
            "stands without quotes, on which the old program stopped; it is taken as text.",
        )
        return value

    def _unknown(self, section: str, key: str) -> tuple[str, str]:
        """What is to be said of a key that the old program did not know, and where."""
        here = sorted(k for s, k in self._table if s == section)
        if key in NEVER_READ:
            return "", "was passed over: no code ever read a key of that name."
        meant = MEANT.get((section, key)) or next(iter(_close(key, here)), "")
        if meant in here:
            text = f'is misspelt: the old program read "{meant}" and passed this over.'
            return self._table[section, meant].place, text
        elsewhere = sorted(s for s, k in self._table if k == key)
        if elsewhere:
            place = self._table[elsewhere[0], key].place
            return place, f"had no effect: the key belongs to [{elsewhere[0]}]."
        (other,) = {FLEX, API} - {self.dialect}
        if (section, key) in TABLES[other]:
            return "", "is a key of the other generation of projects; this one passed it over."
        return "", "is unknown: the old program passed it over."


def dialect_of(file: OldFile) -> str:
    """The dialect, "flex" or "api", by the keys that only one of them has.

    Raises:
      FlexsegError: where there is none.
    """
    folders: Mapping[str, Iterable[str]] = {
        FLEX: ("images_dir", "masks_dir"),
        API: ("image_datapath", "mask_datapath"),
    }
    votes = {
        dialect: sum(("train", key) in file.entries for key in keys)
        for dialect, keys in folders.items()
    }
    if votes[FLEX] != votes[API]:
        return max(votes, key=lambda dialect: votes[dialect])
    model = file.entries.get(("model", "model"))
    name = model.value.text if model and isinstance(model.value, Word) else model and model.value
    if isinstance(name, str) and name.lower().startswith("tensorflow"):
        return FLEX if name.lower().startswith("tensorflowflex") else API
    raise FlexsegError(
        f"{file.path} is no config file of an older project: [train] has neither images_dir nor "
        "image_datapath, and [model] model names no network of theirs."
    )


def _close(key: str, known: Iterable[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(key, list(known), n=1, cutoff=0.8)


def _has_word(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_word, [*value, *value.values()]))
    if isinstance(value, (list, tuple, set)):
        return any(map(_has_word, value))
    return isinstance(value, Word)


def _bare(value: Any) -> Any:
    """A folder without the slash at its end, which makes no other folder of it."""
    return value.rstrip("/") if isinstance(value, str) else value


def _shown(value: Any) -> str:
    return shorten(repr(value))
