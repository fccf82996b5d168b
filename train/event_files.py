"""TensorBoard's files of a run that goes on from an earlier step."""

from __future__ import annotations

import os

from flexseg_errors import FlexsegError
from pipelines import records


def drop_after(folder: str, step: int) -> int:
    """Removes the events of later steps, which will be done again, and what was not written whole.

    Without it the curves of a run that was killed would go back in time.

    Args:
      folder: of the event files; it need not be there.
      step: the last step whose events stay.

    Returns:
      How many events were removed.
    """
    removed = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.startswith("events.out.tfevents."):
                removed += _shorten(os.path.join(parent, name), step)
    return removed


def _shorten(path: str, step: int) -> int:
    import tensorflow as tf  # not above: help must not wait for it

    kept, removed, torn = [], 0, False
    with open(path, "rb") as file:
        try:
            for _, data in records.read_framed(file, path):
                if tf.compat.v1.Event.FromString(data).step <= step:
                    kept.append(data)
                else:
                    removed += 1
        except FlexsegError:  # the last record, which the process was killed at
            torn = True
    if removed or torn:
        temporary = f"{path}.tmp"
        with open(temporary, "wb") as file:
            for data in kept:
                file.writelines(records.framed(data))
        os.replace(temporary, path)
    return removed
