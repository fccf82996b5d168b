"""Every page of the reference, by its path: from flags, dataclasses and docstrings alone.

TensorFlow is not imported: what says something of itself in a module that imports it is read from
the module's source.
"""

from __future__ import annotations

import functools
import os
import re

import augmentation_page
import command_pages
import experiment_pages
import file_page
import loss_page
import metric_page
import old_keys_page
from markdown_text import table
from source_docs import ROOT

from flexseg import COMMANDS


@functools.cache
def reference() -> dict[str, str]:
    """Path below docs/ -> Markdown of every generated page."""
    pages = {
        "reference/experiment.md": experiment_pages.experiment(),
        "reference/networks.md": experiment_pages.networks(),
        "reference/shipped.md": experiment_pages.shipped_experiments(),
        "reference/losses.md": loss_page.page(),
        "reference/metrics.md": metric_page.page(),
        "reference/augmentation.md": augmentation_page.page(),
        "reference/files.md": file_page.page(),
        "reference/older-keys.md": old_keys_page.page(),
    }
    for name in COMMANDS:
        pages[f"reference/commands/{name}.md"] = command_pages.page(name)
    pages["reference/index.md"] = _index()
    return pages


def home() -> str:
    """README.md as a page of the site: what it links to outside docs/ is named without a link."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read().replace("](docs/", "](")
    return re.sub(r"\[([^\]]+)\]\((?:[A-Z]+\.md|LICENSE)\)", r"\1", text)


def _index() -> str:
    rows = [
        (f"[flexseg {name}](commands/{name}.md)", command.summary)
        for name, command in COMMANDS.items()
    ]
    return "\n".join(
        [
            "# Reference",
            "",
            "These pages are written from the program's own flags, dataclasses and docstrings each "
            "time the documentation is built. In a terminal, `flexseg --help` and "
            "`flexseg COMMAND --help` say the same.",
            "",
            "## Commands",
            "",
            table(("command", "what it does"), rows),
            "",
            "Every command ends with status 0 on success, 1 on a mistake that you can mend (one "
            "message that names the file or the value, and what to do) and 2 on a command line "
            "that is none.",
            "",
            "## Flags of every command",
            "",
            command_pages.general(),
            "",
            "## The rest",
            "",
            "- [The experiment](experiment.md): every key of a training, with its default",
            "- [Networks](networks.md), and the knobs of each",
            "- [Losses](losses.md), their formulas and parameters",
            "- [Metrics](metrics.md): what each figure is",
            "- [Augmentation files](augmentation.md): what `flexseg prepare --augment` takes",
            "- [Files](files.md): label map, dataset, records, run, evaluation, bundle",
            "- [Experiments that come with flexseg](shipped.md)",
            "- [Keys of the older projects](older-keys.md), and what became of each",
            "",
        ]
    )
