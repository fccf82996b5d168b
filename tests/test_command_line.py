"""The command line: help made for people, exit 0, 1 or 2, and one clear message without traceback.

Cheap to ask: `flexseg --help` imports neither TensorFlow nor Beam.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flexseg
from flexseg_errors import FlexsegError, UsageError, nearest

ROOT = Path(__file__).parents[1]
COMMANDS = list(flexseg.COMMANDS)
HEAVY = ("tensorflow", "keras", "apache_beam", "cv2", "numpy", "matplotlib")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("argument", ["--help", "-h", "help"])
def test_help_lists_every_command_with_a_line_each(command, argument):
    result = command(argument)
    assert result.status == 0
    assert result.err == ""
    for name, entry in flexseg.COMMANDS.items():
        assert f"  {name} " in result.out
        assert entry.summary in result.out
    assert max(map(len, result.out.splitlines())) <= 100


@pytest.mark.parametrize("before", [["help", "verify"], ["verify", "-h"], ["--help", "verify"]])
def test_help_of_a_command_is_asked_for_in_any_order(command, before):
    assert command(*before) == command("verify", "--help")
    assert command(*before).status == 0


def test_help_imports_neither_tensorflow_nor_beam():
    result = run(
        "import sys, flexseg; status = flexseg.main(['--help'])\n"
        f"print('LOADED', [m for m in {HEAVY} if m in sys.modules], status)"
    )
    assert result.stdout.splitlines()[-1] == "LOADED [] 0", result.stderr


def test_no_argument_shows_the_help_and_is_wrong_usage(command):
    result = command()
    assert result.status == 2
    assert "Usage: flexseg COMMAND" in result.out


def test_the_version_is_the_packages(command):
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    result = command("--version")
    assert (result.status, result.out) == (0, f"flexseg {flexseg.VERSION}\n")
    assert setup["metadata"]["version"] in ("attr: flexseg.VERSION", flexseg.VERSION)


@pytest.mark.parametrize(
    ("name", "meant"), [("prepair", "prepare"), ("tran", "train"), ("verfiy", "verify")]
)
def test_an_unknown_command_gets_the_nearest_name(command, name, meant):
    result = command(name)
    assert result.status == 2
    assert result.err == (
        f'flexseg: there is no command "{name}". Did you mean "{meant}"? See flexseg --help.\n'
    )


def test_a_command_like_no_other_gets_no_guess(command):
    result = command("xyzzy")
    assert result.status == 2
    assert "Did you mean" not in result.err


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "prepare"])
def test_an_unknown_flag_of_any_command_is_wrong_usage(command, name):
    result = command(name, "--no_such_flag_at_all=3")
    assert result.status == 2
    assert f'{name} has no flag "--no_such_flag_at_all".' in result.err
    assert f"See flexseg {name} --help." in result.err


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--lable_map=x", "label_map"),
        ("--tile-size=8", "tile_size"),
        ("--direct_num_worker=2", "direct_num_workers"),
    ],
)
def test_an_unknown_flag_of_prepare_gets_the_nearest_of_its_own_and_beams(command, flag, meant):
    result = command("prepare", "--output=x", "--label_map={(0,0,0):0}", "--dataset=x", flag)
    assert result.status == 2
    assert f'has no flag "{flag}", and neither has Apache Beam.' in result.err
    assert f'Did you mean "{meant}"?' in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare"], "prepare needs --output."),
        (["prepare", "--output=x"], "prepare needs --label_map."),
        (["prepare", "--tile_size=big"], "--tile_size"),
        (["prepare", "--split_method=fair"], "--split_method"),
        (["prepare", "x"], 'takes no argument without --; got x. Did you mean "--dataset=x"?'),
        (["verify"], "verify takes DATASET; got none."),
        (["verify", "a", "b"], "verify takes DATASET; got a b."),
        (["train"], "train needs --"),
        (["evaluate"], "evaluate needs --run."),
        (["evaluate", "split=test"], 'got split=test. Did you mean "--split=test"?'),
        (["evaluate", "x"], 'takes no argument without --; got x. Did you mean "--run=x"?'),
        (["predict", "x"], 'takes no argument without --; got x. Did you mean "--model=x"?'),
        (["verify", "--data=x"], "DATASET stands by itself: flexseg verify DATASET."),
        (["train", "--run"], "Missing value for --run."),
        (["prepare", "--folds=3.5"], "--folds=3.5: expected a whole number."),
        (["predict", "--opacity=much"], "--opacity=much: expected a number."),
        (["predict", "--overlay=maybe"], "--overlay=maybe: expected true or false."),
        (["verify", "x", "--quiet", "--verbose"], "--quiet or --verbose, not both."),
        (["predict"], "predict needs --"),
        (["export"], "export needs --"),
    ],
)
def test_what_is_missing_or_no_value_is_wrong_usage(command, arguments, message):
    result = command(*arguments)
    assert result.status == 2
    assert message in result.err
    assert "both" in message or f"See flexseg {arguments[0]} --help." in result.err
    assert result.err.startswith(f"flexseg {arguments[0]}")
    assert f"{arguments[0]}: {arguments[0]}" not in result.err, "its name once"
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1


def test_a_users_error_is_one_message_without_traceback(command, tmp_path):
    result = command("verify", tmp_path / "nowhere")
    assert result.status == 1
    assert result.out == ""
    assert result.err.startswith(f"flexseg verify: {tmp_path}/nowhere is no folder")
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--debug", "nowhere"), ("nowhere", "--debug")])
def test_debug_shows_where_an_error_came_from(command, arguments):
    result = command("verify", *arguments)
    assert result.status == 1
    assert "Traceback" in result.err
    assert "manifest.py" in result.err


class Fault:
    """A program that goes wrong."""

    def __init__(self, error: BaseException):
        self._error = error

    def define_flags(self, values: object) -> None:
        pass

    def run(self, values: object, rest: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (FlexsegError("mend it"), 1, "flexseg verify: mend it\n"),
        (UsageError("no"), 2, "flexseg verify: no\n"),
        (KeyboardInterrupt(), 130, "interrupted. Run the same command again to go on."),
        (KeyError("k"), 1, "unexpected KeyError: 'k'\nThis may be a mistake in flexseg; --debug"),
        (RuntimeError("noise\n\nlast\n"), 1, "unexpected RuntimeError: last\n"),
        (RuntimeError(), 1, "unexpected RuntimeError: (no message)"),
    ],
)
def test_every_error_has_its_status_and_no_traceback(command, monkeypatch, error, status, message):
    monkeypatch.setattr(flexseg.importlib, "import_module", lambda name: Fault(error))
    monkeypatch.setitem(flexseg.COMMANDS, "verify", flexseg.Command("fault", ""))
    monkeypatch.setattr(Fault, "POSITIONAL", ("DATASET",), raising=False)
    result = command("verify", "x")
    assert result.status == status
    assert message in result.err
    assert "Traceback" not in result.err


def test_debug_shows_where_what_nobody_foresaw_came_from(monkeypatch, capsys):
    monkeypatch.setattr(flexseg.importlib, "import_module", lambda name: Fault(KeyError("k")))
    monkeypatch.setitem(flexseg.COMMANDS, "verify", flexseg.Command("fault", ""))
    monkeypatch.setattr(Fault, "POSITIONAL", ("DATASET",), raising=False)
    monkeypatch.setattr(sys, "argv", ["flexseg", "verify", "x", "--debug"])
    monkeypatch.delitem(sys.modules, "tensorflow_io", raising=False)
    with pytest.raises(SystemExit) as end:
        flexseg.entry()
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.endswith("KeyError: 'k'\n")
    assert "raise self._error" in told


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"]])
def test_whoever_stops_reading_gets_no_complaint(arguments, unbuffered):
    """`flexseg --help | head -3`."""
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "flexseg.py", *arguments], cwd=ROOT, stdout=write, text=True,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, check=False,
    )  # fmt: skip
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


def test_an_output_that_cannot_be_written_is_told():
    with open("/dev/full", "w") as full:  # a device that is always full, as the kernel has it
        result = subprocess.run(
            [sys.executable, "flexseg.py", "--help"], cwd=ROOT, stdout=full, text=True,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": ""}, check=False,
        )  # fmt: skip
    expected = "flexseg: its output cannot be written: No space left on device.\n"
    assert (result.returncode, result.stderr) == (1, expected)


def test_the_nearest_name_is_close_or_none():
    assert nearest("trian", ["train", "test"]) == ' Did you mean "train"?'
    assert nearest("q", ["train", "test"]) == ""


def test_the_console_command_is_the_only_one():
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    assert [s for s in scripts if s] == ["flexseg = flexseg:entry"]


def test_a_beam_option_passes_through_a_real_command_line(tmp_path):
    """The program as a person calls it, TensorFlow's noise kept away."""
    result = subprocess.run(
        [sys.executable, "flexseg.py", "prepare", f"--dataset={tmp_path}", f"--output={tmp_path}/o",
         "--label_map={(0,0,0):0}", "--direct_num_workers=1", "--job_name=x"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"flexseg prepare: --dataset={tmp_path} must hold images/ and masks/, or train/, valid/ "
        "and test/ that hold them; it holds nothing.\n"
    )
