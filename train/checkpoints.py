"""Checkpoints that are whole or not there: variables and the run's state side by side.

A checkpoint is a folder `step-000000120` with the variables, `state.json` and `checksums.json`.
It is written beside and renamed. Should a disk lose some of it nevertheless, the checksums show it,
and the newest one that is whole is gone on with.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flexseg_errors import FlexsegError
from pipelines import storage

if TYPE_CHECKING:
    import tensorflow as tf

_NAME = re.compile(r"step-(\d+)")
_VARIABLES = "variables"
_CHECKSUMS = "checksums.json"
_FORMAT = "format"  # in the state; one without it is of before there were checksums
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # what TensorFlow puts behind a variable's name
_TOLD = 6  # differences at most
STATE = "state.json"


def save(
    folder: str, step: int, variables: tf.train.Checkpoint, state: Mapping[str, Any], keep: int
) -> None:
    """Writes a checkpoint under the step's number and removes the oldest beyond `keep`.

    It is written beside and renamed, so that a crash leaves it whole or leaves no trace of it.
    Later ones, which can only be what `latest` left out, are removed.
    """
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        if name.endswith(".tmp"):  # of a process that was killed
            shutil.rmtree(os.path.join(folder, name))
    path = os.path.join(folder, f"step-{step:09d}")
    temporary = f"{path}.tmp"
    os.makedirs(temporary)
    variables.write(os.path.join(temporary, _VARIABLES))
    _write_json(os.path.join(temporary, STATE), {_FORMAT: 2, **state})
    sums = {
        name: storage.sha256(os.path.join(temporary, name))
        for name in sorted(os.listdir(temporary))
    }
    _write_json(os.path.join(temporary, _CHECKSUMS), sums)
    for name in [*sums, ""]:  # "": the folder itself
        _sync(os.path.join(temporary, name))
    if os.path.isdir(path):
        os.replace(path, f"{path}.old.tmp")
    os.replace(temporary, path)
    _sync(folder)
    shutil.rmtree(f"{path}.old.tmp", ignore_errors=True)
    found = _numbered(folder)
    at = found.index(path)
    for other in [*found[: max(0, at + 1 - keep)], *found[at + 1 :]]:
        shutil.rmtree(other)


def latest(folder: str, say: Callable[[str], None] = lambda _: None) -> str | None:
    """The newest checkpoint that is whole, or None.

    Args:
      folder: of the checkpoints.
      say: is told of each newer one that was left out, and why.
    """
    for path in reversed(_numbered(folder)):
        fault = damage(path)
        if not fault:
            return path
        say(f"The checkpoint {path} is left out: {fault}.")
    return None


def begun(folder: str) -> bool:
    """Whether there is a checkpoint, whole or damaged; one without its state was never finished.

    Args:
      folder: of the checkpoints, a path or a URL.
    """
    names = filter(_NAME.fullmatch, storage.names(folder))
    return any(storage.is_file(storage.join(folder, name, STATE)) for name in names)


def step_of(checkpoint: str) -> int:
    """The steps that were done when it was written."""
    found = _NAME.fullmatch(os.path.basename(checkpoint))
    if not found:
        raise ValueError(checkpoint)
    return int(found[1])


def at(folder: str, step: int) -> str:
    """The path of the checkpoint of a step, be it there or not."""
    return os.path.join(folder, f"step-{step:09d}")


def damage(checkpoint: str) -> str:
    """What keeps a checkpoint from being read, for the person; "" where it is whole."""
    name = _CHECKSUMS
    try:
        if not os.path.isfile(os.path.join(checkpoint, name)):
            name = STATE
            if _FORMAT in _read_json(os.path.join(checkpoint, name)):
                return f"{_CHECKSUMS} is missing"
            return _damage_without_checksums(checkpoint)
        sums = dict(_read_json(os.path.join(checkpoint, name)))
        for name in sorted({*sums, STATE, f"{_VARIABLES}.index"}):
            if storage.sha256(os.path.join(checkpoint, name)) != sums.get(name):
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{name} is missing"
    except (FlexsegError, OSError, TypeError, ValueError) as error:
        return f"{name} cannot be read ({str(error).splitlines()[0]})"
    return ""


def restore(checkpoint: str, variables: tf.train.Checkpoint) -> dict[str, Any]:
    """Puts the variables back, every one of them, and returns the state.

    Raises:
      FlexsegError: naming the variables that it lacks or has in another shape.
    """
    import tensorflow as tf

    prefix = os.path.join(checkpoint, _VARIABLES)
    there = {
        name.removesuffix(_VALUE): tuple(shape)
        for name, shape in tf.train.load_checkpoint(prefix).get_variable_to_shape_map().items()
        if name.endswith(_VALUE)
    }
    wrong = []
    for name, shape in _shapes(variables).items():
        if name not in there:
            wrong.append(f"{name} {list(shape)} is missing")
        elif there[name] != shape:
            wrong.append(f"{name} is {list(there[name])}, expected {list(shape)}")
    if wrong:
        more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        raise FlexsegError(
            f"The checkpoint {checkpoint} does not fit this training: {'; '.join(wrong[:_TOLD])}"
            f"{more}. It was written by another network or another version of flexseg; go on with "
            "that, or give a new --run folder (--init_from takes the weights that fit)."
        )
    status = variables.read(prefix)
    status.assert_existing_objects_matched()
    state = _read_json(os.path.join(checkpoint, STATE))
    state.pop(_FORMAT, None)
    return state


def _shapes(root: tf.train.Checkpoint) -> dict[str, tuple[int, ...]]:
    """The variables below an object, by the names that TensorFlow saves them under."""
    import tensorflow as tf

    view = tf.train.TrackableView(root)
    found: dict[str, tuple[int, ...]] = {}
    seen, waiting = {id(root)}, [("", root)]
    for path, parent in waiting:  # breadth first, as TensorFlow does it: a name is the first path
        for name, child in view.children(parent).items():
            if id(child) in seen:
                continue
            seen.add(id(child))
            key = f"{path}/{name}" if path else name
            if hasattr(child, "assign") and hasattr(child, "shape"):
                found[key] = tuple(child.shape)
            else:
                waiting.append((key, child))
    return found


def _damage_without_checksums(checkpoint: str) -> str:
    """Of a checkpoint of before there were checksums: TensorFlow's own look at every value."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(os.path.join(checkpoint, _VARIABLES))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, LookupError, ValueError, RuntimeError) as error:
        return f"its variables cannot be read ({str(error).splitlines()[0]})"
    return ""


def _numbered(folder: str) -> list[str]:
    """The checkpoints by step; one without its state was copied, but not to its end."""
    if not os.path.isdir(folder):
        return []
    found = [os.path.join(folder, n) for n in sorted(os.listdir(folder)) if _NAME.fullmatch(n)]
    return [path for path in found if os.path.isfile(os.path.join(path, STATE))]


def _write_json(path: str, data: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file)


def _read_json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _sync(path: str) -> None:
    """Sees to it that a file, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
