"""The page of a dataset in a real browser."""

import re

import pytest

from tests.export.reports.conftest import PLAIN

PAGES = ("plain", "hostile")
WIDTHS = (400, 1400)
SHOWN = (
    "return [...document.querySelectorAll('.sheet .card')].filter(c => c.checkVisibility()).length"
)


@pytest.fixture(params=PAGES)
def path(request, pages):
    return pages[request.param]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_whole_and_asks_nobody_for_anything(browser, path, width, dark):
    browser.open(path, width, dark=dark)
    assert browser.errors() == []
    assert browser.foreign_requests() == []
    assert browser.requests, "the page itself is seen, so another would be, too"
    browser.js("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.sideways() <= 0
    assert browser.overlaps() == []
    assert browser.violations() == []
    paper = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 300) == dark


def test_what_the_tests_look_for_they_find(browser, pages):
    """Console errors, foreign requests, wide pages, overlaps and violations are seen where made."""
    browser.open(pages["plain"])
    browser.js(
        "const image = document.createElement('img'); image.src = 'file:///nowhere.png';"
        "document.querySelector('h1').before(image);"
        "const wide = document.createElement('p'); wide.textContent = 'wide';"
        "wide.style.width = '5000px'; wide.style.maxWidth = 'none'; document.body.append(wide);"
        "const over = document.createElement('p'); over.textContent = 'over and over';"
        "over.style.marginTop = '-2rem'; document.querySelector('h1').after(over);"
    )
    assert any("Content Security Policy" in message for message in browser.errors())
    assert browser.sideways() > 3000
    assert any("over and over" in pair for pair in browser.overlaps())
    assert any(v.startswith("image-alt") for v in browser.violations())


def test_a_page_that_asks_for_more_is_seen(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text('<!doctype html><title>x</title><img src="other.png"><script>nope()</script>')
    browser.open(path)
    assert browser.foreign_requests() == [(tmp_path / "other.png").as_uri()]
    assert any("nope" in message for message in browser.errors())


def test_the_policy_stops_what_would_reach_out(browser, pages, tmp_path):
    text = pages["plain"].read_text(encoding="utf-8")
    attack = '<img src="http://example.invalid/x.png" onerror="window.hit=1">'
    attack += "<script>window.hit=1</script>"
    path = tmp_path / "attacked.html"
    path.write_text(text.replace("<main", attack + "<main"), encoding="utf-8")
    browser.open(path)
    assert browser.js("return window.hit === undefined")
    assert len([m for m in browser.errors() if "Content Security Policy" in m]) >= 2


def test_no_hostile_name_runs_or_changes_the_page(browser, pages):
    browser.open(pages["hostile"])
    assert browser.js("return document.scripts.length") == 1
    assert browser.js("return document.styleSheets.length") == 1
    assert browser.js(
        "return [...document.querySelectorAll('*')].every("
        "e => ![...e.attributes].some(a => a.name.startsWith('on')))"
    )
    assert browser.js("return document.querySelectorAll('main h2').length") == 7
    assert browser.find("h1").text == "records"


def test_the_slider_changes_the_masks_from_the_keyboard(browser, pages):
    from selenium.webdriver.common.keys import Keys

    browser.open(pages["plain"])
    opacity = "return getComputedStyle(document.querySelector('.sheet .layer')).opacity"
    slider = browser.find("[data-opacity]")
    assert float(browser.js(opacity)) == 0.5
    slider.send_keys(Keys.END)
    assert float(browser.js(opacity)) == 1
    slider.send_keys(Keys.HOME)
    assert float(browser.js(opacity)) == 0
    slider.send_keys(Keys.ARROW_RIGHT)
    assert float(browser.js(opacity)) == 0.05
    assert slider.get_attribute("aria-valuetext") == "5%"
    assert browser.find("[data-opacity] + output").text == "5%"


def test_the_size_slider_changes_the_pictures(browser, pages):
    from selenium.webdriver.common.keys import Keys

    browser.open(pages["plain"])
    width = "return document.querySelector('.sheet .card img').getBoundingClientRect().width"
    before = browser.js(width)
    browser.find("[data-width]").send_keys(Keys.END)
    assert browser.js(width) > 1.5 * before


def test_filters_show_what_they_say_from_the_keyboard(browser, pages):
    from selenium.webdriver.common.keys import Keys

    browser.open(pages["plain"])
    cards = [
        (c.get_attribute("data-split"), c.get_attribute("data-class").split())
        for c in browser.find_all(".sheet .card")
    ]
    status = browser.find("[role=status]")
    assert status.text == f"{len(PLAIN)} of {len(PLAIN)} pictures"

    def choose(key, text):
        select = browser.find(f"[data-filter={key}]")
        options = [o.text for o in select.find_elements("css selector", "option")]
        select.send_keys(Keys.HOME, *[Keys.ARROW_DOWN] * options.index(text))
        return browser.js(SHOWN)

    bone = [split for split, held in cards if "2" in held]
    assert choose("class", "bone") == len(bone) == 4
    assert status.text == "4 of 16 pictures"
    assert choose("split", "train") == bone.count("train")
    assert choose("split", "all") == len(bone)
    empty = [split for split, held in cards if "none" in held]
    assert choose("class", "(no foreground)") == len(empty) == 4
    assert choose("class", "all") == len(cards)
    assert choose("split", "valid") == [split for split, _ in cards].count("valid")


def test_everything_is_reached_by_tab_and_the_first_stop_skips_ahead(browser, pages):
    from selenium.webdriver.common.keys import Keys

    browser.open(pages["plain"])
    body = browser.find("body")
    seen = []
    for _ in range(200):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.driver.switch_to.active_element
        if active == body:
            break
        seen.append(
            browser.js(
                "const e = document.activeElement, s = getComputedStyle(e);"
                "return [e.className, e.tagName, e.dataset.filter || '', s.outlineStyle]"
            )
        )
    assert seen[0][0] == "skip"
    tags = {tag for _, tag, *_ in seen}
    assert {"A", "SELECT", "INPUT", "SUMMARY"} <= tags
    assert {"class", "split"} <= {key for *_, key, _ in seen}
    assert all(outline != "none" for *_, outline in seen), "what has the focus can be seen"


def test_without_javascript_everything_can_be_read(browser, pages):
    browser.open(pages["plain"], script=False)
    try:
        text = browser.find("main").text
        assert all(name in text for name in PLAIN)
        assert len([c for c in browser.find_all(".sheet .card") if c.is_displayed()]) == len(PLAIN)
        assert not browser.find("[data-controls]").is_displayed(), "they would do nothing"
        for details in browser.find_all("main details:not([open])"):
            details.find_element("css selector", "summary").click()
            assert details.get_attribute("open")
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)


def test_on_paper_there_is_more_than_a_blank_page(browser, pages):
    for script in (True, False):
        browser.open(pages["plain"], dark=True, script=script)
        pdf = browser.pdf()
        assert pdf.startswith(b"%PDF")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3
        assert len(re.findall(rb"/Subtype\s*/Image\b", pdf)) >= len(PLAIN)
    browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
    browser.open(pages["plain"], dark=True)
    browser.cdp("Emulation.setEmulatedMedia", media="print")
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert browser.js("return document.querySelectorAll('details:not([open])').length") == 0
    assert (
        browser.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    assert not browser.find("[data-controls]").is_displayed()
    browser.resize(700)
    assert browser.sideways() <= 0
    assert browser.overlaps() == []
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert browser.js("return document.querySelectorAll('details:not([open])').length") > 0
