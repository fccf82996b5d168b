"""The flags of all commands: what their values look like, their help, and what is wrong with some.

absl parses them. What it does not know, the form of a value (a folder, a file, height and width,
names to choose from), stands here, by the flag's name: a name means the same in every command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flexseg_errors import UsageError, nearest

if TYPE_CHECKING:
    from absl import flags

# Switches of every command, and what they do.
GENERAL = {
    "help": "Show what the command does, and its flags.",
    "quiet": "Say nothing but errors, and what the command was asked for where no file has it.",
    "verbose": "Say more of what is done, with the time since the start.",
    "debug": "Show where an error came from, and what libraries log.",
}
SHORT = {"-h": "--help", "-q": "--quiet", "-v": "--verbose", "--helpfull": "--help"}

# What a value looks like. A word in capitals stands for something, all else for itself; "," is
# between the items of a list. PLACES are completed as paths, EXPERIMENT and NETWORK as names.
PLACES = {
    "FOLDER": "folder", "DATASET": "folder", "RUN": "folder", "BUNDLE": "folder",
    "MASKS_DIR": "folder", "FILE": "file",
}  # fmt: skip
_FORMS = {
    "augment": "FILE|PRESET",
    "blend": "probabilities|logits",
    "colorize": "COLOR",
    "config.train.preview_folder": "none|FOLDER",
    "data": "DATASET",
    "dataset": "FOLDER",
    "experiment": "FILE|EXPERIMENT",
    "figure": "FILE",
    "film_pictures": "slices|masks|overlays,...",
    "format": (
        "saved_model|tflite|tflite_f16|tflite_int8|onnx|saved_model_f16|saved_model_int8,..."
    ),
    "group_regex": "REGEX",
    "groups": "FILE",
    "ignore_color": "R,G,B",
    "image_encoding": "png|raw|jpeg|jpeg:QUALITY",
    "image_size": "HEIGHT,WIDTH",
    "images": "FOLDER|FILE",
    "init_from": "RUN",
    "intensity": "none|minmax|percentile:LOW,HIGH|window:CENTRE,WIDTH",
    "label_map": "FILE|LITERAL",
    "maps": "entropy|agreement,...",
    "mask_dataset": "NAME",
    "mask_format": "palette|rgb|index",
    "mask_kind": "colors|index|binary:otsu|binary:triangle|binary:THRESHOLD",
    "mask_suffix": "SUFFIX",
    "masks": "FOLDER",
    "model": "RUN|BUNDLE|FILE,...",
    "output": "FOLDER",
    "overlap": "SHARE|PIXELS",
    "preprocessing": "STEP,...",
    "run": "RUN",
    "runner": "NAME",
    "scales": "FACTOR,...",
    "serving": "FOLDER",
    "sizes": "PIXELS,...",
    "spacing": "HEIGHT,WIDTH",
    "split": "train|valid|test",
    "split_from": "DATASET",
    "table": "FILE",
    "truth": "FOLDER|FILE",
    "volume_axis": "auto|0|1|2",
    "volume_dataset": "NAME",
    "volume_pictures": "slices|masks|overlays,...",
    "weights": "gaussian|uniform|margin",
}  # fmt: skip
_FORMS_OF = {  # where a command makes an exception
    ("extract", "split"): "train|valid|test,...",
    ("inspect", "model"): "NETWORK",
    ("plan", "output"): "FILE",
    ("predict", "intensity"): (
        "none|minmax|minmax-slice|percentile:LOW,HIGH|percentile-slice:LOW,HIGH|window:CENTRE,WIDTH"
    ),
    ("prepare", "images"): "FOLDER",
    ("prepare", "split"): "NAME:SHARE,...",
    ("propose-label-map", "output"): "FILE",
    ("report", "output"): "FILE",
}
_NUMBERS = {"int": "INT", "float": "FLOAT"}
_CONFIG = "config."
REQUIRED = "Required."  # so ends the help of a flag that must be given
_WIDEST = 100  # columns of help


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag, for help, completion and documentation.

    Attributes:
      name: without dashes.
      form: what its value looks like, such as "FOLDER" or "none|flips|d4"; "" for a switch.
      default: as the command line would have it; "" where there is none, or the text tells it.
      text: its help.
    """

    name: str
    form: str
    default: str
    text: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that can be named beforehand."""
        words = self.form.removesuffix(",...").split("|")
        return tuple(w for w in words if w and not re.search("[A-Z]", w))

    @property
    def is_list(self) -> bool:
        """Whether several values may stand there, with commas between them."""
        return self.form.endswith(",...")

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """The words in the form that stand for something, such as FOLDER."""
        words = self.form.removesuffix(",...").split("|")
        return tuple(w for w in words if re.fullmatch("[A-Z_]+", w))


def described(command: str, values: flags.FlagValues) -> list[Flag]:
    """The flags of a command in the order in which the program defines them."""
    own = [flag for module in values.flags_by_module_dict().values() for flag in module]
    keys = {}
    if any(flag.name.startswith(_CONFIG) for flag in own):
        from train import experiment

        keys = experiment.forms()
    return [_described(command, flag, keys) for flag in own]


def _described(command: str, flag: Any, keys: dict[str, str]) -> Flag:
    choices = getattr(flag.parser, "enum_values", None)
    text = flag.help.partition(">: ")[2] if choices else flag.help  # absl repeats the choices
    if flag.boolean:
        form = ""
    elif flag.name.startswith(_CONFIG):
        form = _FORMS.get(flag.name) or keys[flag.name.removeprefix(_CONFIG)]
    elif choices:
        form = "|".join(choice for choice in choices if choice)
    elif flag.flag_type() in _NUMBERS:
        form = _NUMBERS[flag.flag_type()]
    else:
        form = _FORMS_OF.get((command, flag.name)) or _FORMS.get(flag.name, "TEXT")
    default = "" if flag.default in (None, "", []) else (flag.default_as_str or "").strip("'")
    return Flag(flag.name, form, default, " ".join(text.split()))


def command_help(name: str, program: Any, values: flags.FlagValues) -> str:
    """What `flexseg COMMAND --help` prints: the program's docstring, then its own flags."""
    usage = " ".join(["flexseg", name, *getattr(program, "POSITIONAL", ()), "[--flag=value ...]"])
    lines = [f"Usage: {usage}", "", _narrowed((program.__doc__ or "").strip())]
    if own := described(name, values):
        lines += ["", "Flags:"]
    for flag in own:
        default = f" [{flag.default}]" if flag.default else ""
        text = flag.text
        if not flag.form and flag.default == "true":
            text += f" --no{flag.name} switches it off."
        head = f"  --{flag.name}" + (f"={flag.form}" if flag.form else "") + default
        if len(head) > width():
            some = "Some" if flag.is_list else "One"
            text = f"{some} of {flag.form.removesuffix(',...').replace('|', ', ')}. {text}"
            head = f"  --{flag.name}=NAME{',...' * flag.is_list}{default}"
        lines.append(head)
        lines += _indented(text)
    lines += ["", "Flags of every command:"]
    for switch, text in GENERAL.items():
        short = {long: s for s, long in SHORT.items() if len(s) == 2}.get(f"--{switch}")
        lines.append(f"  --{switch}" + (f", {short}" if short else ""))
        lines += _indented(text)
    return "\n".join(lines)


def width() -> int:
    """Columns of help: those of the terminal, or of COLUMNS, as far as text reads well."""
    columns = os.environ.get("COLUMNS", "")
    found = [int(columns)] if columns.isdecimal() and int(columns) else []
    for stream in (1, 2, 0):  # `flexseg train --help | less` has but the others
        with contextlib.suppress(OSError):
            found.append(os.get_terminal_size(stream).columns)
    return max(40, min(_WIDEST, found[0] if found and found[0] else _WIDEST))


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, width(), initial_indent=" " * 6, subsequent_indent=" " * 6)


def _narrowed(text: str) -> str:
    """A docstring on a narrower terminal; what is indented stays, as it may be a command."""
    if width() == _WIDEST:
        return text
    parts = [
        part if re.search("^ ", part, re.MULTILINE) else textwrap.fill(part, width())
        for part in text.split("\n\n")
    ]
    return "\n\n".join(parts)


def split_general(arguments: Sequence[str]) -> tuple[set[str], list[str]]:
    """Takes the switches of every command out of a command line.

    Returns:
      Those that are on, without dashes, and what is left.
    """
    on: set[str] = set()
    rest: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            rest += arguments[i:]
            break
        name = SHORT.get(argument, argument).removeprefix("--")
        if argument.startswith("-") and name in GENERAL:
            on.add(name)
        else:
            rest.append(argument)
    return on, rest


def parse(name: str, program: Any, values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Parses a command's flags into `values`.

    Returns:
      The positional arguments, and the flags of others where the program takes them.

    Raises:
      UsageError: naming what cannot be used and the nearest known name.
    """
    from absl import flags as absl_flags

    foreign = getattr(program, "FOREIGN_FLAGS", False)
    positional: tuple[str, ...] = getattr(program, "POSITIONAL", ())
    see = f"See flexseg {name} --help."
    try:
        rest = values([f"flexseg {name}", *arguments], known_only=True)[1:]
    except absl_flags.Error as error:
        raise UsageError(f"{_mended(str(error), values)} {see}") from error
    for argument in rest:
        if re.match("--?[A-Za-z]", argument) and not foreign:
            flag = argument.lstrip("-").partition("=")[0]
            hint = nearest(flag, list(values)) or _without_flag(name, flag, positional)
            raise UsageError(f'{name} has no flag "--{flag}".{hint} {see}')
    if foreign:
        return list(rest)
    instead = getattr(program, "INSTEAD", None)  # a flag that stands for the positional arguments
    if instead and values[instead].value:
        positional = ()
    several = bool(positional) and positional[-1].endswith("...")
    if len(rest) < len(positional) or (len(rest) > len(positional) and not several):
        got = " ".join(rest) or "none"
        if positional:
            raise UsageError(f"{name} takes {' '.join(positional)}; got {got}. {see}")
        raise UsageError(stray(name, rest[0], values))
    return list(rest)


def stray(name: str, argument: str, values: flags.FlagValues) -> str:
    """What to say of an argument without a flag, where a command takes none."""
    first = next((f for f in described(name, values) if f.name == argument.partition("=")[0]), None)
    if first is None:  # a path most likely, and meant for the first flag that takes one
        place = [f for f in described(name, values) if set(f.stand_ins) & set(PLACES)]
        hint = f' Did you mean "--{place[0].name}={argument}"?' if place else ""
    else:
        hint = f' Did you mean "--{argument}"?'
    return f"{name} takes no argument without --; got {argument}.{hint} See flexseg {name} --help."


def _without_flag(name: str, flag: str, positional: Sequence[str]) -> str:
    """A hint for who names what needs no name: `verify --data=records`."""
    if not positional or flag not in (
        "data",
        "dataset",
        "run",
        "model",
        "masks",
        "config",
        "input",
    ):
        return ""
    return f" {positional[0]} stands by itself: flexseg {name} {positional[0]}."


_WRONG = {
    "int": "expected a whole number",
    "float": "expected a number",
    "bool": "expected true or false",
}


def _mended(message: str, values: flags.FlagValues) -> str:
    """The message of absl on a wrong value, with what was expected and the nearest choice."""
    found = re.match(r"flag --(.+?)=(.*?): ", message, re.DOTALL)
    if found is None or found[1] not in values:
        message = message.replace("flag --", "--", 1).rstrip(".")
        return f"{message[0].upper()}{message[1:]}."
    flag, value = values[found[1]], found[2]
    choices = [str(c) for c in getattr(flag.parser, "enum_values", None) or () if c]
    if choices:
        return f"--{flag.name}={value}: expected {_either(choices)}.{nearest(value, choices)}"
    wrong, least = _WRONG.get(flag.flag_type(), "no such value"), _bound(flag)
    return f"--{flag.name}={value}: {wrong}{'' if least is None else f' of at least {least}'}."


def _bound(flag: flags.Flag) -> float | None:
    return getattr(flag.parser, "lower_bound", None)


def _either(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)
