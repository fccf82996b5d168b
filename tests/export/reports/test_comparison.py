"""Several runs side by side: what they reach, what differs, and whether that may be compared."""

import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.reports import comparison, comparison_page, run_facts
from export.reports.evaluation_facts import ImageDice
from export.reports.options import Options
from flexseg_errors import FlexsegError
from tests.export.reports import drawn_runs
from tests.export.reports.drawn_runs import Seen
from train import experiment

EQUAL = {"keys": {"train": {"seed": 3}}, "seed": 1}


def seen(*folders):
    return Seen(comparison_page.page([str(f) for f in folders], Options()))


def two(tmp_path, one=None, other=None):
    """Two runs that are equal but for what is given."""
    return [
        drawn_runs.make(tmp_path / name, **{**EQUAL, **(how or {})})
        for name, how in (("one", one), ("other", other))
    ]


def test_every_run_is_there_with_its_figures(tmp_path):
    folders = [
        drawn_runs.make(tmp_path / name, seed=seed, epochs=epochs, splits=splits)
        for name, seed, epochs, splits in (
            ("first", 1, 3, ("test",)),
            ("second", 2, 5, ("test", "valid")),
            ("third", 3, 0, ()),
        )
    ]
    page = seen(*folders)
    names = ["first", "second", "third"]
    assert [row[0] for row in page.tables["What the runs are"][1:]] == names
    facts = [run_facts.read(f) for f in folders]
    rows = page.tables["Foreground, mean over its classes (test)"][1:]
    assert [row[:3] for row in rows] == [
        [f.name, f"{f.evaluation('test').foreground['dice_macro']:.4f}", "0.2111 to 0.8222"]
        for f in facts[:2]
    ]
    table = page.tables["Dice of each class (test)"]
    assert table[0] == ["Class", "first", "second"]
    assert [row[0] for row in table[1:]] == ["foreground", "vessel", "cell"]
    for place, fact in enumerate(facts[:2], 1):
        dice = [f"{c['dice']:.4f}" for c in fact.evaluation("test").classes[1:]]
        assert [row[place].partition(" ")[0] for row in table[2:]] == dice
    assert "Not scored on this split: third" in page.text("split-1")
    assert "Not scored on this split: first, third" in page.text("split-2")
    curves = page.tables["Foreground Dice of each epoch, valid split"]
    assert curves[0] == ["Epoch", "first", "second"]
    assert [row[1] for row in curves[1:]] == [
        *(f"{v:.4g}" for v in facts[0].history["val_dice"]), "–", "–",
    ]  # fmt: skip


def test_of_runs_scored_alike_the_one_with_most_dice_is_named(tmp_path):
    folders = two(tmp_path, {"seed": 1}, {"seed": 2})
    dice = [run_facts.read(f).evaluation("test").foreground["dice_macro"] for f in folders]
    best = ("one", "other")[dice[1] > dice[0]]
    assert f"Most foreground Dice, test {best}, {max(dice):.4f}" in seen(*folders).text()
    apart = two(tmp_path / "apart", None, {"fingerprint": "cd" * 32})
    assert "Most foreground Dice" not in seen(*apart).text()


HOW = {"tta": "none", "scales": [1.0], "postprocessing": None}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({}, []),
        ({"seed": 5}, []),
        ({"keys": {"train": {"seed": 4}}}, []),
        ({"evaluation": {"dataset_fingerprint": "cd" * 32}}, ["cannot be compared"]),
        ({"evaluation": {"dataset_fingerprint": ""}}, ["cannot be compared", "Not all"]),
        ({"fingerprint": "cd" * 32}, ["cannot be compared", "trained on different data"]),
        ({"evaluation": {"size": "original"}}, ["different sizes"]),
        ({"evaluation": {"prediction": {**HOW, "tta": "d4"}}}, ["test-time augmentation"]),
        ({"evaluation": {"prediction": {**HOW, "scales": [1.0, 2.0]}}}, ["test-time"]),
        (
            {"evaluation": {"prediction": {**HOW, "postprocessing": [{"id": 1, "fill_holes": 3}]}}},
            ["post-processing"],
        ),
        ({"names": ("background", "vessel", "other")}, ["different classes"]),
        ({"keys": {"train": {"seed": 3, "loss": "ce"}}}, ["different losses"]),
    ],
)
def test_what_makes_figures_incomparable_is_said_and_nothing_else(tmp_path, other, words):
    folders = two(tmp_path, None, other)
    found = comparison.warnings(["one", "other"], [run_facts.read(f) for f in folders])
    assert len(found) == len(words)
    for sentence, part in zip(found, words, strict=True):
        assert part in sentence
    page = seen(*folders)
    assert all(sentence in page.text() for sentence in found)


def test_other_images_are_not_compared_one_by_one(tmp_path):
    title = "Foreground Dice of each image, less that of one (test)"
    assert title in seen(*two(tmp_path / "a", None, {"seed": 5})).tables
    other = {"evaluation": {"dataset_fingerprint": "cd" * 32}}
    assert title not in seen(*two(tmp_path / "b", None, other)).tables
    other = {"evaluation": {"size": "original"}}
    assert title not in seen(*two(tmp_path / "c", None, other)).tables


def test_long_names_become_numbers_that_a_table_explains(tmp_path):
    names = [f"a run whose name is very long {n}" for n in range(3)]
    page = seen(*(drawn_runs.make(tmp_path / n, seed=i) for i, n in enumerate(names)))
    rows = page.tables["What the runs are"][1:]
    assert [row[:2] for row in rows] == [[f"run {i}", n] for i, n in enumerate(names, 1)]
    assert page.tables["Dice of each class (test)"][0][1:] == ["run 1", "run 2", "run 3"]


def test_only_the_settings_that_differ_are_listed(tmp_path):
    keys = {"optimizer": {"learning_rate": 0.01, "schedule": "step"}, "model": {"levels": 3}}
    one = drawn_runs.make(tmp_path / "one")
    other = drawn_runs.make(tmp_path / "other", keys=keys, fingerprint="cd" * 32)
    rows = seen(one, other).tables["Settings in which the runs differ"]
    default = experiment.Experiment()
    assert {row[0]: row[1:] for row in rows[1:]} == {
        "optimizer.learning_rate": [str(default.optimizer.learning_rate), "0.01"],
        "optimizer.schedule": [default.optimizer.schedule, "step"],
        "model.levels": [str(default.model.network.levels), "3"],
        "dataset": [drawn_runs.FINGERPRINT[:12], "cd" * 6],
    }
    page = seen(one, drawn_runs.make(tmp_path / "same", seed=9))
    assert "Settings in which the runs differ" not in page.tables
    assert "None" in page.text("settings")


def test_a_key_that_only_one_network_has_is_missing_in_the_other(tmp_path):
    one = drawn_runs.make(tmp_path / "one")
    other = drawn_runs.make(tmp_path / "other", keys={"model": {"name": "segformer"}})
    rows = {row[0]: row[1:] for row in seen(one, other).tables["Settings in which the runs differ"]}
    assert rows["model.name"] == ["flex_unet", "segformer"]
    assert rows["model.base_kernel"][1] == "–"


def test_runs_that_hold_nothing_yet_are_compared(tmp_path):
    folders = [drawn_runs.make(tmp_path / n, epochs=0, splits=()) for n in ("a", "b")]
    page = seen(*folders)
    assert "nothing to draw" in page.text("curves")
    assert "None of the runs" in page.text("evaluation")


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(FlexsegError, match="nothing here"):
        seen(drawn_runs.make(tmp_path / "one"), tmp_path / "nothing here")


def test_hostile_names_of_runs_are_shown_and_do_nothing(tmp_path):
    names = ["<script>alert(1)</script>", "{{7*7}}", "a'\"b"]
    plain = seen(*(drawn_runs.make(tmp_path / n) for n in "abc"))
    bad = [n.replace("/", "") for n in names]
    page = seen(*(drawn_runs.make(tmp_path / n) for n in bad))
    assert [row[0] for row in page.tables["What the runs are"][1:]] == bad
    assert {t: len(a) for t, a in page.tags.items()} == {t: len(a) for t, a in plain.tags.items()}


def test_the_same_runs_give_the_same_page(tmp_path):
    folders = two(tmp_path, None, {"seed": 4})
    assert len({comparison_page.page(folders, Options()) for _ in range(2)}) == 1


PARTS = st.lists(st.sampled_from(["a", "b", "run"]), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@given(st.lists(PARTS, min_size=1, max_size=6, unique=True))
def test_names_tell_runs_apart_and_are_ends_of_their_paths(folders):
    names = run_facts.distinct_names(folders)
    assert len(set(names)) == len(folders)
    assert all(
        folder == name or folder.endswith("/" + name)
        for folder, name in zip(folders, names, strict=True)
    )
    ends = [f.rpartition("/")[2] for f in folders]
    for end, name in zip(ends, names, strict=True):
        assert (name == end) == (ends.count(end) == 1)


DICE = st.one_of(st.none(), st.integers(0, 10).map(lambda v: v / 10))


@given(
    st.dictionaries(st.sampled_from("abcdef"), DICE),
    st.dictionaries(st.sampled_from("abcdef"), DICE),
)
def test_images_are_compared_with_the_same_images(own, other):
    def scored(dice):
        images = tuple(ImageDice(name, value, ()) for name, value in dice.items())
        return dataclasses.replace(BASE, per_image=images)

    found = comparison.paired(scored(own), scored(other))
    both = [n for n in own if own[n] is not None and other.get(n) is not None]
    if not both:
        assert found is None
        return
    assert found.images == len(both)
    assert found.better == sum(own[n] > other[n] for n in both)
    assert found.worse == sum(own[n] < other[n] for n in both)
    assert found.difference == pytest.approx(sum(own[n] - other[n] for n in both) / len(both))


@pytest.fixture(scope="module", autouse=True)
def _base(tmp_path_factory):
    """An evaluation whose images tests replace."""
    global BASE
    folder = drawn_runs.make(os.path.join(tmp_path_factory.mktemp("base"), "run"))
    BASE = run_facts.read(folder).evaluation("test")
