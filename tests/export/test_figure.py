"""The figure of a dataset shows its true counts, in its classes' colours, and images with masks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import flexseg
from export.inspection import figure
from pipelines import label_map, manifest
from pipelines.manifest import Manifest

COLORS = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255], [40, 40, 255]], np.uint8)
YAML = """
classes:
- {id: 0, color: [0, 0, 0]}
- {id: 1, name: _hidden $x_1^2$, color: [255, 0, 0]}
- {id: 2, name: white, color: [255, 255, 255]}
- {id: 3, name: never, color: [40, 40, 255]}
"""


def prepare(folder: Path, size: tuple[int, int], *flags: str) -> Manifest:
    """A dataset of ten drawn pairs; in pair i, class 1 fills i rows, class 2 none before pair 5."""
    rng = np.random.default_rng(0)
    for i in range(10):
        ids = np.zeros(size, np.uint8)
        ids[:i] = 1
        ids[-1] = 2 if i >= 5 else 0
        for name, pixels in (
            ("images", rng.integers(0, 256, (*size, 3), dtype=np.uint8)),
            ("masks", COLORS[ids]),
        ):
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "data" / name / f"{i}.png")
    (folder / "classes.yaml").write_text(YAML)
    given = [f"--dataset={folder / 'data'}", f"--label_map={folder / 'classes.yaml'}"]
    given += [f"--output={folder / 'records'}", "--direct_num_workers=1", *flags]
    assert flexseg.main(["prepare", *given]) == 0
    return manifest.load(str(folder / "records"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Manifest:
    return prepare(tmp_path_factory.mktemp("whole"), (24, 36))


@pytest.fixture(scope="module")
def tiled(tmp_path_factory) -> Manifest:
    return prepare(tmp_path_factory.mktemp("tiled"), (24, 36), "--tile_size=12")


def bars(axes) -> list[tuple[float, tuple[int, ...]]]:
    """Height and colour of each bar, from left to right."""
    ordered = sorted(axes.patches, key=lambda bar: bar.get_x())
    colors = [tuple(round(v * 255) for v in bar.get_facecolor()[:3]) for bar in ordered]
    return [(bar.get_height(), color) for bar, color in zip(ordered, colors, strict=True)]


def test_a_bar_for_each_split_with_its_count_above(dataset):
    axes = Figure().add_subplot()
    figure.draw_counts(axes, dataset)
    counts = [s.examples for s in dataset.splits.values()]
    assert [height for height, _ in bars(axes)] == counts
    assert [t.get_text() for t in axes.texts] == [str(n) for n in counts]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["train", "valid", "test"]


def test_where_images_are_tiles_their_sources_are_shown_as_well(tiled):
    axes = Figure().add_subplot()
    figure.draw_counts(axes, tiled)
    wanted = [n for s in tiled.splits.values() for n in (s.examples, s.sources)]
    assert [height for height, _ in bars(axes)] == wanted
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["images", "sources"]


def test_a_bar_for_each_class_in_its_color_and_a_zero_for_what_never_occurs(dataset):
    axes = Figure().add_subplot()
    figure.draw_pixels(axes, dataset)
    shown = bars(axes)
    pixels = [n for s in dataset.splits.values() for n in s.class_pixels]
    assert [height for height, _ in shown] == pixels
    assert [color for _, color in shown] == [tuple(c) for c in COLORS.tolist()] * 3
    assert axes.get_yscale() == "log"
    assert [t.get_text() for t in axes.texts] == ["0"] * pixels.count(0)
    assert 0 < axes.get_ylim()[0] < min(n for n in pixels if n)
    names = [t.get_text() for t in axes.get_legend().get_texts()]
    assert names == ["0 background", "1 _hidden $x_1^2$", "2 white", "3 never"]


@pytest.mark.parametrize("count", [32, 33, 40])
def test_of_very_many_classes_the_first_have_a_place_in_the_legend(dataset, count):
    many = label_map.from_dict(
        {"classes": [{"id": k, "name": f"kind {k}", "color": [k, 0, 0]} for k in range(count)]}
    )
    split = dataclasses.replace(dataset.split("train"), class_pixels=(5,) * count)
    axes = Figure().add_subplot()
    figure.draw_pixels(axes, dataclasses.replace(dataset, label_map=many, splits={"train": split}))
    names = [t.get_text() for t in axes.get_legend().get_texts()]
    more = [f"and {count - 32} more"] if count > 32 else []
    assert names == [f"{k} kind {k}" for k in range(32)] + more
    assert len(bars(axes)) == count, "all have a bar"


def test_the_sheet_shows_images_with_the_most_classes_beside_their_masks(dataset):
    sheet = figure.contact_sheet(dataset, "train")
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    rows = sheet.shape[0] // 4
    for row in range(4):  # four are shown, and of eight at least four have all three classes
        mask = sheet[row * rows : (row + 1) * rows, sheet.shape[1] // 2 :].reshape(-1, 3)
        present = {tuple(c) for c in np.unique(mask, axis=0).tolist()}
        assert {(0, 0, 0), (255, 0, 0), (255, 255, 255)} <= present


def test_pictures_of_any_shape_come_out_at_one_size(tmp_path):
    wide = figure.contact_sheet(prepare(tmp_path / "wide", (12, 200)), "train")
    tall = figure.contact_sheet(prepare(tmp_path / "tall", (200, 12)), "train")
    assert wide.shape[0] == tall.shape[0]
    assert tall.shape[1] < wide.shape[1] < 700


def test_the_file_is_a_png_and_the_same_each_time(command, dataset, tmp_path):
    file = tmp_path / "new" / "figure.png"
    result = command("inspect", dataset.folder, f"--figure={file}")
    assert result.status == 0, result.err
    assert "train: " in result.out
    assert [p.name for p in file.parent.iterdir()] == ["figure.png"]
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.size[0] == 1300
        colors = {c for _, c in image.convert("RGB").getcolors(1 << 24)}
    assert {tuple(c) for c in COLORS[:3].tolist()} <= colors
    first = file.read_bytes()
    figure.draw(dataset, str(file))
    assert file.read_bytes() == first


def test_one_split_and_no_class_at_all_can_be_drawn(dataset, tmp_path):
    split = dataset.split("valid")
    split = dataclasses.replace(split, class_pixels=(0, 0, 0, 0))
    alone = dataclasses.replace(dataset, splits={"valid": split})
    figure.draw(alone, str(tmp_path / "figure.png"))
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_what_cannot_be_drawn_is_refused(command, dataset, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "masks" / "a.png")
    for folder, file, message in (
        (dataset.folder, "figure.jpg", "--figure=figure.jpg: expected the name of a file"),
        (tmp_path / "masks", "figure.png", "--figure draws a dataset"),
        (tmp_path, "", "neither a dataset, nor a run, nor a bundle"),
        ("nowhere", "", "nowhere: there is no such folder"),
    ):
        if folder == tmp_path:
            (tmp_path / "masks" / "a.png").unlink()
        result = command("inspect", folder, f"--figure={file}")
        assert result.status == 1
        assert message in result.err
