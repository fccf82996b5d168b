"""The one exception that means "the user can mend this", and the hint that goes with a wrong name.

It stands at the top because every room raises it and the rooms may not import one another freely.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FlexsegError(ValueError):
    """A mistake in the input, told for the person who made it.

    The message names the file or key, what was expected, and what to do. The command line prints it
    without a traceback and exits with 1.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean "x"?' for the known name most like `name`, or "" where none is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


class UsageError(FlexsegError):
    """A command line that is no command line: unknown flags, missing arguments. Exit status 2."""
