"""What is suspicious: all of it told, the most serious first."""

import dataclasses

import pytest

from export.reports import dataset_findings
from export.reports.dataset_findings import LOOK, NOTE, SERIOUS, noticed
from pipelines import manifest as manifests
from pipelines.audit import Duplicates, Finding, UnmatchedColor

SOME = Finding(11, ("a.png", "b.png"))


@pytest.fixture
def clean(dataset):
    """The plain dataset's manifest, as if nothing were wrong with it."""
    manifest = manifests.load(str(dataset))
    audit = dataclasses.replace(
        manifest.audit,
        class_sources=dict.fromkeys(manifest.audit.class_sources, (4, 4, 4, 4)),
        empty_masks={split: Finding() for split in manifest.splits},
        unmatched_colors=(),
        duplicates=Duplicates(),
    )
    splits = {
        name: dataclasses.replace(split, groups=9, class_pixels=(900, 30, 30, 40))
        for name, split in manifest.splits.items()
    }
    return dataclasses.replace(manifest, audit=audit, splits=splits)


def change(manifest, **changes):
    return dataclasses.replace(manifest, audit=dataclasses.replace(manifest.audit, **changes))


def test_of_what_is_clean_nothing_is_said(clean):
    assert noticed(clean) == []


CASES = {
    "misread": ({"misread_masks": SOME}, SERIOUS, "read as one class"),
    "zero one": ({"zero_one_masks": SOME}, SERIOUS, "0 and 1"),
    "lossy": ({"lossy_masks": {".jpg": SOME}}, NOTE, ".jpg"),
    "few empty": ({"empty_masks": {"train": Finding(1, ("a.png",))}}, NOTE, "without foreground"),
    "many empty": ({"empty_masks": {"train": Finding(8, ("a.png",))}}, LOOK, "without foreground"),
    "constant": ({"constant_images": SOME}, LOOK, "one color"),
    "duplicates": ({"duplicates": Duplicates(2, 5, 0, (("a", "b"),))}, LOOK, "several times"),
    "relabeled": ({"duplicates": Duplicates(2, 5, 1, (("a", "b"),))}, SERIOUS, "several times"),
    "colors": (
        {"unmatched_colors": (UnmatchedColor((9, 8, 7), 5, 2, 1, 99.0),)},
        NOTE,
        "match none",
    ),
    "nowhere": (
        {"class_sources": dict.fromkeys(["train", "valid", "test"], (4, 0, 4, 4))},
        SERIOUS,
        "No mask shows the class vessel",
    ),
    "not in train": (
        {"class_sources": {"train": (4, 0, 4, 4), "valid": (4,) * 4, "test": (4,) * 4}},
        SERIOUS,
        "vessel is missing from train",
    ),
    "not in test": (
        {"class_sources": {"train": (4,) * 4, "valid": (4,) * 4, "test": (4, 4, 4, 0)}},
        LOOK,
        "cell is missing from test",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_finding_is_told_at_its_level(clean, case):
    changes, level, words = CASES[case]
    (one,) = noticed(change(clean, **changes))
    assert one.level == level
    assert words in one.title
    assert one.text


def test_the_most_serious_comes_first_and_nothing_is_lost(clean):
    merged = {}
    for changes, *_ in CASES.values():
        merged |= changes
    found = noticed(change(clean, **merged))
    levels = [list(dataset_findings.LEVELS).index(one.level) for one in found]
    assert levels == sorted(levels)
    assert len(found) == len(merged)


def test_the_sources_concerned_are_named_and_the_others_counted(clean):
    (one,) = noticed(change(clean, constant_images=SOME))
    assert one.names == SOME.examples
    assert one.more == 9
    assert "11" in one.title


def test_what_the_numbers_say_is_told(clean):
    few = dataclasses.replace(clean.splits["test"], groups=2)
    rare = dataclasses.replace(clean.splits["train"], class_pixels=(10**6, 30, 10**5, 10**5))
    changed = dataclasses.replace(
        clean, splits={**clean.splits, "test": few, "train": rare}, rejected=3
    )
    titles = [one.title for one in noticed(changed)]
    assert titles == [
        "Sources that could not be used",
        "Few groups in test",
        "The class vessel is rare",
    ]


def test_without_an_audit_the_numbers_alone_speak(clean):
    assert noticed(dataclasses.replace(clean, audit=None, rejected=1))[0].level == LOOK
