"""The page of a dataset, as text."""

import dataclasses
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from export.reports import (
    dataset_cards,
    dataset_figures,
    dataset_findings,
    dataset_page,
    dataset_sample,
    page,
    pictures,
)
from export.reports.options import Options
from pipelines import manifest as manifests
from pipelines.whole_images import whole_images
from tests.export.reports.conftest import HOSTILE, HOSTILE_CLASSES

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta"}


class Elements(HTMLParser):
    """All elements of a page, the text of each cell and caption, and whether tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def parsed(pages):
    return {name: Elements(path.read_text(encoding="utf-8")) for name, path in pages.items()}


def of(elements, tag):
    return [attributes for name, attributes in elements.found if name == tag]


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_it_is_well_formed_and_refers_to_nothing_else(parsed, name):
    elements = parsed[name]
    assert elements.open == []
    ids = [a["id"] for _, a in elements.found if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in elements.found:
        assert "style" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href"):
            if key in attributes:
                assert attributes[key].startswith("data:") or attributes[key][1:] in ids, tag
        for key in ("for", "aria-labelledby"):
            assert set((attributes.get(key) or "").split()) <= set(ids)
    assert len(of(elements, "script")) == len(of(elements, "style")) == 1


def test_hostile_names_are_shown_and_do_nothing(parsed):
    elements = parsed["hostile"]
    text = "".join(elements.texts)
    for name in HOSTILE + HOSTILE_CLASSES:
        assert page.visible(name) in text
    assert "49" not in re.findall(r"\{*\d+\}*", " ".join(t for t in elements.texts if "{{" in t))
    allowed = {attributes.get("alt", "")[:6] for attributes in of(elements, "img")}
    assert allowed == {"", "Image "}
    assert "\u202e" not in text
    assert not of(elements, "b")
    assert (
        len(of(elements, "title"))
        == 1 + len(of(elements, "figure")) - len(of(elements, "img")) // 2
    ), "one of the page and one of each drawn figure"


def test_every_split_class_and_source_is_there(parsed, dataset):
    manifest = manifests.load(str(dataset))
    elements = parsed["plain"]
    cards = [a for a in of(elements, "li") if "data-class" in a]
    assert len(cards) == 16
    shown = {split: [c for c in cards if c["data-split"] == split] for split in manifest.splits}
    for split, expected in manifest.splits.items():
        assert len(shown[split]) == expected.examples
        for k, count in enumerate(expected.class_examples):
            holding = [c for c in shown[split] if str(k) in c["data-class"].split()]
            assert len(holding) == count
    assert len([c for c in cards if "none" in c["data-class"].split()]) == 4
    assert manifest.fingerprint in "".join(elements.texts)


def test_shares_of_classes_are_those_of_the_masks(parsed, dataset):
    text = re.sub(r"\s+", " ", " ".join(parsed["plain"].texts))
    split = manifests.load(str(dataset)).splits["train"]
    for k, name in enumerate(["background", "vessel", "bone", "cell"]):
        share = split.class_pixels[k] / sum(split.class_pixels)
        row = f"{name} {k} {page.percent(share)} {split.class_examples[k]}"
        assert row in text


def test_intensities_are_those_of_the_images(dataset):
    manifest = manifests.load(str(dataset))
    images = np.stack([image for _, image, _ in whole_images(manifest, "train")])
    found = {"train": dataset_sample.find(manifest, "train")}
    head, rows = dataset_figures.intensity_rows(dataset_page._histograms(found))
    assert head == ["Values", "train, red", "train, green", "train, blue"]
    for i, (name, *shares) in enumerate(rows):
        low, high = 16 * i, 16 * i + 15
        assert name == f"{low} to {high}"
        inside = ((images >= low) & (images <= high)).mean((0, 1, 2))
        assert shares == [page.percent(share) for share in inside]


def test_a_page_has_as_many_pictures_as_asked_for(dataset):
    for wanted in (0, 1, 5, 99):
        text = dataset_page.page(str(dataset), Options(pictures=wanted))
        assert text.count("data-class=") == min(wanted, 16)


def test_pictures_have_a_limit_in_bytes(dataset, monkeypatch):
    whole = dataset_page.page(str(dataset), Options())
    monkeypatch.setattr(pictures, "MOST_BYTES", 12_000)
    text = dataset_page.page(str(dataset), Options())
    shown = [len(uri) for uri in re.findall(r'src="(data:[^"]+)"', text)]
    assert 0 < sum(shown) <= 12_000
    assert text.count("data-class=") < whole.count("data-class=")
    assert "More would make the page too large." in text
    assert "More would make the page too large." not in whole


def test_a_page_without_groups_and_rejected_files_is_made(dataset, tmp_path):
    for path in dataset.iterdir():
        if path.suffix in (".json", ".tfrecord"):
            data = path.read_bytes()
            if path.name == "dataset.json":
                data = data.replace(b'"rejected": 0', b'"rejected": 7')
            (tmp_path / path.name).write_bytes(data)
    text = dataset_page.page(str(tmp_path), Options(pictures=1))
    assert "rejected.jsonl, is not there" in html.unescape(text)


def test_findings_show_the_images_that_they_are_about(dataset):
    text = dataset_page.page(str(dataset), Options())
    findings = text[text.index('id="findings"') : text.index('id="splits"')]
    empty = [f"image_{k:02}" for k in (0, 4, 8, 12)]
    assert sorted(re.findall(r'alt="Image ([^"]+)"', findings)) == empty
    assert "<img" not in dataset_page.page(str(dataset), Options(pictures=0))


def test_of_a_finding_an_unchanged_image_is_shown_once_though_it_has_several_names(dataset):
    manifest = manifests.load(str(dataset))
    (one, other, *_) = dataset_sample.find(manifest, "train")
    changed = dataclasses.replace(one, augmented=True, name="changed")
    about = dataset_findings.Noticed(
        dataset_findings.LOOK, "", "", sources=(one.source, "gone", other.file, one.file)
    )
    nothing = dataset_findings.Noticed(dataset_findings.LOOK, "", "")
    shown = dataset_cards.of_findings(manifest, {"train": [changed, one, other]}, [nothing, about])
    assert [[card.found for card in cards] for cards in shown] == [[], [one, other]]


def test_pictures_of_findings_leave_room_for_the_contact_sheet(dataset, monkeypatch):
    manifest = manifests.load(str(dataset))
    found = {"train": dataset_sample.find(manifest, "train")}
    names = tuple(one.source for one in found["train"])
    about = [dataset_findings.Noticed(dataset_findings.LOOK, "", "", sources=names)] * 3
    monkeypatch.setattr(pictures, "MOST_BYTES", 40_000)
    shown = dataset_cards.of_findings(manifest, found, about)
    assert 0 < sum(card.bytes for cards in shown for card in cards) <= 8_000
