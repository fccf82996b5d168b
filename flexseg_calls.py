"""The commands as Python functions: `flexseg.prepare(dataset="lung", output="records", ...)`.

A function is made from its command's flags when it is asked for, so that it has the same words,
defaults and errors, and no list of options to be kept up. What a keyword holds becomes the text
that the command line would be given: whatever works in one works in the other.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import keyword
import logging
import numbers
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flexseg_console
from flexseg_errors import UsageError
from flexseg_flags import GENERAL

if TYPE_CHECKING:
    from absl import flags

_CONFIG = "config."  # what flags of an experiment's keys begin with
# Without --output, what these say is their result: it is returned instead of printed.
_TEXTS = ("completion", "inspect", "models", "plan", "propose-label-map")


def names(commands: Sequence[str]) -> dict[str, str]:
    """Name of the function -> command."""
    return {command.replace("-", "_"): command for command in commands}


def function(name: str, command: str) -> Callable[..., Any]:
    """A command as a function.

    Args:
      name: of the function.
      command: a key of `flexseg.COMMANDS`.

    Returns:
      A function of the command's flags (as keywords) and of its other arguments. It raises what the
      program raises: FlexsegError for a mistake that the user can mend, and its subclass UsageError
      for a keyword or a value that the command does not take.
    """
    import flexseg

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or TensorFlow talks before we can
    with _libraries_silent():
        program = importlib.import_module(flexseg.COMMANDS[command].module)
    positional = [_word(text) for text in getattr(program, "POSITIONAL", ())]

    def call(*arguments: Any, quiet: bool = False, verbose: bool = False, **keywords: Any) -> Any:
        paths = [path for path in arguments if path is not None]
        for word in positional[len(paths) :]:
            if keywords.get(word) is not None:
                paths.append(keywords.pop(word))
        given = [_text(path, "a path") for path in paths]
        given += [text for key, value in keywords.items() for text in _flags(key, value)]
        values = _values(program)
        rest = flexseg.parse(command, program, values, given)
        printed = io.StringIO() if command in _TEXTS and not _output(values) else None
        with (
            contextlib.redirect_stdout(printed) if printed else contextlib.nullcontext(),
            flexseg_console.talking(quiet, verbose),
            _libraries_silent(),
            _outside_notebooks(program),
        ):
            program.run(values, rest)
        return printed.getvalue().strip() if printed else _result(command, values, rest)

    call.__name__ = call.__qualname__ = name
    call.__module__ = "flexseg"
    values = _values(program)
    call.__doc__ = _docstring(command, program, values)
    call.__signature__ = _signature(program, values)  # type: ignore[attr-defined]
    return call


@contextlib.contextmanager
def _libraries_silent() -> Iterator[None]:
    """Keeps back what libraries warn of, as the command line does, unless more is asked for."""
    root = logging.getLogger()
    before = root.level
    if before == logging.WARNING:  # as it is where nobody has said anything
        root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


@contextlib.contextmanager
def _outside_notebooks(program: Any) -> Iterator[None]:
    """Hides from Beam that it runs in a notebook, where a program may make a job.

    There it looks through the notebook's variables for pipelines, to draw them, and needs pandas
    for that. Ours are none of the notebook's.
    """
    if "IPython" not in sys.modules or not getattr(program, "FOREIGN_FLAGS", False):
        yield
        return
    from apache_beam import pipeline
    from apache_beam.utils import interactive_utils

    places: tuple[Any, ...] = (pipeline, interactive_utils)
    before = [place.is_in_ipython for place in places]
    for place in places:
        place.is_in_ipython = lambda: False
    try:
        yield
    finally:
        for place, is_in_ipython in zip(places, before, strict=True):
            place.is_in_ipython = is_in_ipython


def _values(program: Any) -> flags.FlagValues:
    from absl import flags as absl_flags

    values = absl_flags.FlagValues()
    program.define_flags(values)
    return values


def _word(positional: str) -> str:
    """What a positional argument is called: "DATASET" is dataset; one of several kinds is path."""
    name = positional.removesuffix("...").lower()
    if name.isidentifier():
        return name
    return "name" if name == positional else "path"  # words in capitals stand for something


# ---- From keywords to flags --------------------------------------------------------------------


def _flags(key: str, value: Any) -> Iterator[str]:
    """The flags that a keyword stands for.

    None stands for what is not given. `config` holds keys of the experiment, flat or nested. A name
    that Python keeps for itself has an underscore behind it: `from_`.
    """
    if key == _CONFIG.rstrip(".") and isinstance(value, Mapping):
        for path, leaf in _flat(value):
            text = "null" if leaf is None else _text(leaf, _CONFIG + path)
            yield f"--{_CONFIG}{path}={text if text or isinstance(leaf, str) else '[]'}"
    elif value is not None:
        key = key[:-1] if key.endswith("_") and keyword.iskeyword(key[:-1]) else key
        yield f"--{key}={_text(value, key)}"


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{path}", leaf) for path, leaf in _flat(value))
        else:
            yield key, value


def _text(value: Any, key: str) -> str:
    """A value as the command line would have it.

    (64, 64) is 64,64; {"train": 0.8, "test": 0.2} is train:0.8,test:0.2; {(0, 0, 0): 0} is itself.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, numbers.Real):  # those of NumPy as well
        return str(value)
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            return str(dict(value))
        return ",".join(f"{k}:{_item(v, key)}" for k, v in value.items())
    if isinstance(value, Sequence):
        return ",".join(_item(v, key) for v in value)
    raise UsageError(
        f"{key} is {type(value).__name__}: expected text, a number, True or False, a path, or a "
        "list, tuple or dict of these."
    )


def _item(value: Any, key: str) -> str:
    text = _text(value, key)
    if "," in text:
        raise UsageError(f"{key} holds {value!r}: what is in a list can have no comma.")
    return text


# ---- What comes back ---------------------------------------------------------------------------


def _result(command: str, values: flags.FlagValues, rest: Sequence[str]) -> Any:
    """What is left of a command that has been run; `_RETURNS` says it in words."""
    if "dry_run" in values and values.dry_run:
        return None
    if command in ("prepare", "verify"):
        from pipelines import manifest

        return manifest.load(values.output if command == "prepare" else rest[0])
    if command == "train":
        from train import runs

        return runs.load(values.run)
    if command == "evaluate":
        import json

        from pipelines import storage
        from train import runs

        path = runs.load(values.run).path("evaluation", f"{values.split}.json")
        return json.loads(storage.read_bytes(path))
    if command == "tune-postprocessing":
        from train import postprocessing, runs

        return runs.load(values.run).path(postprocessing.FILE)
    if command == "predict":
        return _predicted(values)
    if command == "report":
        from export import report

        return values.output or report.default_output([path.rstrip("/") for path in rest])
    if command == "convert-config":
        return values.output or os.path.splitext(rest[0])[0]
    return _output(values)


def _predicted(values: flags.FlagValues) -> dict[str, list[str]]:
    from export import predict
    from export.predictions import items, predict_flags

    found = items.find_items(values.images, values.output)
    written: dict[str, list[str]] = {item.path: [] for item in found}
    for item, path in predict.targets(found, predict_flags.outputs_of(values, "")):
        written[item.path].append(path)
    return written


def _output(values: flags.FlagValues) -> str | None:
    return values.output if "output" in values else None


_RETURNS = {
    "prepare": "The dataset's `pipelines.manifest.Manifest`.",
    "verify": "The dataset's `pipelines.manifest.Manifest`.",
    "train": "The run, a `train.runs.Run`; None with dry_run.",
    "evaluate": "What `evaluation/<split>.json` holds: a dict.",
    "tune-postprocessing": "The path of what was chosen; None with dry_run.",
    "predict": "A dict: path of the image or volume -> the files written for it, the mask first.",
    "completion": "The script.",
    "inspect": "The description.",
    "models": "The list.",
    "report": "The path of the page.",
    "plan": "The experiment as YAML, or `output`.",
    "propose-label-map": "The label map as YAML, or `output`.",
    "convert-config": "The folder of the files.",
}


# ---- What help() shows -------------------------------------------------------------------------


def _signature(program: Any, values: flags.FlagValues) -> inspect.Signature:
    parameters = []
    for text in getattr(program, "POSITIONAL", ()):
        if text.endswith("..."):
            parameters.append(
                inspect.Parameter(f"{_word(text)}s", inspect.Parameter.VAR_POSITIONAL)
            )
        else:
            default = None if hasattr(program, "INSTEAD") else inspect.Parameter.empty
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(inspect.Parameter(_word(text), kind, default=default))
    keywords: dict[str, Any] = {}
    for name in _own(values):
        if name.startswith(_CONFIG):
            keywords[_CONFIG.rstrip(".")] = None
        else:
            keywords[_python_name(name)] = values[name].default
    keywords |= {"quiet": False, "verbose": False}
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in keywords.items()
    ]
    if getattr(program, "FOREIGN_FLAGS", False):
        parameters.append(inspect.Parameter("beam", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)


def _docstring(command: str, program: Any, values: flags.FlagValues) -> str:
    lines = [(program.__doc__ or "").strip(), "", "Of Python, the flags are keywords:"]
    texts = {_python_name(name): values[name].help or "" for name in _own(values)}
    texts |= {name: GENERAL[name] for name in ("quiet", "verbose")}
    if any(name.startswith(_CONFIG) for name in texts):
        lines.append("  config: a dict of these keys, flat or nested:")
    for name, text in texts.items():
        indent = "    " if name.startswith(_CONFIG) else "  "
        head = f"{indent}{name.removeprefix(_CONFIG)}: {text}"
        lines += textwrap.wrap(head, 96, subsequent_indent=indent + "    ")
    if getattr(program, "FOREIGN_FLAGS", False):
        lines.append("  beam: options of Apache Beam, such as direct_num_workers=2.")
    returned = _RETURNS.get(command, "`output`.")
    return "\n".join([*lines, "", f"Returns: {returned}", "Raises: flexseg_errors.FlexsegError."])


def _python_name(flag: str) -> str:
    return f"{flag}_" if keyword.iskeyword(flag) else flag


def _own(values: flags.FlagValues) -> list[str]:
    """The flags in the order in which the program defines them."""
    return [flag.name for module in values.flags_by_module_dict().values() for flag in module]
