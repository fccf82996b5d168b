"""The page of a dataset, as text."""

import collections
import dataclasses
import html
import json
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
from flexseg_errors import FlexsegError
from pipelines import manifest as manifests
from pipelines.whole_images import whole_images
from tests.export.reports import made_datasets
from tests.export.reports.conftest import HOSTILE, HOSTILE_CLASSES
from tests.export.reports.drawn_runs import Seen

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


# ---- What few datasets have ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A dataset that has much of what is rare: its manifest, its page, and what that says."""
    folder = str(made_datasets.prepare_odd(tmp_path_factory.mktemp("odd")))
    text = dataset_page.page(folder, Options(pictures=3))
    return manifests.load(folder), text, Seen(text)


def figures_of(text):
    """Title -> the texts in it, of each drawn figure of a page."""
    drawn = re.findall(r"<svg[^>]*><title[^>]*>(.*?)</title>(.*?)</svg>", text, re.DOTALL)
    return {
        html.unescape(title): list(map(html.unescape, re.findall(r"<text[^>]*>([^<]*)</", rest)))
        for title, rest in drawn
    }


def test_sources_that_could_not_be_used_are_listed_with_the_reason(odd):
    manifest, _, seen = odd
    with open(f"{manifest.folder}/rejected.jsonl", encoding="utf-8", newline="") as file:
        lines = file.read().removesuffix("\n").split("\n")
    wanted = [list(json.loads(line).values()) for line in lines]
    assert manifest.rejected == len(wanted) == 2
    assert any("\u2028" in path for path, *_ in wanted)
    rows = seen.tables["Sources that could not be used, and why"]
    assert rows[0] == ["Source", "Stage", "Reason"]
    assert [[v.replace("\\u2028", "\u2028") for v in row] for row in rows[1:]] == wanted
    assert "2 sources are not in the dataset" in seen.text("findings")
    assert "rejected.jsonl" not in seen.text("findings")
    assert "--max_rejected=2" in seen.code[0]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"path": "a"}\n', '"text"'])
def test_a_damaged_list_of_rejected_sources_is_told(odd, tmp_path, content):
    (tmp_path / "rejected.jsonl").write_text(content)
    damaged = dataclasses.replace(odd[0], folder=str(tmp_path))
    with pytest.raises(FlexsegError, match=r"rejected\.jsonl is damaged .*flexseg prepare"):
        dataset_page._rejected(damaged)


def test_of_very_many_rejected_sources_the_first_are_listed(odd, tmp_path, monkeypatch):
    line = {"path": "a.png", "stage": "read", "reason": "torn"}
    (tmp_path / "rejected.jsonl").write_text(f"{json.dumps(line)}\n" * 5)
    monkeypatch.setattr(dataset_page, "_NAMES", 2)
    many = dataclasses.replace(odd[0], folder=str(tmp_path), rejected=5)
    assert dataset_page._rejected(many) == ([("a.png", "read", "torn")] * 2, 3)


def test_of_gray_images_there_is_one_row_and_a_bin_far_above_all_others_is_named(odd):
    manifest, text, seen = odd
    images = {
        split: np.concatenate([i.ravel() for _, i, _ in whole_images(manifest, split)])
        for split in manifest.splits
    }
    rows = seen.tables["Share of the pixels"]
    assert rows[0] == ["Values", "train", "test"]
    shares = [page.percent((v // 16 == 8).mean()) for v in images.values()]
    assert rows[9] == ["128 to 143", *shares]
    values = seen.tables["Values of all pixels, 0 to 255"][1:]
    assert [row[:2] for row in values] == [["train", "intensity"], ["test", "intensity"]]
    assert [float(row[2]) for row in values] == [
        pytest.approx(v.mean(), abs=0.051) for v in images.values()
    ]
    low, high = sorted(f"{(v // 4 == 32).mean():.0%}" for v in images.values())
    told = low if low == high else f"{low} to {high}"
    texts = figures_of(text)["Intensities of the images"]
    assert f"128 to 131: {told}" in texts
    assert "share of pixels" in texts
    assert "red" not in texts


@pytest.mark.parametrize(
    ("bins", "top", "told"),
    [
        ({3: 0.6, 9: 0.4}, 0.66, None),
        ({3: 0.75, 9: 0.25}, 0.825, None),
        ({3: 0.9, 9: 0.1}, 0.15, "12 to 15: 90%"),
        ({63: 1.0}, 1.1, "252 to 255: 100%"),
    ],
)
def test_an_axis_ends_above_what_is_no_peak(bins, top, told):
    lines, noted = np.zeros((1, 64)), []
    for at, share in bins.items():
        lines[0, at] = share

    class Axes:
        def annotate(self, text, *_, **__):
            noted.append(text)

    assert dataset_figures._cut(Axes(), lines) == pytest.approx(top)
    assert noted == [told] * bool(told)


def test_of_many_classes_figures_have_the_rarest_and_say_where_one_is_nowhere(odd):
    manifest, text, seen = odd
    figures = figures_of(text)
    for what in ("pixels", "examples"):
        title, pixels = f"Share of {what} of each class", what == "pixels"
        mean = dataset_figures.shares(manifest, pixels).mean(0)
        shown = [t for t in figures[title] if t.startswith("kind ")]
        assert len(shown) == dataset_figures.MOST_CLASSES
        left_out = [k for k in range(45) if f"kind {k}" not in shown]
        rarest = sorted(mean)[: dataset_figures.MOST_CLASSES]
        assert sorted(mean[k] for k in range(45) if k not in left_out) == rarest
        assert shown == sorted(shown, key=lambda t: int(t.split()[1]))
        assert figures[title].count("nowhere") == 1
    assert seen.text("classes").count("The 40 rarest classes.") == 2
    assert len(seen.tables["Share of the pixels, and number of examples that show it"]) == 46


def test_of_many_sizes_the_most_frequent_are_listed_and_the_rest_counted(odd):
    seen = odd[2]
    (caption,) = (c for c in seen.tables if c.startswith("Height × width of the 10 examples"))
    rows = seen.tables[caption][1:]
    assert rows == [*([f"{20 + k} × 30", "1"] for k in range(7)), ["3 others", "3"]]
    many = [dataset_sample.Found("train", "", 0, "", "", "", False, (8, 8), (1,))] * 5
    assert dataset_page._sizes({"train": many}) == [("8 × 8", 5)]


def test_bars_of_sources_and_of_groups_are_told_apart_where_they_differ(odd):
    manifest, text, _ = odd
    texts = figures_of(text)["Examples of each split"]
    assert {"examples", "groups"} <= set(texts)
    assert "sources" not in texts, "each is one example"
    numbers = [n for s in manifest.splits.values() for n in (s.examples, s.groups)]
    assert not collections.Counter(map(str, numbers)) - collections.Counter(texts)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], []),
        (["--image_encoding=raw"], []),
        (["--image_size=32,48"], ["resized to 32 x 48 pixels"]),
        (["--scale=0.3", "--image_encoding=jpeg:90"], ["scaled by 0.3", "stored as JPEG"]),
        (
            ["--intensity=window:40,80", "--preprocessing=gamma=1.5,invert"],
            ["values to 8 bits by window:40,80", "colors changed by gamma=1.5,invert"],
        ),
        (["--tile_size=64"], ["cut into tiles of 64 pixels"]),
        (
            ["--tile_size=64", "--tile_overlap=8", "--add_reduced"],
            [
                "cut into tiles of 64 pixels with an overlap of 8",
                "each training source also as a whole, reduced to a tile",
            ],
        ),
        (["--volume_rotation=90"], ["slices of volumes turned by 90 degrees"]),
        (["--augment=two.yaml"], ["2 changed copies of each training source"]),
        (["--augment=one.yaml"], ["1 changed copy of each training source in its place"]),
    ],
)
def test_what_was_done_to_the_sources_is_said(dataset, tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text("variants: [hflip, vflip]")
    (tmp_path / "one.yaml").write_text("{variants: [hflip], keep_source: false}")
    options = made_datasets.options_of(["--label_map={(0,0,0):0,(255,0,0):1}", *given])
    assert dataset_page._preparation(made_datasets.manifest_of(dataset, options)) == said
