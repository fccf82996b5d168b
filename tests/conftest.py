"""What every test shares: a silent TensorFlow, repeatable hypothesis, and the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import settings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before anything imports TensorFlow

# The same examples in every run, whatever the machine's speed, and no folder left behind.
settings.register_profile("flexseg", deadline=None, derandomize=True, database=None)
settings.load_profile("flexseg")


class Outcome(NamedTuple):
    """What a command left: its exit status and all that it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`command("verify", folder)` runs `flexseg verify FOLDER` in this process."""
    import flexseg

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = flexseg.main([str(a) for a in arguments])
        return Outcome(status, *capsys.readouterr())

    return run
