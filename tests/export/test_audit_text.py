"""What was noticed about a dataset's sources is told with its numbers, and nothing else is."""

import pytest

from export.inspection import audit_text
from pipelines import label_map as label_maps
from pipelines.audit import Audit, Duplicates, Finding, UnmatchedColor

RED = label_maps.load("{(0,0,0):0,(255,0,0):1,(0,0,255):2}")


def of(**findings):
    """An audit of 40 sources in which nothing was noticed but what is given."""
    plain = {
        "sources": {"train": 30, "valid": 6, "test": 4},
        "class_sources": {"train": (30, 9, 7), "valid": (6, 2, 1), "test": (4, 2, 2)},
        "empty_masks": {"train": Finding(), "valid": Finding(), "test": Finding()},
    }
    return Audit(**{**plain, **findings})


def counts(train, valid, test):
    return {"train": (30, 9, train), "valid": (6, 2, valid), "test": (4, 2, test)}


def test_where_nothing_was_noticed_nothing_is_told():
    assert audit_text.lines(of(), RED) == []


@pytest.mark.parametrize(
    ("findings", "text"),
    [
        ({"class_sources": counts(0, 0, 0)}, "class class_2 never occurs"),
        ({"class_sources": counts(5, 0, 0)}, "class class_2 occurs only in train"),
        ({"class_sources": counts(5, 1, 0)}, "class class_2 is missing from test"),
        (
            {"empty_masks": {"train": Finding(6, ("a", "b", "c", "d"))}},
            "train: 6 of 30 masks (20.0%) are without foreground: a, b, c and 3 more",
        ),
        ({"lossy_masks": {".jpg": Finding(2, ("a", "b"))}}, "2 masks are .jpg files"),
        (
            {"zero_one_masks": Finding(1, ("a",))},
            "1 masks hold 0 and 1 where others hold 0 and 255",
        ),
        ({"misread_masks": Finding(1, ("a",))}, "1 masks hold two values that were read as one"),
        ({"constant_images": Finding(1, ("a",))}, "1 images have one color everywhere: a"),
        (
            {"unmatched_colors": (UnmatchedColor((0, 255, 0), 70, 3, 2, 254.6),)},
            "(0, 255, 0): 70 pixels in 3 masks; nearest is class_2, 255 away",
        ),
        (
            {"duplicates": Duplicates(9, 20, 1, (("a", "b"), ("c", "d", "e")))},
            "9 images occur several times, as 20 sources (1 of them with different masks):",
        ),
        ({"duplicates": Duplicates(9, 20, 0, (("a", "b"), ("c", "d", "e")))}, "c = d = e"),
        ({"duplicates": Duplicates(9, 20, 0, (("a", "b"), ("c", "d", "e")))}, "and 7 more"),
    ],
)
def test_a_finding_is_told(findings, text):
    lines = audit_text.lines(of(**findings), RED)
    assert lines[:2] == ["", "Noticed in the sources:"]
    assert any(text in line for line in lines[2:])
    assert all(line.startswith("  ") for line in lines[2:])


def test_a_class_that_lacks_nowhere_is_not_told():
    lines = audit_text.lines(of(class_sources=counts(5, 1, 0)), RED)
    assert len(lines) == 3
