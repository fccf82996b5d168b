"""What every page is: closed, escaped, the same each time."""

import base64
import hashlib
import re

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from export.reports import page


@pytest.fixture
def template(monkeypatch):
    """A function that renders a template's text with a context, as `page.render` does."""

    def render(text, **context):
        page._environment.cache_clear()
        environment = page._environment()
        loader = jinja2.ChoiceLoader([jinja2.DictLoader({"t": text}), environment.loader])
        monkeypatch.setattr(environment, "loader", loader)
        return page.render("t", **context)

    yield render
    page._environment.cache_clear()


PAGE = """{% extends "base.html.j2" %}{% import "macros.html.j2" as ui %}
{% block title %}{{ name }}{% endblock %}{% block kind %}Thing{% endblock %}
{% block content %}
{% call ui.section("one", "The " ~ name) %}<p title="{{ name }}">{{ name }}</p>{% endcall %}
{% call ui.section("two", "More") %}{{ ui.table(name, [name], [[name], [number]]) }}{% endcall %}
{% endblock %}"""


def test_nothing_of_a_text_becomes_markup(template):
    text = template(PAGE, name="<script>x</script>\"'&{{7*7}}", number=3)
    assert text.count("<script>") == 1, "the page's own"
    assert "&lt;script&gt;x&lt;/script&gt;&#34;&#39;&amp;{{7*7}}" in text
    assert "\"'&" not in text


def test_what_is_missing_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError, match="number"):
        template(PAGE, name="a")


def test_the_policy_names_the_script_and_the_style_and_nothing_else(template):
    text = template(PAGE, name="a", number=1)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("img-src") == "data:"
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'"
    assert set(rules.values()) == {"'none'"}


def test_the_contents_list_every_section_in_order(template):
    text = template(PAGE, name="a & b", number=1)
    listed = re.findall(r'<li><a href="#(\w+)">(.*?)</a>', text)
    assert listed == [("one", "The a &amp; b"), ("two", "More")]


def test_what_is_markup_stays(template):
    assert "<b>bold</b>" in template(PAGE, name="a", number=Markup("<b>bold</b>"))


@given(st.text(st.characters()))
def test_a_visible_name_is_one_line_of_text_that_can_be_written(text):
    shown = page.visible(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & set("\x00\x1b\x7f\u200b\u202e\u2066\ufeff")
    assert page.visible(shown) == shown


@pytest.mark.parametrize("name", ["plain.png", "größe", "長い", "a b", "👩‍🔬", "می‌خواهم", "<&>"])
def test_a_name_that_can_be_seen_stays_as_it_is(name):
    assert page.visible(name) == name


@pytest.mark.parametrize(
    ("text", "shown"), [("a\nb", "a\\nb"), ("\u202eb", "\\u202eb"), ("\udcff", "\\udcff")]
)
def test_what_cannot_be_seen_is_shown_as_its_code(text, shown):
    assert page.visible(text) == shown


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (page.number, 1234567, "1,234,567"),
        (page.number, 0.123456, "0.1235"),
        (page.percent, 0, "0.0%"),
        (page.percent, 1, "100.0%"),
        (page.percent, 0.5, "50.0%"),
        (page.percent, 0.0123, "1.23%"),
        (page.percent, 0.00002, "0.0020%"),
        (page.percent, 1e-9, "<0.0001%"),
        (page.size, 999, "999 bytes"),
        (page.size, 1500, "1.5 kB"),
        (page.size, 2.5e9, "2.5 GB"),
    ],
)
def test_numbers_are_for_people(function, value, text):
    assert function(value) == text


def test_flags_in_a_text_are_set_as_code_and_all_else_is_escaped():
    shown = page.flags("See --mask_kind=binary:0 <b> and a--b.")
    assert shown == 'See <code class="flag">--mask_kind=binary:0</code> &lt;b&gt; and a--b.'
