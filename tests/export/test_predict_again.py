"""What is there is skipped; what broke off goes on and ends with the same bytes."""

import functools
import json
import os
import shutil

import cv2
import numpy as np
import pytest

from export.predictions import finished, predictors, side_by_side
from pipelines import storage

FLAGS = ("--overlay", "--probabilities")


@pytest.fixture(scope="module")
def loaded():
    """Models by what they were loaded with: to trace a network takes longer than to use it."""
    load = predictors.load
    return functools.cache(lambda paths, options: load(paths, options))


@pytest.fixture
def again(command, untrained_runs, pictures, tmp_path, loaded, monkeypatch):
    """A function that predicts `pictures` into a folder of tmp_path, its table beside it.

    `again.segmented()` is the stems that were segmented by the last command, sorted: which image
    comes first is not known.
    """
    segment_file = side_by_side.segment_file
    monkeypatch.setattr(predictors, "load", lambda paths, options: loaded(tuple(paths), options))

    stems = []

    def watched(item, *rest):
        stems.append(item.stem)
        return segment_file(item, *rest)

    monkeypatch.setattr(side_by_side, "segment_file", watched)

    def run(*flags, output="masks", model="colour", images=pictures):
        stems.clear()
        return command(
            "predict",
            f"--model={untrained_runs[model].folder}",
            f"--images={images}",
            f"--output={tmp_path / output}",
            f"--table={tmp_path / output}.csv",
            *flags,
        )

    run.segmented = lambda: sorted(stems)
    return run


def contents(folder):
    """Name -> bytes of all files below, hidden folders included, and of the table beside it."""
    files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return files | {"table": folder.with_suffix(".csv").read_bytes()}


def masks(folder):
    return {f.name: storage.read_bytes(f.path) for f in storage.walk(str(folder))}


ALL = ["deep/er/large", "deep/photo", "odd", "small", "tile"]


def test_what_is_there_is_not_made_again(again, tmp_path):
    assert again(*FLAGS).status == 0
    assert again.segmented() == ALL
    before = contents(tmp_path / "masks")
    done = again(*FLAGS)
    assert done.status == 0
    assert again.segmented() == []
    assert "5 of 5 images are there already" in done.out
    assert "5 of 5 images segmented" in done.out
    assert contents(tmp_path / "masks") == before
    assert again(*FLAGS, "--overwrite").status == 0
    assert again.segmented() == ALL
    assert contents(tmp_path / "masks") == before


@pytest.mark.parametrize("where", ["between items", "before the note", "within a file"])
def test_a_command_that_broke_off_goes_on_to_the_same_bytes(again, tmp_path, monkeypatch, where):
    assert again(*FLAGS, output="unbroken").status == 0
    calls = []

    def breaking(holder, name, at):
        real = getattr(holder, name)

        def call(*arguments, **keywords):
            calls.append(name)
            if len(calls) >= at:  # whatever is done beside breaks off, too
                raise KeyboardInterrupt
            return real(*arguments, **keywords)

        patch.setattr(holder, name, call)

    with monkeypatch.context() as patch:
        if where == "between items":
            breaking(side_by_side, "segment_file", 3)
        elif where == "before the note":
            breaking(finished, "keep", 3)
        else:
            breaking(os, "replace", 13)
        assert again(*FLAGS).status == 130
    notes = list((tmp_path / "masks" / ".predict" / "items").rglob("*.json"))
    assert 0 < len(notes) < 5
    assert again(*FLAGS).status == 0
    assert 0 < len(again.segmented()) < 5
    assert contents(tmp_path / "masks") == contents(tmp_path / "unbroken")


def test_what_is_missing_is_made_and_what_changed_is_made_anew(
    again, pictures, tmp_path, draw_image
):
    assert again(*FLAGS).status == 0
    before = masks(tmp_path / "masks")
    (tmp_path / "masks" / "odd.overlay.png").unlink()
    image = cv2.imread(str(pictures / "tile.bmp"))
    cv2.imwrite(str(pictures / "tile.bmp"), draw_image((45, 38), seed=9))
    cv2.imwrite(str(pictures / "new.png"), image)
    assert again(*FLAGS).status == 0
    assert again.segmented() == ["new", "odd", "tile"]
    after = masks(tmp_path / "masks")
    changed = {name for name in before if after[name] != before[name]}
    assert "tile.png" in changed
    assert all(name.startswith("tile.") for name in changed)
    assert after["new.png"] == before["tile.png"]


def test_more_kinds_of_files_may_be_added(again, tmp_path):
    assert again().status == 0
    before = masks(tmp_path / "masks")
    assert again("--overlay").status == 0
    assert again.segmented() == ALL
    after = masks(tmp_path / "masks")
    assert len(after) == 2 * len(before)
    assert before.items() <= after.items()
    assert again().status == 0
    assert again.segmented() == []
    done = again("--overlay", "--opacity=0.9")  # those that are there would stay as they are
    assert done.status == 1
    assert "overlay was {'contour': 0, 'opacity': 0.5}, now" in done.err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "halved"}, "the model or how it is applied was"),
        ({"flags": ["--tta=flips"]}, "the model or how it is applied was"),
        ({"flags": ["--mask_format=rgb"]}, "mask was {'mask_format': 'palette'}"),
        ({"flags": ["--blur=3"]}, "blur was 0, now 3"),
    ],
)
def test_predictions_made_otherwise_are_not_mixed(again, tmp_path, change, told):
    assert again().status == 0
    before = contents(tmp_path / "masks")
    done = again(*change.get("flags", ()), model=change.get("model", "colour"))
    assert done.status == 1
    assert told in done.err
    assert "Give another --output, or --overwrite" in done.err
    assert again.segmented() == []
    assert contents(tmp_path / "masks") == before
    assert again("--batch_size=1").status == 0  # on which nothing depends
    assert again.segmented() == []
    done = again(*change.get("flags", ()), "--overwrite", model=change.get("model", "colour"))
    assert done.status == 0
    assert again.segmented() == ALL
    assert contents(tmp_path / "masks") != before


def test_an_overwriting_command_that_broke_off_goes_on_with_what_is_left(
    again, tmp_path, monkeypatch
):
    """Half of the masks are of the first kind then, and their notes say so."""
    assert again().status == 0
    with monkeypatch.context() as patch:
        keep = finished.keep
        count = iter(range(9))

        def breaking(*arguments):
            if next(count) >= 2:
                raise KeyboardInterrupt
            keep(*arguments)

        patch.setattr(finished, "keep", breaking)
        assert again("--blur=5", "--overwrite").status == 130
    assert again("--blur=5").status == 0
    assert len(again.segmented()) == 3
    assert again("--blur=5", output="other").status == 0
    assert contents(tmp_path / "masks") == contents(tmp_path / "other")


def test_another_folder_with_equal_names_is_refused_a_moved_one_is_not(again, pictures, tmp_path):
    assert again().status == 0
    before = contents(tmp_path / "masks")
    other = tmp_path / "other"
    other.mkdir()
    cv2.imwrite(str(other / "small.png"), np.zeros((9, 9, 3), np.uint8))
    done = again(images=other)
    assert done.status == 1
    assert f"holds files of {pictures / 'small.png'} under the name small" in done.err
    assert contents(tmp_path / "masks") == before
    shutil.copytree(pictures, tmp_path / "moved")  # with times
    assert again(images=tmp_path / "moved").status == 0
    assert again.segmented() == []


def test_files_that_predict_did_not_make_are_not_overwritten(again, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "odd.png").write_text("drawn by hand")
    done = again()
    assert done.status == 1
    assert f"{tmp_path / 'masks' / 'odd.png'} is there already" in done.err
    assert masks(tmp_path / "masks") == {"odd.png": b"drawn by hand"}
    assert again("--overwrite").status == 0
    assert again.segmented() == ALL


def test_damaged_notes_only_cost_work(again, tmp_path):
    assert again().status == 0
    before = contents(tmp_path / "masks")
    notes = tmp_path / "masks" / ".predict"
    (notes / "items" / "odd.json").write_text("{half")
    (notes / "items" / "small.json").write_text(json.dumps({"row": None}))
    assert again().status == 0
    assert again.segmented() == ["odd", "small"]
    assert contents(tmp_path / "masks") == before
    for damaged in ("[]", "{half", ""):
        (notes / "options.json").write_text(damaged)
        done = again()
        assert done.status == 1
        assert "options.json is damaged. Give another --output, or --overwrite." in done.err
    assert again("--overwrite").status == 0


def test_an_output_that_is_a_file_is_refused_and_left(again, tmp_path):
    (tmp_path / "masks").write_text("mine")
    for flags in ((), ("--overwrite",)):
        done = again(*flags)
        assert done.status == 1
        assert f"--output={tmp_path}/masks is a file; expected a folder." in done.err
    assert (tmp_path / "masks").read_text() == "mine"


def test_unreadable_images_are_tried_again_when_they_are_mended(again, pictures, tmp_path):
    good = (pictures / "small.png").read_bytes()
    (pictures / "small.png").write_bytes(good[:90])
    done = again()
    assert done.status == 1
    assert "4 of 5 images segmented" in done.out
    lines = (tmp_path / "masks.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [s for s in ALL if s != "small"]
    assert again().status == 1
    assert again.segmented() == ["small"]
    (pictures / "small.png").write_bytes(good)
    assert again().status == 0
    assert again.segmented() == ["small"]
    assert len((tmp_path / "masks.csv").read_text().splitlines()) == 6
