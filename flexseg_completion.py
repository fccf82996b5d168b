"""Prints what lets a shell complete flexseg: commands, flags, their values, and paths.

What is printed is complete in itself: at TAB nothing is started or imported. Print it anew after
an update.

Examples:
  mkdir -p ~/.local/share/bash-completion/completions
  flexseg completion bash > ~/.local/share/bash-completion/completions/flexseg
  flexseg completion zsh > ~/.zfunc/_flexseg   # with fpath+=~/.zfunc before compinit in .zshrc
  flexseg completion fish > ~/.config/fish/completions/flexseg.fish
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flexseg_console import result
from flexseg_errors import UsageError, nearest
from flexseg_flags import GENERAL, PLACES, Flag, described

if TYPE_CHECKING:
    from absl import flags

SHELLS = ("bash", "zsh", "fish")
POSITIONAL = ("bash|zsh|fish",)


def define_flags(values: flags.FlagValues) -> None:
    """Defines no flags."""


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    shell = rest[0]
    if shell not in SHELLS:
        raise UsageError(
            f"completion knows bash, zsh and fish, not {shell}.{nearest(shell, SHELLS)} "
            "See flexseg completion --help."
        )
    result({"bash": bash, "zsh": zsh, "fish": fish}[shell](commands()), end="")


@dataclasses.dataclass(frozen=True)
class Known:
    """What can be completed of a command.

    Attributes:
      name: the command.
      summary: what it does.
      words: what may stand for itself after it.
      place: "folder" or "file" where a path may; "" where none.
      flags: its flags, and those of every command.
    """

    name: str
    summary: str
    words: tuple[str, ...]
    place: str
    flags: tuple[Flag, ...]


def commands() -> list[Known]:
    """All commands."""
    from absl import flags as absl_flags

    # The one import of the command line from below: this program is about it.
    from flexseg import COMMANDS

    general = [Flag(name, "", "", text) for name, text in GENERAL.items()]
    found = []
    for name, command in COMMANDS.items():
        program = importlib.import_module(command.module)
        values = absl_flags.FlagValues()
        program.define_flags(values)
        taken = Flag("", "|".join(getattr(program, "POSITIONAL", ())).replace("...", ""), "", "")
        own = (*described(name, values), *general)
        found.append(Known(name, command.summary, taken.choices, place(taken), own))
    found.append(Known("help", "explain a command", tuple(COMMANDS), "", ()))
    return found


def place(flag: Flag) -> str:
    """Whether paths may stand for a value: "file" (of folders, too), "folder", or ""."""
    kinds = {PLACES[word] for word in flag.stand_ins if word in PLACES}
    return "file" if "file" in kinds else "folder" if kinds else ""


def values_of(flag: Flag) -> tuple[str, ...]:
    """The values that can be named, of networks and experiments too."""
    names: tuple[str, ...] = flag.choices
    if "EXPERIMENT" in flag.stand_ins:
        from train import shipped

        names += tuple(shipped.names())
    if "NETWORK" in flag.stand_ins:
        from models import registry

        names += tuple(registry.ARCHITECTURES)
    if "PRESET" in flag.stand_ins:
        from pipelines.augment_presets import PRESETS

        names += tuple(PRESETS)
    return names


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[a-z)])[.:;] ", text.rstrip("."))[0].replace("'", "’")


# ---- bash ----------------------------------------------------------------------------------------

_BASH = """\
# Completion of flexseg for bash, made by `flexseg completion bash`; make it anew after an update.

# What may stand for a value: words to choose from, and whether it may be a path.
_flexseg_value() {
  case "$1" in
@VALUES@
    *) return 1 ;;
  esac
}

_flexseg() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  local flag= before= command= words= place= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ ${COMP_WORDS[i]} != -* ]]; then command=${COMP_WORDS[i]}; break; fi
  done
  # bash divides --flag=value at "=", unless somebody told it not to.
  if [[ $cur == --*=* ]]; then
    flag=${cur%%=*} before=${cur%%=*}= cur=${cur#*=}
  elif [[ $cur == "=" ]]; then
    flag=$prev cur=
  elif [[ $prev == "=" && COMP_CWORD -ge 2 ]]; then
    flag=${COMP_WORDS[COMP_CWORD-2]}
  elif [[ $prev == --* && $cur != -* ]] && _flexseg_value "$command $prev"; then
    flag=$prev
  fi
  if [[ -n $flag ]]; then
    _flexseg_value "$command $flag"
  else
    case "$command" in
      "") words="@COMMANDS@" ;;
@TAKEN@
    esac
    if [[ $cur == -* || -z $words$place ]]; then
      place=
      case "$command" in
        "") words="@COMMANDS@ --help --version" ;;
@FLAGS@
      esac
    fi
  fi
  if [[ $words == *,... ]]; then  # a list: what stands before the last comma stays
    words=${words%,...}
    [[ $cur == *,* ]] && before+=${cur%,*}, cur=${cur##*,}
  fi
  COMPREPLY=()
  while IFS= read -r i; do COMPREPLY+=("$i"); done < <(
    compgen -P "$before" -W "$words" -- "$cur"
    case $place in
      folder) compgen -P "$before" -d -- "$cur" ;;
      file) compgen -P "$before" -f -- "$cur" ;;
    esac
  )
  if [[ -n $place ]]; then
    compopt -o filenames 2>/dev/null
  elif [[ ${COMPREPLY[0]} == *= ]]; then
    compopt -o nospace 2>/dev/null
  fi
  return 0
}
complete -F _flexseg flexseg
"""


def bash(known: Sequence[Known]) -> str:
    """The script for bash."""
    answers: dict[str, dict[str, list[str]]] = {}  # flag -> what to set -> commands where it is so
    for command in known:
        for flag in command.flags:
            if flag.form:
                words = " ".join(values_of(flag)) + (",..." if flag.is_list else "")
                answer = f"words={shlex.quote(words)} place={place(flag)}"
                answers.setdefault(flag.name, {}).setdefault(answer, []).append(command.name)
    lines = []
    for name, told in answers.items():
        for answer, where in told.items():
            patterns = [f'"{c} --{name}"' for c in where] if len(told) > 1 else [f'*" --{name}"']
            lines.append(f"    {' | '.join(patterns)}) {answer} ;;")
    taken = [
        f'      {c.name}) words="{" ".join(c.words)}" place={c.place} ;;'
        for c in known
        if c.words or c.place
    ]
    flags_ = [
        f'        {c.name}) words="{" ".join(_dashed(flag) for flag in c.flags)}" ;;' for c in known
    ]
    return _filled(
        _BASH,
        VALUES="\n".join(lines),
        COMMANDS=" ".join(c.name for c in known),
        TAKEN="\n".join(taken),
        FLAGS="\n".join(flags_),
    )


def _dashed(flag: Flag) -> str:
    name = f"no{flag.name}" if not flag.form and flag.default == "true" else flag.name
    return f"--{name}=" if flag.form else f"--{name}"


def _filled(template: str, **parts: str) -> str:
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


# ---- zsh -----------------------------------------------------------------------------------------

_ZSH = """\
#compdef flexseg
# Completion of flexseg for zsh, made by `flexseg completion zsh`; make it anew after an update.

# Words to choose from, and then a path; the last argument says how paths are found.
_flexseg_or_path() {
  compadd -- "${@[1,-2]}"
  ${=@[-1]}
}

_flexseg() {
  local context state state_descr line
  typeset -A opt_args
  _arguments -C \\
    '(- *)--help[list the commands]' '(- *)--version[tell the version]' \\
    '1:command:->command' '*::argument:->argument'
  case $state in
    command)
      local -a commands=(
@COMMANDS@
      )
      _describe command commands
      ;;
    argument)
      case $words[1] in
@ARGUMENTS@
      esac
      ;;
  esac
}

if [[ $funcstack[1] == _flexseg ]]; then _flexseg "$@"; else compdef _flexseg flexseg; fi
"""


def zsh(known: Sequence[Known]) -> str:
    """The script for zsh."""
    lines = [f"        {shlex.quote(_colon(c.name) + ':' + c.summary)}" for c in known]
    cases = []
    for command in known:
        specs = []
        for flag in command.flags:
            said = _bracketed(_first_sentence(flag.text))
            spec = f"{_dashed(flag)}[{said}]"
            specs.append(spec + (f":{_colon(flag.form)}:{_action(flag)}" if flag.form else ""))
        if command.words:
            specs.append(f"*:{command.name}:({' '.join(command.words)})")
        elif command.place:
            specs.append(f"*:path:{_PATHS[command.place]}")
        quoted = " \\\n            ".join(shlex.quote(spec) for spec in specs)
        cases += [
            f"        {command.name})",
            f"          _arguments \\\n            {quoted}",
            "          ;;",
        ]
    return _filled(_ZSH, COMMANDS="\n".join(lines), ARGUMENTS="\n".join(cases))


_PATHS = {"file": "_files", "folder": "_files -/"}


def _action(flag: Flag) -> str:
    words, path = " ".join(map(_colon, values_of(flag))), _PATHS.get(place(flag), "")
    if flag.is_list and words:
        return f" _values -s , value {words}"
    if words and path:
        return f" _flexseg_or_path {words} {shlex.quote(path)}"  # a space first: called as it is
    return f"({words})" if words else path or " "


def _colon(text: str) -> str:
    return text.replace(":", "\\:")


def _bracketed(text: str) -> str:
    return _colon(text.replace("[", "(").replace("]", ")"))


# ---- fish ----------------------------------------------------------------------------------------


def fish(known: Sequence[Known]) -> str:
    """The script for fish."""
    names = " ".join(c.name for c in known)
    lines = [
        "# Completion of flexseg for fish, made by `flexseg completion fish`; make it anew after",
        "# an update.",
        "complete -c flexseg -f",
        f"set -l names {names}",
    ]
    for command in known:
        lines.append(
            'complete -c flexseg -n "not __fish_seen_subcommand_from $names" '
            f"-a {command.name} -d {_fish(command.summary)}"
        )
    for command in known:
        after = f'complete -c flexseg -n "__fish_seen_subcommand_from {command.name}"'
        if command.words:
            lines.append(f"{after} -a {_fish(' '.join(command.words))}")
        elif command.place:
            lines.append(f"{after} -a {_fish(_FISH_PATHS[command.place])}")
        for flag in command.flags:
            option = (
                f"{after} -l {_dashed(flag)[2:].rstrip('=')} -d {_fish(_first_sentence(flag.text))}"
            )
            lines.append(option + (f" -x{_fish_values(flag)}" if flag.form else ""))
    return "\n".join(lines) + "\n"


_FISH_PATHS = {"file": "(__fish_complete_path)", "folder": "(__fish_complete_directories)"}


def _fish_values(flag: Flag) -> str:
    words, path = " ".join(values_of(flag)), _FISH_PATHS.get(place(flag), "")
    if flag.is_list and words:
        words = f"(__fish_append , {words})"
    return f" -a {_fish(' '.join(part for part in (words, path) if part))}" if words or path else ""


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
