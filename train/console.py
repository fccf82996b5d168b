"""What a training says on the terminal, beside its progress bar."""

from __future__ import annotations

from flexseg_console import detail, say

__all__ = ["detail", "figure", "say"]


def figure(value: float | None) -> str:
    """A figure with four digits; - where there is none."""
    return "-" if value is None else f"{value:.4g}"
