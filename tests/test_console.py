"""How much is said, and where: results to stdout, all else to stderr; progress that behaves."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import pty
import struct
import sys
import termios
import types

import pytest
from tqdm import tqdm

import flexseg
import flexseg_console
from flexseg_errors import FlexsegError

COMMANDS = list(flexseg.COMMANDS)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


class Talker:
    """A program that says something in every way there is."""

    POSITIONAL = ()

    def __init__(self, error=None):
        self._error = error

    def define_flags(self, values):
        pass

    def run(self, values, rest):
        print("a summary")
        print("a note", file=sys.stderr)
        flexseg_console.say("on the way")
        flexseg_console.detail("in detail")
        for _ in flexseg_console.progress(range(3), unit="thing"):
            pass
        for _ in tqdm(range(3)):
            pass
        flexseg_console.result("asked for")
        if self._error:
            raise self._error


@pytest.fixture
def talker(monkeypatch):
    def use(error=None):
        monkeypatch.setattr(flexseg.importlib, "import_module", lambda name: Talker(error))

    return use


@pytest.mark.parametrize("name", COMMANDS)
def test_quiet_says_nothing_but_what_was_asked_for(command, talker, name):
    talker()
    assert command(name, "--quiet") == (0, "asked for\n", "")
    assert command("-q", name) == (0, "asked for\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_quiet_tells_errors(command, talker, name):
    talker(FlexsegError("mend it"))
    assert command(name, "--quiet") == (1, "asked for\n", f"flexseg {name}: mend it\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_verbose_says_more_with_times_and_to_stderr(command, talker, name):
    talker()
    plain, verbose = command(name), command(name, "--verbose")
    assert plain.out == verbose.out == "a summary\nasked for\n"
    assert "in detail" not in plain.err
    assert f" s] flexseg {flexseg.VERSION} {name} begins, in " in verbose.err
    assert " s] in detail\n" in verbose.err
    assert f" s] {name} is done after " in verbose.err
    for line in ("a note", "on the way"):
        assert line in plain.err
        assert line in verbose.err


def test_how_much_is_said_ends_with_the_command(command, talker):
    talker()
    command("verify", "--quiet")
    command("verify", "--verbose")
    assert "in detail" not in command("verify").err
    assert command("verify").out == "a summary\nasked for\n"


def test_quiet_commands_that_make_files_print_nothing(command, tmp_path):
    """The programs themselves, as far as they take no network."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(5)
    for kind in ("images", "masks"):
        (tmp_path / "in" / kind).mkdir(parents=True)
        for i in range(6):
            pixels = (
                rng.integers(0, 255, (16, 16, 3)) if kind == "images" else np.zeros((16, 16, 3))
            )
            pixels[4 : 8 + i, 4:9] = 255
            cv2.imwrite(str(tmp_path / "in" / kind / f"{i}.png"), pixels.astype(np.uint8))
    folder, records = tmp_path / "in", tmp_path / "records"
    label_map = "--label_map={(0,0,0):0,(255,255,255):1}"
    for arguments in (
        ["prepare", f"--dataset={folder}", f"--output={records}", label_map, "--split=train:1",
         "--direct_num_workers=1"],
        ["verify", records],
        ["extract", records, f"--output={tmp_path}/files"],
        ["convert-masks", f"--masks={folder}/masks", f"--output={tmp_path}/ids", label_map,
         "--to=index"],
        ["propose-label-map", folder / "masks", f"--output={tmp_path}/map.yaml"],
        ["plan", records, f"--output={tmp_path}/experiment.yaml"],
    ):  # fmt: skip
        assert command(*arguments, "--quiet") == (0, "", ""), arguments[0]
    assert command("inspect", records, "-q").out == command("inspect", records).out != ""
    loud = command("prepare", f"--dataset={folder}", f"--output={records}", label_map,
                   "--split=train:1", "-v")  # fmt: skip
    assert loud.out.startswith(f"{records}: train 6 examples")
    assert "6 sources found, 0 of no use" in loud.err
    plain = command("prepare", f"--dataset={folder}", f"--output={records}", label_map,
                    "--split=train:1")  # fmt: skip
    assert (plain.out, plain.err) == (loud.out, "6 of 6 shards are already there.\n")


# ---- Progress ------------------------------------------------------------------------------------


def clocked(seconds):
    """A clock that goes on by so many seconds at each look."""
    now = [0.0]

    def clock():
        now[0] += seconds
        return now[0]

    return clock


def test_a_pipe_gets_a_line_a_minute_and_the_time_left(capsys):
    bar = flexseg_console.progress(range(100), unit="image", clock=clocked(7.0))
    assert list(bar) == list(range(100)), "nothing is lost on the way"
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    # Nine looks of 7 s are beyond a minute; at 7 s an image, 91 are left: 637 s.
    assert lines[0] == "Image 9 of 100: 10:37 left"
    assert lines[1] == "Image 18 of 100: 09:34 left"
    assert len(lines) == 11
    assert "\r" not in captured.err


@pytest.mark.parametrize(("shell", "seconds"), [({"kernel": 0}, 15), ({}, 60), (None, 60)])
def test_a_notebook_gets_a_few_lines_more_and_no_thousands(capsys, monkeypatch, shell, seconds):
    running = None if shell is None else types.SimpleNamespace(**shell)
    there = types.SimpleNamespace(get_ipython=lambda: running)
    monkeypatch.setitem(sys.modules, "IPython", there)
    with flexseg_console.progress(total=3000, unit="step", clock=clocked(1.0)) as bar:
        for _ in range(3000):
            bar.update()
    assert len(capsys.readouterr().err.splitlines()) == 3000 / seconds


def test_without_a_total_lines_count(capsys):
    bar = flexseg_console.progress(iter("abc"), unit="record", clock=clocked(100.0))
    assert list(bar) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == ["Record 1", "Record 2", "Record 3"]


@pytest.mark.parametrize("columns", [30, 60, 120])
def test_a_terminal_gets_one_bar_rewritten_in_place_at_its_width(monkeypatch, columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")  # as a shell may leave it; the window has its own
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        bar = flexseg_console.progress(total=50, done=10, unit="step")
        for i in range(40):
            text = f"loss {i:.4f}, dice 0.1234, learning rate 1e-3, waiting 3%"
            bar.set_postfix_str(text, refresh=i < 3)  # a few, or the terminal's buffer is full
            bar.update()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns - 9, 0, 0))
        bar.set_postfix_str(f"narrower now, {text}")
        bar.close()
        monkeypatch.undo()
    shown = b""
    with contextlib.suppress(OSError):  # it ends so once all is read
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    shown = shown.decode().replace("\r\n", "\n")
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    frames = [f.rstrip() for f in shown.rstrip("\n").split("\r") if f.strip()]
    assert frames
    assert max(map(len, frames)) <= columns
    assert len(frames[-1]) <= columns - 9, "the window was made narrower"
    assert "10/50" in frames[0]
    assert "50/50" in frames[-1]
    assert "\x1b[" not in shown, "no colours, and no cursor that wanders"


def test_a_dumb_terminal_gets_lines(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert list(flexseg_console.progress(range(5), unit="image", clock=clocked(61.0)))
    assert "\r" not in terminal.getvalue()
    assert terminal.getvalue().startswith("Image 1 of 5: ")


def test_what_is_said_does_not_tear_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    with flexseg_console.progress(total=5, unit="step") as bar:
        bar.update()
        flexseg_console.say("Epoch 0: loss 1")
        bar.update()
    line = next(part for part in terminal.getvalue().split("\n") if "Epoch 0" in part)
    assert line.rpartition("\r")[2] == "Epoch 0: loss 1"


def test_a_bar_that_was_broken_off_is_closed_before_the_error_is_told(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("TERM", raising=False)

    class Broken(Talker):
        def run(self, values, rest):
            self.bar = flexseg_console.progress(total=9, unit="step")
            self.bar.update()
            raise KeyboardInterrupt

    program = Broken()
    monkeypatch.setattr(flexseg.importlib, "import_module", lambda name: program)
    assert flexseg.main(["verify"]) == 130
    told = terminal.getvalue()
    assert told.endswith("\nflexseg verify: interrupted. Run the same command again to go on.\n")


def test_errors_that_are_logged_are_seen_under_quiet(command, monkeypatch):
    seen = io.StringIO()
    handler = logging.StreamHandler(seen)
    logging.getLogger().addHandler(handler)
    try:

        class Logging(Talker):
            def run(self, values, rest):
                logging.getLogger("somebody").error("it is broken")

        monkeypatch.setattr(flexseg.importlib, "import_module", lambda name: Logging())
        assert command("verify", "--quiet").status == 0
    finally:
        logging.getLogger().removeHandler(handler)
    assert "it is broken" in seen.getvalue()
