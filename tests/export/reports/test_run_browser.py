"""Pages of runs in a real browser: quiet, closed, readable, and of the window's width."""

import pytest

from export.reports import comparison_page, run_page
from export.reports.options import Options
from tests.export.reports import drawn_runs

LONG = ("background", "a class whose name is long enough to need two lines in a table", "W" * 60)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages by name: of one run, of three, and of a run that has nothing yet."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [
        drawn_runs.make(folder / name, names, splits=("test", "valid"), seed=seed, **how)
        for seed, (name, names, how) in enumerate(
            [
                ("first", drawn_runs.NAMES, {}),
                ("second " + "w" * 80, LONG, {"epochs": 1, "keys": {"model": {"levels": 3}}}),
                ("third", drawn_runs.NAMES, {"fingerprint": "cd" * 32}),
            ]
        )
    ]
    bare = drawn_runs.make(folder / "bare", epochs=0, splits=())
    texts = {
        "run": run_page.page(runs[0], Options(pictures=0)),
        "long": run_page.page(runs[1], Options(pictures=0)),
        "bare": run_page.page(bare, Options(pictures=0)),
        "comparison": comparison_page.page([*runs, bare], Options()),
    }
    paths = {name: folder / f"{name}.html" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text, encoding="utf-8")
    return paths


NAMES = ["run", "long", "bare", "comparison"]


def unfold(browser):
    browser.js("document.querySelectorAll('details').forEach(d => { d.open = true; });")


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_keeps_to_its_window_and_to_itself(browser, pages, name, width):
    browser.open(pages[name], width=width)
    for look in (lambda: None, lambda: unfold(browser)):
        look()
        assert browser.sideways() == 0
        assert browser.overlaps() == []
    assert browser.errors() == []
    assert browser.foreign_requests() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_be_read_by_everybody(browser, pages, name, dark):
    browser.open(pages[name], dark=dark)
    unfold(browser)
    assert browser.violations() == []


def test_without_scripts_all_can_be_read_and_unfolded(browser, pages):
    browser.open(pages["run"], script=False)
    folded = browser.find_all("details")
    assert folded
    assert not folded[0].get_attribute("open")
    folded[0].find_element("css selector", "summary").send_keys(" ")
    assert folded[0].get_attribute("open")
    assert browser.find("#curves svg").is_displayed()


def test_the_contents_lead_to_their_sections(browser, pages):
    browser.open(pages["comparison"])
    links = browser.find_all(".contents a")
    assert [link.text for link in links] == [h.text for h in browser.find_all("main h2")]
    for link in links:
        assert browser.find(link.get_attribute("href").rpartition("/")[2].partition("html")[2])


def test_figures_take_the_colours_of_the_page(browser, pages):
    colors = []
    for dark in (False, True):
        browser.open(pages["run"], dark=dark)
        text = "return getComputedStyle(document.querySelector('#curves svg text')).fill"
        colors.append(browser.js(text))
        paper = browser.js("return getComputedStyle(document.body).backgroundColor")
        assert colors[-1] != paper
    assert colors[0] != colors[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_be_printed(browser, pages, name):
    browser.open(pages[name])
    assert browser.pdf().startswith(b"%PDF")
    assert len(browser.pdf()) > 20_000
