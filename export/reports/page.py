"""Templates to one HTML file that holds all it needs and asks nobody for more."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
from typing import Any

import jinja2
from markupsafe import Markup, escape

from train import software

GENERATOR = "flexseg report"  # what a page says of who made it

_FOLDER = os.path.join(os.path.dirname(__file__), "templates")
_SECTION = re.compile(r'<section id="([^"]+)"[^>]*>\s*<h2[^>]*>(.*?)</h2>', re.DOTALL)
_FLAG = re.compile(r"(?<![\w-])(--[a-z][\w.]*(?:=[\w.:]+)?)")
# What would break a line, be invisible, turn the direction of what follows, or be no text at all:
# controls, marks and overrides of direction, separators, the byte order mark, lone surrogates.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)


def render(template: str, **context: Any) -> str:
    """Renders a page.

    All values are escaped, unless they are `Markup`; a name that is not given is an error. What
    could not be seen in a name (a line break, an override of direction) is shown as its code.
    The page may run its own script and style alone, known by their SHA-256, and may load nothing
    but pictures that it holds. So templates have no `style` attributes, and no script of their own.

    Args:
      template: its file's name in `templates/`; it extends `base.html.j2`.
      **context: what the template shows.
    """
    style, script = _text("style.css"), _text("page.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_source(style)}; script-src {_source(script)}"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            page_style=Markup(style),
            page_script=Markup(script),
            page_policy=policy,
            page_generator=GENERATOR,
            page_version=software.version(),
            **context,
        )
    )


def is_report(head: bytes) -> bool:
    """Whether a file that begins so is a page made here."""
    return f'<meta name="generator" content="{GENERATOR}">'.encode() in head


def visible(text: str) -> str:
    r"""A name for one line: what has no shape of its own becomes its code, such as \u202e."""
    return _UNSEEN.sub(lambda found: _code(found[0]), text)


def number(value: float) -> str:
    """A whole number with commas between thousands, any other to four digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """A share, 0..1, in percent: one digit after the point, more where it is small."""
    if share == 0 or share >= 0.1:
        return f"{share:.1%}"
    return f"{share:.2%}" if share >= 0.001 else ("<0.0001%" if share < 1e-6 else f"{share:.4%}")


def size(count: float) -> str:
    """Bytes in the unit that fits, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def flags(text: str) -> Markup:
    """A text in which flags are set as code, and are not broken at their dashes."""
    return Markup(_FLAG.sub(r'<code class="flag">\1</code>', str(escape(visible(text)))))


def _code(character: str) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    value = ord(character)
    return known.get(character) or (f"\\u{value:04x}" if value < 1 << 16 else f"\\U{value:08x}")


def _sections(body: str) -> list[tuple[str, Markup]]:
    """(id, title) of the sections of a page's content, for its table of contents."""
    return [(found[1], Markup(found[2])) for found in _SECTION.finditer(body)]


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, percent=percent, size=size, flags=flags)
    environment.globals["sections"] = _sections
    return environment


@functools.cache
def _text(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding="utf-8") as file:
        return file.read()


def _source(text: str) -> str:
    """How a content security policy names an inline script or style."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
