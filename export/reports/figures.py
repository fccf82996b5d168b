"""Matplotlib figures as SVG inside a page, in the colours of the page."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from export.reports import page

# Okabe and Ito 2008, the ones that stand out on white first; eyes of every kind tell them apart.
# The page darkens some on white and lightens some on black: --series-0 and so on in style.css.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
LINES = ("-", "--", ":", "-.")  # so that nobody needs the colours

WIDTH = 4.6  # inches: on a narrow screen its letters can still be read

_INK, _GRID = "#010203", "#010204"  # stand for the page's colours until the SVG is written
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_GEOMETRY = ("d", "x", "y", "points")
_LONGEST = 28  # characters of a name in a figure
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "flexseg",
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.dpi": 72,
}


@contextlib.contextmanager
def drawing(width: float = WIDTH, height: float = 3.2) -> Iterator[Any]:
    """Makes an empty figure, of so many inches, to be drawn in and given to `svg` inside `with`.

    What is drawn without a colour gets the page's: letters, axes and grid its ink, lines and bars
    `PALETTE` in order. Colours of classes go through `color`.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {**_SETTINGS, "axes.prop_cycle": cycler(color=PALETTE)}
    with matplotlib.rc_context(settings):
        figure = Figure((width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def color(rgb: Sequence[int]) -> str:
    """A colour of its own, RGB 0..255, that no change from light to dark touches."""
    red, green, blue = (int(v) for v in rgb)
    text = f"#{red:02x}{green:02x}{blue:02x}"
    if text in (_INK, _GRID, *PALETTE):  # one step beside those that stand for the page's
        text = f"#{red:02x}{green ^ 1:02x}{blue:02x}"
    return text


def label(name: str) -> str:
    """A name as a figure can show it: in one line, not too long."""
    name = page.visible(name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def svg(figure: Any, title: str, description: str) -> Markup:
    """Writes a figure of `drawing` as SVG for a page; the same figure always gives the same text.

    Args:
      figure: the figure.
      title: what it is, in a few words. Give every figure of a page a title of its own.
      description: what it shows, for those who do not see it.
    """
    data = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are drawn by the browser, which has others.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(data.getvalue())
    _strip(root)
    key = hashlib.sha256(
        "\0".join([title, description, ElementTree.tostring(root, "unicode")]).encode()
    ).hexdigest()[:8]
    _rename(root, f"f{key}-")
    box = [float(v) for v in root.attrib["viewBox"].split()]
    root.attrib.update(
        width=f"{box[2] * 4 / 3:.0f}",  # points to CSS pixels
        height=f"{box[3] * 4 / 3:.0f}",
        role="img",
    )
    root.set("aria-labelledby", f"f{key}-title f{key}-text")
    root.set("stroke-linejoin", "round")
    for tag, name, text in (("desc", "text", description), ("title", "title", title)):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", id=f"f{key}-{name}")
        element.text = page.visible(text)
        root.insert(0, element)
    return Markup(ElementTree.tostring(root, "unicode"))


def _strip(root: ElementTree.Element) -> None:
    """Takes out what a page has no use for, and makes attributes of styles, which it forbids."""
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for declaration in element.attrib.pop("style", "").split(";"):
            name, _, value = (part.strip() for part in declaration.partition(":"))
            if name:
                _declare(element, name, value)
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF))
        for name, value in list(element.attrib.items()):
            if name in _GEOMETRY:
                value = re.sub(r"-?\d+\.\d{3,}", _rounded, value)
            element.set(name, _in_colors_of_the_page(value))
        if element.tag != f"{{{_SVG}}}text":
            element.text = None  # blanks between elements
        element.tail = None


def _declare(element: ElementTree.Element, name: str, value: str) -> None:
    """Gives an element a CSS declaration as a presentation attribute."""
    if name == "font":  # weight, size and family in one, which no attribute takes
        if found := re.search(r"([\d.]+)px", value):
            element.set("font-size", found[1])
        if found := re.search(r"\b(bold|[1-9]00)\b", value):
            element.set("font-weight", found[1])
    elif name != "font-family":  # the page's
        element.set(name, value.removesuffix("px") if name == "font-size" else value)


def _in_colors_of_the_page(value: str) -> str:
    if value == _INK:
        return "currentColor"
    if value == _GRID:
        return "var(--grid)"
    return f"var(--series-{PALETTE.index(value)})" if value in PALETTE else value


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}"


def _rename(root: ElementTree.Element, prefix: str) -> None:
    """Gives the ids that are used a prefix, and takes the others away."""
    used = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "href" and value.startswith("#"):
                used.add(value[1:])
                element.set(name, "#" + prefix + value[1:])
            elif found := re.fullmatch(r"url\(#(.+)\)", value):
                used.add(found[1])
                element.set(name, f"url(#{prefix}{found[1]})")
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{prefix}{own}")
