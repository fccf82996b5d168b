"""What a Beam job's failure means to the person who began it."""

from __future__ import annotations

import re
import tempfile
import traceback

from flexseg_errors import FlexsegError
from pipelines import storage

_FULL = ("No space left on device", "Disk quota exceeded", "File too large")
_OURS = ("pipelines", "models", "train", "export", "flexseg_errors", "tensorflow")
_TOLD = re.compile(r"FlexsegError: (.+?)\s*(?:\[while running |\n\n|\Z)", re.DOTALL)


def explained(error: Exception, output: str, kept: str) -> FlexsegError | None:
    """What went wrong on a worker; None where it is nothing that is known.

    Beam hands on whatever a worker raised, at times as itself and at times as the text of its
    traceback alone.

    Args:
      error: what Beam raised.
      output: the folder that the job writes to, here or remote.
      kept: what is not lost, such as "the shards that are finished are".
    """
    text = "".join(traceback.format_exception(error))
    again = f"Run the same command again: {kept} kept."
    for reason in _FULL:
        if reason in text:
            disk = tempfile.gettempdir() if storage.is_remote(output) else output
            return FlexsegError(f"The disk of {disk} is full ({reason}). Free some space. {again}")
    if any(f"No module named '{name}'" in text for name in _OURS):
        return FlexsegError("The runner's workers have no flexseg: install it there too.")
    told = _TOLD.findall(text)
    return FlexsegError(f"{told[-1]} {again}") if told else None


def interrupted(error: Exception) -> bool:
    """Whether Ctrl-C ended the job: Beam makes another error of it."""
    return isinstance(error.__cause__, KeyboardInterrupt) or "KeyboardInterrupt" in str(error)


def failed(error: Exception, runner: str) -> FlexsegError:
    """What a runner elsewhere objects to; it is no mistake in flexseg where it was not reached."""
    kind = type(error).__name__
    if isinstance(error, OSError) or "Timeout" in kind:
        what = "cannot be reached; look at --job_endpoint or --dask_client_address"
    else:
        what = "failed; look at its options and its log"
    last = ([line.strip() for line in str(error).splitlines() if line.strip()] or [""])[-1]
    return FlexsegError(f"{runner} {what} ({kind}: {last or 'no message'}).")
