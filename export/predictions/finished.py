"""What a folder of predictions holds already, so that a command that broke off goes on.

Beside the masks lies a hidden folder, `.predict/`: `options.json` says how they are made, and
`items/<stem>.json`, written after all files of an item, is its report. An item is finished where
its report is there, was made of the same file in the same way, and its files are there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from export.predictions import report as reports
from export.predictions import writing
from export.predictions.items import Item, place
from export.predictions.outputs import Outputs
from export.predictions.report import Report
from flexseg_errors import FlexsegError
from pipelines import storage

FOLDER = ".predict"
_OPTIONS, _ITEMS = "options.json", "items"
_READERS = 16


def claim(outputs: Outputs, targets: Iterable[str], overwrite: bool) -> None:
    """Makes a folder one of predictions made in this way, or sees that it is one.

    What was not written before may be written in addition: overlays, for example. What was written
    must be written in the same way.

    Args:
      outputs: what is to be written.
      targets: paths of the files.
      overwrite: makes anew what is there.

    Raises:
      FlexsegError: where the folder holds predictions made otherwise, or files under the names of
        these; nothing was touched.
    """
    if storage.is_file(outputs.folder):
        raise FlexsegError(f"--output={outputs.folder} is a file; expected a folder.")
    path = storage.join(outputs.folder, FOLDER, _OPTIONS)
    wanted = outputs.choices()
    found = None if overwrite else _read(path)
    if found is None and not overwrite:
        _refuse_foreign(outputs.folder, targets)
    if found is not None:
        changed = [
            key
            for key, value in wanted.items()
            if value is not None and found.get(key) is not None and found[key] != value
        ]
        if changed:
            told = "; ".join(f"{_name(k)} was {found[k]}, now {wanted[k]}" for k in changed)
            raise FlexsegError(
                f"--output={outputs.folder} holds predictions that were made otherwise: {told}. "
                "Give another --output, or --overwrite to make them anew."
            )
        wanted = {k: found.get(k) if v is None else v for k, v in wanted.items()}
    if found != wanted:
        writing.write(path, (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode())


def find(items: Sequence[Item], outputs: Outputs) -> dict[str, Report]:
    """The reports of the items that are finished, by stem.

    Raises:
      FlexsegError: where files of an item's names were made of another image.
    """
    folder = storage.join(outputs.folder, FOLDER, _ITEMS)
    notes = {file.name for file in storage.walk(folder)} if storage.is_folder(folder) else set()
    if not notes:
        return {}
    there = {file.name for file in storage.walk(outputs.folder)}
    noted = [item for item in items if item.stem + ".json" in notes]
    with ThreadPoolExecutor(_READERS) as pool:  # a store takes its time for each
        paths = [storage.join(folder, *(i.stem + ".json").split("/")) for i in noted]
        read = list(pool.map(_report, paths))
    found = {}
    for item, report in zip(noted, read, strict=True):
        if report is None:
            continue
        if report.state != item.state and place(report.path) != place(item.path):
            raise FlexsegError(
                f"--output={outputs.folder} holds files of {report.path} under the name "
                f"{item.stem}, which {item.path} would get too. Give another --output, or "
                "--overwrite."
            )
        if report.state == item.state and is_finished(report, outputs.kinds(item.kind), there):
            found[item.stem] = dataclasses.replace(report, path=item.path)
    return found


def is_finished(report: Report, wanted: dict[str, str], there: set[str]) -> bool:
    """Whether a report tells of all kinds of output that are wanted, and their files are there."""
    same = all(report.made.get(kind) == print_ for kind, print_ in wanted.items())
    return same and all(name in there for name, kind in report.files.items() if kind in wanted)


def keep(report: Report, outputs: Outputs) -> None:
    """Writes an item's report, which says that the item is finished."""
    name = report.stem + ".json"
    path = storage.join(outputs.folder, FOLDER, _ITEMS, *name.split("/"))
    writing.write(path, (report.to_json() + "\n").encode())


def _read(path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(storage.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FlexsegError(f"{path} is damaged. Give another --output, or --overwrite.")
    return found


def _report(path: str) -> Report | None:
    try:
        return reports.from_json(storage.read_bytes(path))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None  # what cannot be read is made anew


def _refuse_foreign(folder: str, targets: Iterable[str]) -> None:
    if not storage.is_folder(folder):
        return
    there = {file.path for file in storage.walk(folder)}
    for target in targets:
        if target in there:
            raise FlexsegError(
                f"{target} is there already, and nothing says that flexseg predict made it in this "
                "way. Give another --output, or --overwrite."
            )


def _name(key: str) -> str:
    return {"model": "the model or how it is applied"}.get(key, key)
