"""Which software and device trained a run, from which step on: what its last bits hang on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from typing import Any

from flexseg_errors import FlexsegError
from pipelines import storage
from train.console import say
from train.runs import Run

FILE = "software.json"


@dataclasses.dataclass(frozen=True)
class Software:
    """What a run was trained with.

    Attributes:
      flexseg: its version; as the others, "unknown" where a package does not say.
      tensorflow: its version.
      keras: its version.
      numpy: its version.
      python: its version.
      device: "CPU", or the name of the GPUs; where there are several kinds, of all of them.
    """

    flexseg: str
    tensorflow: str
    keras: str
    numpy: str
    python: str
    device: str

    def __str__(self) -> str:
        names = {"tensorflow": "TensorFlow", "keras": "Keras", "numpy": "NumPy", "python": "Python"}
        parts = [f"{names.get(k, k)} {v}" for k, v in dataclasses.asdict(self).items()]
        return f"{', '.join(parts[:-1])}, on {self.device}"


@dataclasses.dataclass(frozen=True)
class Used:
    """Software, and the first step that it made."""

    from_step: int
    software: Software


def record(run: Run, step: int) -> None:
    """Writes into the run what it is trained with from here on, if it is not what it was.

    Should that have changed since, the person is told, as exact resumption needs the same.

    Args:
      run: whose working copy is written to.
      step: at which it goes on.
    """
    try:
        before = read(run)
    except FlexsegError as error:
        say(f"{error} It is begun anew.")
        before = ()
    used = [one for one in before if one.from_step < step]  # later ones left nothing behind
    now = current()
    if used and used[-1].software != now:
        say(
            f"Until now the run was trained with {used[-1].software}; it goes on with {now}: what "
            "follows may differ in the last bits from what the former would have made."
        )
    if not used or used[-1].software != now:
        used.append(Used(step, now))
    if tuple(used) == before:
        return
    data = [{"from_step": u.from_step, **dataclasses.asdict(u.software)} for u in used]
    storage.write_whole(run.path(FILE), f"{json.dumps(data, indent=1)}\n".encode())


def read(run: Run) -> tuple[Used, ...]:
    """What a run was trained with, in the order of its steps; () where it does not say.

    Raises:
      FlexsegError: where the file is damaged.
    """
    path = run.path(FILE)
    if not storage.is_file(path):
        return ()
    names = [field.name for field in dataclasses.fields(Software)]
    try:
        entries: list[dict[str, Any]] = json.loads(storage.read_bytes(path))
        return tuple(
            Used(int(one["from_step"]), Software(**{name: str(one[name]) for name in names}))
            for one in entries
        )
    except (ValueError, TypeError, KeyError) as error:
        raise FlexsegError(f"{FILE} of the run {run.folder} is damaged ({error!r}).") from error


def current() -> Software:
    """What this process has."""
    import keras
    import numpy as np
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    gpus = sorted({str(detail.get("device_name", "GPU")) for detail in details})
    return Software(
        flexseg=version(),
        tensorflow=tf.__version__,
        keras=keras.__version__,
        numpy=np.__version__,
        python=platform.python_version(),
        device=" and ".join(gpus) or "CPU",
    )


def version() -> str:
    """Of flexseg, as it is installed; "unknown" where it runs from a copy of the source."""
    try:
        return importlib.metadata.version("flexseg")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
