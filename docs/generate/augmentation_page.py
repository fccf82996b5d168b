"""The form of an augmentation file, its steps, and the presets."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from markdown_text import code, escape, prose, sections, table

from pipelines import augment
from pipelines.augment_presets import PRESETS


def page() -> str:
    """The page of augmentation files, as Markdown."""
    lines = [
        "# Augmentation files",
        "",
        "`flexseg prepare --augment=FILE` adds changed copies of the training sources to the "
        "dataset; a name of a preset may stand for the file. Augmentation during training is "
        "another thing: see `augment` in the [experiment](experiment.md#augment).",
        "",
        prose(augment.__doc__ or "").replace("```text", "```yaml"),
        "",
        "## Steps",
        "",
        "A parameter that may be drawn takes a range `[low, high]`, from which each source gets "
        "its own number. Every step takes `probability`, 1 unless said otherwise.",
        "",
    ]
    rows = []
    for name, kind in augment.STEPS.items():
        text = _first(kind.function)
        parameters = "; ".join(
            f"{code(key)} {_text(p.default)} ({p.minimum:g} to {p.maximum:g}"
            f"{', or a range' if p.drawn else ''})"
            for key, p in kind.parameters.items()
        )
        moves = "image and mask" if kind.geometric else "image"
        rows.append((code(name), moves, escape(text), parameters))
    lines += [table(("step", "changes", "what it does", "parameters and defaults"), rows), ""]
    lines += ["## Presets", ""]
    lines += [f"{', '.join(code(name) for name in PRESETS)}.", ""]
    return "\n".join(lines)


def _first(function: Any) -> str:
    """The first paragraph of a function's docstring, and of the one that it sends to."""
    text = sections(inspect.cleandoc(function.__doc__ or ""))[""].split("\n\n")[0]
    other = re.fullmatch(r"(.*); see `(\w+)`\.", text)
    if not other:
        return text
    return f"{other[1]}. {_first(getattr(sys.modules[function.__module__], other[2]))}"


def _text(value: object) -> str:
    return code(f"{value:g}" if isinstance(value, float) else str(value))
