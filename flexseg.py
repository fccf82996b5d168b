"""The command line: `flexseg COMMAND ...`, a table from command to program.

A program is a module with `define_flags(values)` and `run(values, rest)`; it is imported when its
command is called, so that `flexseg --help` costs next to nothing. Its docstring is its help.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import flexseg_console
from flexseg_errors import FlexsegError, UsageError, nearest
from flexseg_flags import GENERAL, command_help, parse, split_general

VERSION = "0.1.0"


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: the module that runs it, and what it does in one line."""

    module: str
    summary: str


COMMANDS = {
    "prepare": Command("pipelines.prepare", "folders of images and masks -> sharded TFRecords"),
    "verify": Command("pipelines.verify", "check every record and file of a dataset"),
    "extract": Command("pipelines.extract", "write a dataset's images and masks as files again"),
    "propose-label-map": Command("pipelines.propose", "find the classes' colors in masks"),
    "convert-masks": Command("pipelines.convert_masks", "masks: colors <-> class ids <-> one-hot"),
    "plan": Command("train.plan_experiment", "propose an experiment for a dataset, with reasons"),
    "lr-find": Command("train.lr_find", "measure which learning rates a network can bear"),
    "convert-config": Command("train.convert_config", "a config of the old projects -> our files"),
    "train": Command("train.train", "train a network on a dataset"),
    "evaluate": Command("train.evaluate", "score a trained run on whole images"),
    "tune-postprocessing": Command(
        "train.tune_postprocessing", "choose on validation what is done to a run's masks"
    ),
    "predict": Command("export.predict", "segment images with a run or a bundle"),
    "export": Command("export.bundle", "write a SavedModel that serves by itself"),
    "inspect": Command("export.inspect", "describe a dataset, a run, a bundle or a network"),
    "report": Command("export.report", "a page to look at: of a dataset, a run, or several runs"),
    "models": Command("export.list_models", "list the networks: size, work, what they are"),
    "demo": Command("export.demo", "the whole road on images it draws itself"),
    "completion": Command("flexseg_completion", "what lets bash, zsh or fish complete all this"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
      0 on success, 1 on a mistake that the user can mend, 2 on a command line that is none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or TensorFlow talks before we can
    on, rest = split_general(sys.argv[1:] if arguments is None else arguments)
    if rest[:1] == ["help"]:
        on, rest = on | {"help"}, rest[1:]
    if rest[:1] in (["--version"], ["version"]):
        print(f"flexseg {VERSION}")
        return 0
    if not rest:
        print(overview())
        return 0 if "help" in on else 2
    name, *rest = rest
    if name not in COMMANDS:
        what = f'no flag "{name}"' if name.startswith("-") else f'no command "{name}"'
        known = [f"--{general}" for general in GENERAL] if name.startswith("-") else COMMANDS
        print(
            f"flexseg: there is {what}.{nearest(name, known)} See flexseg --help.", file=sys.stderr
        )
        return 2
    debug = "debug" in on
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR)
    try:
        if {"quiet", "verbose"} <= on:
            raise UsageError(f"{name} takes --quiet or --verbose, not both.")
        with flexseg_console.talking("quiet" in on and "help" not in on, "verbose" in on):
            return run_command(name, rest, "help" in on)
    except KeyboardInterrupt:
        print(f"flexseg {name}: interrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    except FlexsegError as error:
        if debug:
            traceback.print_exc()
        print(_told(name, str(error)), file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except Exception as error:
        if isinstance(error, BrokenPipeError):  # `flexseg inspect ... | head`; see `entry`
            return 1
        if debug:
            raise
        print(
            f"flexseg {name}: unexpected {type(error).__name__}: {_last_line(error)}\n"
            "This may be a mistake in flexseg; --debug shows where it happened.",
            file=sys.stderr,
        )
        return 1


def run_command(name: str, arguments: Sequence[str], only_help: bool = False) -> int:
    """Imports a command's program, parses its flags, and runs it."""
    from absl import flags as absl_flags

    program = importlib.import_module(COMMANDS[name].module)
    values = absl_flags.FlagValues()
    program.define_flags(values)
    if only_help:
        print(command_help(name, program, values))
        return 0
    rest = parse(name, program, values, arguments)
    flexseg_console.detail(f"flexseg {VERSION} {name} begins, in {os.getcwd()}")
    began = time.monotonic()
    program.run(values, rest)
    flexseg_console.detail(f"{name} is done after {time.monotonic() - began:.1f} s{_memory()}")
    return 0


def _memory() -> str:
    """The most memory that this process has had, for --verbose."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f", with at most {kib / 1024:.0f} MiB of memory"


def _told(name: str, message: str) -> str:
    """An error with the command before it, once: programs begin some messages with its name."""
    between = " " if message.startswith(f"{name} ") else f" {name}: "
    return f"flexseg{between}{message}"


def overview() -> str:
    """What `flexseg --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "flexseg: from folders of images and masks to a served segmentation model.",
            "",
            "Usage: flexseg COMMAND [--flag=value ...]",
            "",
            "Commands:",
            *lines,
            "",
            "flexseg COMMAND --help explains a command and its flags. Every command takes --quiet,",
            "--verbose and --debug. New here? Try flexseg demo.",
        ]
    )


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "(no message)"


def entry() -> None:
    """What the shell starts: `main`, and an end of the process that tells its status."""
    try:
        status = main()
    except BrokenPipeError:  # `flexseg --help | head -3`
        status = 1
    except Exception:  # of --debug
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:  # nobody reads it, or there is no room to write it
            # The interpreter would try once more, and end with a message and a status of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):
                print(f"flexseg: its output cannot be written: {error.strerror}.", file=sys.stderr)
            status = status or 1
    if "tensorflow_io" in sys.modules:
        # Its S3 plug-in (0.37.1, the last release) aborts when the interpreter is taken down: the
        # status would be 134 whatever was done. Nothing of ours waits for the interpreter's end.
        os._exit(status)
    sys.exit(status)


def __getattr__(name: str) -> Any:
    """Every command is a function as well, made when it is asked for: `flexseg.prepare(...)`."""
    import flexseg_calls

    command = flexseg_calls.names(list(COMMANDS)).get(name)
    if command is None:
        hint = nearest(name, flexseg_calls.names(list(COMMANDS)))
        raise AttributeError(f"module 'flexseg' has no attribute {name!r}.{hint}")
    globals()[name] = flexseg_calls.function(name, command)
    return globals()[name]


def __dir__() -> list[str]:
    import flexseg_calls

    return sorted({*globals(), *flexseg_calls.names(list(COMMANDS))})


if __name__ == "__main__":
    entry()
