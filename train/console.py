"""What a training says on the terminal, beside its progress bar."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Prints a line to stderr without tearing the progress bar."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def figure(value: float | None) -> str:
    """A figure with four digits; - where there is none."""
    return "-" if value is None else f"{value:.4g}"
