"""The documentation builds as a site without a warning; links lead somewhere; it asks nobody."""

from __future__ import annotations

import html.parser
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from tests.docs.markdown_pages import PAGES, ROOT, links, name_of

pytest.importorskip("material", reason="mkdocs-material is not installed")

REPOSITORY_PAGES = [
    path
    for name in ("README.md", "BUILD.md", "CHANGELOG.md", "CONTRIBUTING.md")
    if (path := ROOT / name).is_file()
]
FETCHED = {  # element -> what it loads without being asked
    "script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src",
    "audio": "src", "object": "data", "embed": "src",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; building it is what is tested first of all."""
    folder = tmp_path_factory.mktemp("site") / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING" not in result.stderr
    return folder


class Page(html.parser.HTMLParser):
    """What a page loads, links to, and can be linked to."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get("id"):
            self.ids.add(values["id"])
        wanted = FETCHED.get(tag)
        preconnects = tag == "link" and values.get("rel") in ("canonical", "next", "prev")
        if wanted and values.get(wanted) and not preconnects:
            self.loads.append(values[wanted])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])


def is_foreign(url: str) -> bool:
    return bool(urllib.parse.urlsplit(url).netloc)


def test_no_page_loads_anything_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        for url in Page(path).loads:
            assert not is_foreign(url), f"{path.relative_to(site)} loads {url}"
            if not url.startswith("data:") and path.name != "404.html":
                target = path.parent / urllib.parse.unquote(url.partition("?")[0])
                assert target.is_file(), f"{path.relative_to(site)} loads {url}"


def test_no_style_sheet_loads_anything_from_elsewhere(site):
    sheets = sorted(site.rglob("*.css"))
    assert sheets
    for path in sheets:
        text = path.read_text()
        assert not re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)|@import[^;]*//", text), path


def test_no_page_has_what_the_theme_would_fetch_a_script_for(site):
    """The theme's own script asks others for diagrams' code, and for facts of a repository."""
    for path in site.rglob("*.html"):
        text = path.read_text()
        assert 'class="mermaid"' not in text, path
        assert 'data-md-component="source"' not in text, path


def test_every_link_and_anchor_of_the_site_leads_somewhere(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for url in page.links:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)) if parts.path else path
            target = target.resolve()
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.name} -> {url}"
            if parts.fragment and target in pages and parts.fragment != "__skip":
                ids = pages[target].ids
                assert urllib.parse.unquote(parts.fragment) in ids, f"{path.name} -> {url}"


def test_every_page_of_the_docs_is_in_the_site(site):
    for path in (ROOT / "docs").rglob("*.md"):
        page = site / path.relative_to(ROOT / "docs").with_suffix(".html")
        assert page.is_file(), path
    assert (site / "index.html").is_file()
    assert not list(site.rglob("*.py")), "the generator is no part of the site"


def anchors(path: Path) -> set[str]:
    """The anchors that a forge gives to the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    heads = re.findall(r"^#+ (.*?)(?: \{ #([\w-]+) \})?$", text, re.M)
    return {
        own or re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-")
        for head, own in heads
    }


@pytest.mark.parametrize("page", REPOSITORY_PAGES, ids=name_of)
def test_every_link_between_files_of_the_repository_leads_somewhere(page):
    for url in links(page):
        if urllib.parse.urlsplit(url).scheme:
            continue
        name, _, fragment = url.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name} -> {url}"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{page.name} -> {url}"


def test_every_link_to_elsewhere_is_a_well_formed_one():
    foreign = {u for page in {*PAGES, *REPOSITORY_PAGES} for u in links(page) if "://" in u}
    assert foreign, "the README compares with other projects"
    for url in foreign:
        parts = urllib.parse.urlsplit(url)
        assert parts.scheme == "https", url
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), url
        assert re.fullmatch(r"[\w./~%-]*", parts.path), url


def test_the_picture_of_the_readme_is_small():
    pictures = [url for url in links(ROOT / "README.md") if url.endswith(".png")]
    assert pictures
    for url in pictures:
        assert (ROOT / url).stat().st_size <= 300_000


def test_the_readme_says_how_to_test():
    text = (ROOT / "README.md").read_text()
    assert re.search(r"^make demo\b", text, re.M)
    assert re.search(r"^make test\b", text, re.M)
