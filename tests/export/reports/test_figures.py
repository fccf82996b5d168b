"""Figures inside a page."""

from xml.etree import ElementTree

import pytest

from export.reports import figures

NAMES = ["<b>&\"'", "$x^2$", "a\nb\x00\x1b", "長い名前", "{{7*7}}"]


def draw(title="A title", names=NAMES, color=(0, 0, 0)):
    with figures.drawing() as figure:
        axes = figure.subplots()
        for name in names:
            axes.plot([1, 2], [3, 4], label=figures.label(name))
        axes.barh([0], [1], color=figures.color(color))
        axes.grid(True)
        if names:
            axes.legend()
        return figures.svg(figure, title, "What it shows <here> & there")


@pytest.fixture(scope="module")
def root():
    return ElementTree.fromstring(draw())


def local(element):
    return element.tag.rpartition("}")[2]


def test_the_same_figure_is_the_same_text():
    assert draw() == draw()


def test_names_are_text_as_they_are(root):
    texts = [e.text for e in root.iter() if local(e) == "text"]
    for name in NAMES:
        assert figures.label(name) in texts


def test_it_has_a_name_and_a_description(root):
    assert root.attrib["role"] == "img"
    by_id = {e.attrib.get("id"): e for e in root.iter()}
    named = [by_id[key] for key in root.attrib["aria-labelledby"].split()]
    assert [(local(e), e.text) for e in named] == [
        ("title", "A title"),
        ("desc", "What it shows <here> & there"),
    ]


def test_it_holds_neither_styles_nor_references_elsewhere(root):
    for element in root.iter():
        assert "style" not in element.attrib, "the page's policy forbids them"
        assert local(element) not in ("style", "script", "metadata", "image")
        for name, value in element.attrib.items():
            assert "http" not in value or name.startswith("xmlns")
            assert not name.endswith("href") or value.startswith("#")


def test_every_reference_is_met_and_every_id_is_unique(root):
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "href":
                assert value[1:] in ids
            elif value.startswith("url(#"):
                assert value[5:-1] in ids


def test_figures_of_other_titles_share_no_id():
    one, other = (
        {e.attrib.get("id") for e in ElementTree.fromstring(draw(title)).iter()} - {None}
        for title in ("One", "Other")
    )
    assert one
    assert not one & other


def test_letters_and_lines_have_the_colors_of_the_page(root):
    paints = {e.attrib.get(kind) for e in root.iter() for kind in ("fill", "stroke")}
    assert {"currentColor", "var(--grid)", "var(--series-0)", "var(--series-4)"} <= paints
    texts = [e for e in root.iter() if local(e) == "text"]
    assert {e.attrib["fill"] for e in texts} == {"currentColor"}
    assert "#ffffff" not in paints, "no background of its own"


@pytest.mark.parametrize("color", [(1, 2, 3), (1, 2, 4), (0, 114, 178), (255, 255, 255), (0, 0, 0)])
def test_a_class_keeps_its_color(color):
    root = ElementTree.fromstring(draw(names=[], color=color))
    (bar,) = (e for e in root.iter() if "clip-path" in e.attrib and e.get("fill") != "none")
    fill = bar.get("fill", "#000000")  # of which SVG need not say anything
    shown = [int(fill[i : i + 2], 16) for i in (1, 3, 5)]
    assert max(abs(a - b) for a, b in zip(shown, color, strict=True)) <= 1


def test_a_long_name_is_cut():
    assert len(figures.label("x" * 500)) < 40


@pytest.mark.parametrize(
    ("style", "attributes"),
    [  # as older and as newer releases of Matplotlib write it
        ("font: bold 9.5px 'DejaVu Sans'", {"font-size": "9.5", "font-weight": "bold"}),
        ("font: 700 10px 'DejaVu Sans'; text-anchor: end",
         {"font-size": "10", "font-weight": "700", "text-anchor": "end"}),
        ("font-size: 10px; font-weight: 700; font-family: 'DejaVu Sans'; text-anchor: end",
         {"font-size": "10", "font-weight": "700", "text-anchor": "end"}),
    ],
)  # fmt: skip
def test_the_style_of_a_text_becomes_attributes(style, attributes):
    element = ElementTree.Element("{http://www.w3.org/2000/svg}text", style=style)
    figures._strip(element)
    assert element.attrib == attributes
