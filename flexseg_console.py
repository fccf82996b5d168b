"""What the programs say while they work, and how much: results to stdout, all else to stderr.

It stands at the top because every room says things, and rooms may not import one another freely.

- `result`: what somebody asked for, where no file has it. Always said, to stdout.
- `print`: what was done, in short. To stdout; nothing under --quiet.
- `say`: what happens on the way. To stderr; nothing under --quiet.
- `detail`: more of that, with the time since the start. To stderr, under --verbose alone.
- `progress`: how far it is. To stderr: on a terminal one bar, rewritten in place, as wide as the
  terminal; elsewhere (a pipe, a notebook, TERM=dumb) a line now and then.

Nothing is coloured, so that NO_COLOR has nothing to switch off.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import IO, Any, ClassVar, Generic, TypeVar

_SECONDS_BETWEEN_LINES = 60.0
_SECONDS_IN_A_NOTEBOOK = 15.0  # somebody looks at it, but each line stays in the file

_T = TypeVar("_T")


class _Talk:
    """How much is said now."""

    verbose: bool = False
    began: float = 0.0
    out: IO[str] | None = None  # stdout, while --quiet keeps it from everybody else
    bars: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()  # on the terminal


@contextlib.contextmanager
def talking(quiet: bool, verbose: bool) -> Iterator[None]:
    """Says less or more while the `with` statement lasts.

    Args:
      quiet: only `result` is said; what libraries print is kept away, too.
      verbose: `detail` is said as well.
    """
    before = _Talk.verbose, _Talk.began, _Talk.out
    _Talk.verbose, _Talk.began = verbose, time.monotonic()
    try:
        if not quiet:
            yield
            return
        _Talk.out = _Talk.out or sys.stdout
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
    finally:
        for bar in list(_Talk.bars):  # of what was broken off: or it would tear what is said next
            bar.close()
        _Talk.verbose, _Talk.began, _Talk.out = before


def result(text: str, end: str = "\n") -> None:
    """Prints what was asked for to stdout, also under --quiet."""
    print(text, end=end, file=_Talk.out or sys.stdout, flush=True)


def say(text: str) -> None:
    """Prints a line to stderr without tearing a bar that is there."""
    if (tqdm := sys.modules.get("tqdm")) is not None:
        tqdm.tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()
    else:
        print(text, file=sys.stderr, flush=True)


def detail(text: str) -> None:
    """Says under --verbose what is done, with the seconds since the command began."""
    if _Talk.verbose:
        say(f"[{time.monotonic() - _Talk.began:7.1f} s] {text}")


def is_terminal(stream: Any) -> bool:
    """Whether a line that is written to a stream can be rewritten in place."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def progress(
    over: Iterable[_T] | None = None,
    *,
    total: int | None = None,
    done: int = 0,
    unit: str = "item",
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Shows how far a work is, to be used as tqdm is: looped over, or updated by hand.

    Args:
      over: what is worked through.
      total: how much there is; `len(over)` where it is not said.
      done: how much was done before.
      unit: what one of it is called.
      clock: tells the time in seconds.

    Returns:
      A context manager with `update(n)`, `set_postfix_str(text)`, `n` and `close()`; over what
      there is to loop over, an iterable.
    """
    if total is None and isinstance(over, Sized):
        total = len(over)
    if is_terminal(sys.stderr):
        from tqdm import tqdm

        bar = tqdm(over, total=total, initial=done, unit=unit, dynamic_ncols=True, file=sys.stderr)
        _Talk.bars.add(bar)
        return bar
    return Lines(over, total, done, unit, clock)


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this; an ipykernel that is only imported does not count."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Lines(Generic[_T]):
    """Progress where no line can be rewritten: one more, now and then."""

    def __init__(
        self,
        over: Iterable[_T] | None,
        total: int | None,
        done: int,
        unit: str,
        clock: Callable[[], float],
    ):
        """See `progress`; says nothing yet."""
        self.n = done
        self._over, self._total, self._done, self._unit = over, total, done, unit
        self._text, self._clock = "", clock
        self._began = self._told = clock()
        self._seconds = _SECONDS_IN_A_NOTEBOOK if _in_notebook() else _SECONDS_BETWEEN_LINES

    def __iter__(self) -> Iterator[_T]:
        for item in self._over or ():
            yield item
            self.update()

    def __enter__(self) -> Lines[_T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """That many more are done."""
        self.n += n
        now = self._clock()
        if now - self._told >= self._seconds and self.n > self._done:
            self._told = now
            say(self._line(now - self._began))

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """What else is said, from the next line on; `refresh` is for tqdm's likeness."""
        del refresh
        self._text = text

    def close(self) -> None:
        """Nothing is left to be done."""

    def _line(self, seconds: float) -> str:
        from tqdm import tqdm

        parts = [self._text] if self._text else []
        line = f"{self._unit.capitalize()} {self.n}"
        if self._total is not None:
            line += f" of {self._total}"
            left = seconds / (self.n - self._done) * (self._total - self.n)
            parts.append(f"{tqdm.format_interval(max(0.0, left))} left")
        return f"{line}: {', '.join(parts)}" if parts else line
