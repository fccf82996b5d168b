"""What a folder is that was given in another's place: for the message that says so."""

from __future__ import annotations

import os

from flexseg_errors import FlexsegError, nearest
from pipelines import storage

DATASET, RUN, BUNDLE = "dataset", "run", "bundle"
# A file that each kind holds, and no other.
_MARKS = {DATASET: "dataset.json", RUN: "input.yaml", BUNDLE: "saved_model.pb"}
_IS = {
    DATASET: "a dataset of `flexseg prepare`",
    RUN: "a run of `flexseg train`",
    BUNDLE: "a bundle of `flexseg export`",
}


def hint(path: str, *wanted: str) -> str:
    """A hint for who gave a path where there is nothing of the kind that is wanted.

    Args:
      path: what was given, here or remote.
      wanted: DATASET, RUN, BUNDLE; none for any folder or file.

    Returns:
      A sentence with a space before it: what the folder is, what lies in it, or the nearest name
      where there is none. "" where there is nothing to say.
    """
    try:
        if storage.is_file(path):
            return " It is a file."
        if storage.is_folder(path):
            return _inside(path, wanted)
        return "" if storage.is_remote(path) else _beside(path)
    except (FlexsegError, OSError):  # the message is about something else
        return ""


def _inside(folder: str, wanted: tuple[str, ...]) -> str:
    for kind, mark in _MARKS.items():
        if storage.is_file(storage.join(folder, mark)):
            return f" It is {_IS[kind]}."
    if storage.is_remote(folder):
        return ""
    for name in sorted(storage.names(folder)):
        for kind in wanted:
            if storage.is_file(storage.join(folder, name, _MARKS[kind])):
                return f' Did you mean "{storage.join(folder, name)}"?'
    if {"images", "masks"} <= set(storage.names(folder)):
        return " It holds images and masks, of which `flexseg prepare` makes a dataset."
    return ""


def _beside(path: str) -> str:
    folder, name = os.path.split(path.rstrip("/"))
    there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    return nearest(name, there).replace('"', f'"{os.path.join(folder, "")}', 1)
