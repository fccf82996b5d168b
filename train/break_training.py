"""The file `break_training`, by which a person ends a run in order.

The old projects looked for it in the folder they were started in, and left it there. Here it may
lie in the run directory too, where it means that run alone, and it is gone once it was obeyed.
"""

from __future__ import annotations

from flexseg_errors import FlexsegError
from pipelines import storage
from train.console import say
from train.runs import Run

NAME = "break_training"


def is_there(run: Run) -> bool:
    """Whether the file lies in the run directory or in the current one.

    Where that cannot be found out, as with a remote folder that does not answer, it is not there.
    """
    return any(_is_file(path) for path in _places(run))


def remove(run: Run) -> None:
    """Removes the file, so that it ends one run and not every one after it."""
    for path in _places(run):
        if _is_file(path):
            try:
                storage.remove(path)
            except (FlexsegError, OSError) as error:
                say(f"{path} cannot be removed; the next run would end by it too: {error}")


def _places(run: Run) -> tuple[str, str]:
    return storage.join(run.folder, NAME), NAME


def _is_file(path: str) -> bool:
    try:
        return storage.is_file(path)
    except (FlexsegError, OSError):
        return False
