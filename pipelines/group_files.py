"""Files of groups: which source is of which group, and what a dataset keeps of its splits."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from flexseg_errors import FlexsegError
from pipelines import storage
from pipelines.sources import SPLITS, Rejected, Source
from pipelines.splits import is_fold, some

FILE = "groups.csv"  # in a dataset: the split of every group

_COLUMNS = ("group", "split")


def read(path: str) -> dict[str, str]:
    """Reads a CSV file of which each line says to which group a source belongs.

    Lines hold path,group. Where the first line names the columns, there may be others beside them.
    White space around a value does not count, and letters with accents may be composed or not.

    Returns:
      path as written -> group.

    Raises:
      FlexsegError: where the file cannot be read, a line lacks path or group, or a path has two
        groups.
    """
    rows = _rows(path, f"--groups={path}")
    columns, wanted = (0, 1), 2
    names = [cell.lower() for cell in rows[0][1]] if rows else []
    if "path" in names and "group" in names:
        columns, wanted = (names.index("path"), names.index("group")), len(names)
        rows = rows[1:]
    groups: dict[str, str] = {}
    for line, cells in rows:
        if len(cells) != wanted:
            raise FlexsegError(
                f"--groups={path}, line {line}: expected {wanted} values separated by commas, "
                f"path,group; found {len(cells)}. Quote a value that holds a comma."
            )
        name, group = (cells[column] for column in columns)
        if not name or not group:
            raise FlexsegError(f"--groups={path}, line {line}: path or group is empty.")
        if groups.setdefault(name, group) != group:
            raise FlexsegError(
                f'--groups={path}, line {line}: "{name}" belongs to "{group}" here, and to '
                f'"{groups[name]}" above. A source has one group.'
            )
    if not groups:
        raise FlexsegError(f"--groups={path} names no source; expected lines path,group.")
    return groups


def apply(
    sources: Sequence[Source], groups: Mapping[str, str], origin: str
) -> tuple[list[Source], list[Rejected]]:
    """Gives sources the groups that a file names, all slices of a volume that of their file.

    Args:
      sources: what was found; slices of volumes each.
      groups: path of an image below its folder, with or without suffix -> group.
      origin: the file, for messages.

    Returns:
      The sources that are named, and the files that are not.

    Raises:
      FlexsegError: where no source is named at all, or one is with and without suffix in two
        groups.
    """
    grouped, rejected = [], {}
    for source in sources:
        found = {name: groups[name] for name in _names(source) if name in groups}
        if len(set(found.values())) > 1:
            shown = " and ".join(f'"{name}" to "{group}"' for name, group in found.items())
            raise FlexsegError(
                f"--groups={origin}: {source.image} has two groups, as it adds {shown}."
            )
        if found:
            grouped.append(dataclasses.replace(source, group=next(iter(found.values()))))
        else:
            reason = f'--groups={origin} names no group for "{_names(source)[0]}"'
            rejected[source.image] = Rejected(source.image, "group", reason)
    if sources and not grouped:
        raise FlexsegError(
            f"--groups={origin} names none of the images (it names {some(groups)}; there are "
            f"{some(_names(s)[0] for s in sources)}). Expected is an image's path below its "
            "folder, with or without suffix."
        )
    return grouped, list(rejected.values())


def unused_names(sources: Iterable[Source], groups: Mapping[str, str]) -> list[str]:
    """What a file of groups names and no source is called, in the file's order.

    That is no error: a typo leaves its source without a group, and so rejected; what else is too
    much does no harm.
    """
    used = {name for source in sources for name in _names(source)}
    return [name for name in groups if name not in used]


def _names(source: Source) -> list[str]:
    """What a file of groups may call a source."""
    names = [source.filename, source.file_id]
    if source.split:  # the path below the split's own folder, and that with the split
        names = [name.removeprefix(source.split + "/") for name in names] + names
    return [unicodedata.normalize("NFC", name.strip()) for name in names]


# ---- What a dataset keeps of its splits ----------------------------------------------------------


def as_csv(sources: Iterable[Source]) -> str:
    """The text of a dataset's `groups.csv`: a line for each group, sorted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(sorted({(s.group, s.split) for s in sources}))
    return text.getvalue()


def read_splits(dataset: str) -> dict[str, str]:
    """Reads which split each group of a dataset is in, from its `groups.csv`.

    Raises:
      FlexsegError: where the dataset has no such file, or it is damaged.
    """
    path = storage.join(dataset, FILE)
    if not storage.is_file(path):
        raise FlexsegError(
            f"--split_from={dataset} holds no {FILE}: it is not a dataset, or `flexseg "
            "prepare` has not finished it. Run that again."
        )
    rows = _rows(path, path, exact=True)
    splits: dict[str, str] = {}
    for index, (line, cells) in enumerate(rows):
        if index == 0 and tuple(cells) == _COLUMNS:
            continue
        fits = index and len(cells) == 2 and cells[0] not in splits
        if not fits or not (cells[1] in SPLITS or is_fold(cells[1])):
            raise FlexsegError(
                f"{path} is damaged (line {line}); run `flexseg prepare` for that dataset again."
            )
        splits[cells[0]] = cells[1]
    if not splits:
        raise FlexsegError(f"{path} is empty; run `flexseg prepare` for that dataset again.")
    return splits


def checksum(splits: Mapping[str, str]) -> str:
    """SHA-256 in hexadecimal of which split each group is in, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(splits.items())).encode()).hexdigest()


def _rows(path: str, named: str, exact: bool = False) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file that are not empty, each with its number.

    `exact` takes values as they stand; without it, white space and composition do not matter.
    """
    try:
        data = storage.read_bytes(path)
    except OSError as error:
        raise FlexsegError(f"{named} cannot be read: {error.strerror or error}.") from error
    try:
        text = data.decode("utf-8-sig")  # what spreadsheets write, with a mark in front
    except UnicodeDecodeError as error:
        raise FlexsegError(f"{named} is not text in UTF-8; save it as CSV in UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for cells in reader:
            if not exact:
                cells = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise FlexsegError(f"{named}, line {reader.line_num}: {error}.") from error
    return rows
