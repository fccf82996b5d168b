"""A page for each command: the program's docstring and its flags."""

from __future__ import annotations

import importlib

from absl import flags
from markdown_text import code, escape, prose, table

import flexseg_flags
from flexseg import COMMANDS

_KEYS = "config."
_LONGEST = 60  # characters of a form that a column can show


def page(name: str) -> str:
    """The page of a command, as Markdown."""
    program = importlib.import_module(COMMANDS[name].module)
    values = flags.FlagValues()
    program.define_flags(values)
    known = flexseg_flags.described(name, values)
    keys = [flag for flag in known if flag.name.startswith(_KEYS)]
    usage = " ".join(["flexseg", name, *getattr(program, "POSITIONAL", ()), "[--flag=value ...]"])
    lines = [f"# flexseg {name}", "", "```text", usage, "```", "", prose(program.__doc__ or ""), ""]
    rows = [_row(flag) for flag in known if flag not in keys]
    if rows:
        lines += ["## Flags", "", table(("flag", "value", "default", "meaning"), rows), ""]
    if keys:
        lines += [
            "## Keys of the experiment",
            "",
            "`--config.SECTION.KEY=VALUE` sets a key of the [experiment](../experiment.md); there "
            f"are {len(keys)}, such as `--{keys[0].name}` and `--{keys[-1].name}`. They go before "
            "what the file of `--experiment` says.",
            "",
        ]
    if getattr(program, "FOREIGN_FLAGS", False):
        lines += [
            "## Options of Apache Beam",
            "",
            "Any option of Beam may follow; see [Beam runners](../../how-to/beam-runners.md).",
            "",
        ]
    lines += ["[Flags of every command](../index.md#flags-of-every-command)", ""]
    return "\n".join(lines)


def general() -> str:
    """The table of the flags that every command has."""
    return table(
        ("flag", "meaning"),
        [(code(f"--{name}"), escape(text)) for name, text in flexseg_flags.GENERAL.items()],
    )


def _row(flag: flexseg_flags.Flag) -> tuple[str, str, str, str]:
    form = flag.form if len(flag.form) <= _LONGEST else flag.form.replace("|", " | ")
    return (
        f"`--{flag.name}`{{ #{flag.name} }}",
        code(form) or "on or off",
        code(flag.default),
        escape(flag.text),
    )
