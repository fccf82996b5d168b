"""Completion: what the shells themselves make of the scripts."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flexseg
import flexseg_completion

COMMANDS = list(flexseg.COMMANDS)
KNOWN = {known.name: known for known in flexseg_completion.commands()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files and folders to be found, and the scripts."""
    folder = tmp_path_factory.mktemp("completion")
    for name in ("records", "recent runs", "runs"):
        (folder / name).mkdir()
    (folder / "recipe.yaml").write_text("")
    for shell in flexseg_completion.SHELLS:
        known = list(KNOWN.values())
        script = {"bash": flexseg_completion.bash, "zsh": flexseg_completion.zsh,
                  "fish": flexseg_completion.fish}[shell](known)  # fmt: skip
        (folder / f"script.{shell}").write_text(script)
    return folder


def have(shell):
    return pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed")


# What is typed -> what is offered for the last word, without what stands there unchanged before it.
CASES = [
    ("flexseg tra", {"train"}),
    ("flexseg help eva", {"evaluate"}),
    ("flexseg completion ", {"bash", "zsh", "fish"}),
    ("flexseg evaluate --tt", {"--tta="}),
    ("flexseg evaluate --tta=", {"none", "flips", "d4"}),
    ("flexseg evaluate --tta=f", {"flips"}),
    ("flexseg evaluate --nop", {"--nopostprocessing"}),
    ("flexseg evaluate --run=run", {"runs"}),
    ("flexseg evaluate --run=reci", set()),
    ("flexseg export --format=onnx,tflite_f", {"onnx,tflite_f16"}),
    ("flexseg train --config.train.preci", {"--config.train.precision="}),
    ("flexseg train --config.train.precision=mixed_b", {"mixed_bfloat16"}),
    ("flexseg train --experiment=published_st", {"published_stare"}),
    ("flexseg train --experiment=reci", {"recipe.yaml"}),
    ("flexseg inspect --model=unet", {"unet3_plus"}),
    ("flexseg verify reco", {"records"}),
    ("flexseg convert-config reci", {"recipe.yaml"}),
    ("flexseg prepare --split_method=s", {"stable"}),
    ("flexseg prepare --folds=", set()),
]


def bash_reply(folder, typed, divides_at_equals=True):
    """What the script's function replies, called as bash calls it."""
    words = []
    for word in typed.split(" "):
        flag, equals, value = word.partition("=")
        if equals and divides_at_equals:
            words += [flag, "=", value] if value else [flag, "="]
        else:
            words.append(word)
    quoted = " ".join(map(shlex.quote, words))
    code = (
        f"source script.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _flexseg; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [shutil.which("bash") or "", "--norc", "-c", code],
        cwd=folder, env={"PATH": "/nowhere"},  # so that nothing else can be started
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return {line.strip() for line in done.stdout.split("\n") if line}


@have("bash")
@pytest.mark.parametrize(("typed", "offered"), CASES)
def test_bash_offers_what_fits(folder, typed, offered):
    assert bash_reply(folder, typed) == offered


@have("bash")
@pytest.mark.parametrize(("typed", "offered"), [c for c in CASES if "=" in c[0]])
def test_bash_that_does_not_divide_at_equals_gets_whole_words(folder, typed, offered):
    before = typed.split(" ")[-1].partition("=")[0] + "="
    assert bash_reply(folder, typed, divides_at_equals=False) == {before + o for o in offered}


@have("bash")
def test_bash_itself_completes_at_tab(folder):
    """A bash that somebody types into; what it then has on its line is echoed."""
    import pty

    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "> ", "INPUTRC": "/dev/null"}
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        lines = [
            "flexseg() { printf '<%s>' \"$@\"; echo END; }\n",
            "source script.bash\n",
            "flexseg evalu\t--tta=fl\t--run=recen\t\n",
            "exit\n",
        ]
        os.write(ours, "".join(lines).encode())
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # it has ended
                break
            if not part:
                break
            shown += part
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    assert b"<evaluate><--tta=flips><--run=recent runs/>END" in shown, shown.decode()


@have("fish")
@pytest.mark.parametrize(("typed", "offered"), CASES)
def test_fish_offers_what_fits(folder, tmp_path, typed, offered):
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source script.fish; complete -C {shlex.quote(typed)}"],
        cwd=folder, env=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    found = {line.split("\t")[0] for line in done.stdout.splitlines()}
    last = typed.split(" ")[-1]
    before = last.partition("=")[0] + "=" if "=" in last else ""
    wanted = {before + o for o in offered}
    if not before:  # fish puts the "=" itself
        wanted = {o.rstrip("=") for o in wanted}
    assert {f.rstrip("/") for f in found} == wanted


@have("zsh")
@pytest.mark.parametrize(("typed", "offered"), [c for c in CASES if len(c[1]) == 1])
def test_zsh_completes_what_is_unique(folder, typed, offered):
    """A zsh in a terminal of its own; what it then has on its line is printed by its editor."""
    code = f"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "cd {shlex.quote(str(folder))}; autoload -Uz compinit; compinit -u -D; source script.zsh"
zpty -w z "show-line() {{ print -r -- BEGIN\\$BUFFER:END; BUFFER=; zle send-break }}"
zpty -w z "zle -N show-line; bindkey '^I' complete-word; bindkey '^X' show-line; print REA''DY"
zpty -r z got '*READY*'
zpty -w -n z {shlex.quote(typed)}$'\\t'$'\\x18'
zpty -r z got '*BEGIN*END*'
print -r -- "$got"
zpty -d z
"""
    done = subprocess.run(
        ["zsh", "-f", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    line = done.stdout.rpartition("BEGIN")[2].partition(":END")[0].strip()
    last = typed.split(" ")[-1]
    before = typed[: len(typed) - len(last)]
    before += last.partition("=")[0] + "=" if "=" in last else ""
    assert line.rstrip("/ ,") == (before + next(iter(offered))).rstrip(), done


@pytest.mark.parametrize("shell", flexseg_completion.SHELLS)
def test_the_command_prints_the_script_and_nothing_else(command, folder, shell):
    result = command("completion", shell)
    assert (result.status, result.err) == (0, "")
    assert result.out == (folder / f"script.{shell}").read_text()
    assert max(map(len, result.out.splitlines()[:3])) <= 100
    assert command("completion", shell, "--quiet").out == result.out


@pytest.mark.parametrize("shell", flexseg_completion.SHELLS)
def test_every_command_flag_and_value_is_in_the_script(folder, shell):
    text = (folder / f"script.{shell}").read_text()
    for name in COMMANDS:
        assert name in text
        for flag in KNOWN[name].flags:
            assert flag.name in text
            for value in flexseg_completion.values_of(flag):
                assert value in text or value.replace(":", "\\:") in text


def test_a_shell_that_is_not_known_gets_those_that_are(command):
    result = command("completion", "bsh")
    assert result.status == 2
    assert "completion knows bash, zsh and fish, not bsh." in result.err
    assert 'Did you mean "bash"?' in result.err


def test_the_script_is_made_without_tensorflow():
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", "import sys, flexseg; flexseg.main(['completion', 'bash']); "
         "print([m for m in ('tensorflow', 'apache_beam') if m in sys.modules])"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
