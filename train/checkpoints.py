"""Checkpoints that are whole or not there: variables and the run's state side by side."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

_NAME = re.compile(r"step-(\d+)")
_VARIABLES = "variables"
STATE = "state.json"


def save(
    folder: str, step: int, variables: tf.train.Checkpoint, state: Mapping[str, Any], keep: int
) -> None:
    """Writes a checkpoint under the step's number and removes the oldest beyond `keep`.

    It is written beside and renamed, so that a crash leaves it whole or leaves no trace of it.
    """
    os.makedirs(folder, exist_ok=True)
    name = os.path.join(folder, f"step-{step:09d}")
    temporary = f"{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    variables.write(os.path.join(temporary, _VARIABLES))
    with open(os.path.join(temporary, STATE), "w", encoding="utf-8") as file:
        json.dump(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    if os.path.isdir(name):  # of a run that was killed after it; the new one says the same
        shutil.rmtree(name)
    os.replace(temporary, name)
    for old in _numbered(folder)[:-keep]:
        shutil.rmtree(old)


def latest(folder: str) -> str | None:
    """The newest checkpoint, or None."""
    found = _numbered(folder)
    return found[-1] if found else None


def restore(checkpoint: str, variables: tf.train.Checkpoint) -> dict[str, Any]:
    """Puts the variables back, every one of them, and returns the state."""
    status = variables.read(os.path.join(checkpoint, _VARIABLES))
    status.assert_existing_objects_matched()
    with open(os.path.join(checkpoint, STATE), encoding="utf-8") as file:
        return json.load(file)


def _numbered(folder: str) -> list[str]:
    """The checkpoints by step; one without its state was copied, but not to its end."""
    if not os.path.isdir(folder):
        return []
    found = [os.path.join(folder, n) for n in sorted(os.listdir(folder)) if _NAME.fullmatch(n)]
    return [path for path in found if os.path.isfile(os.path.join(path, STATE))]
