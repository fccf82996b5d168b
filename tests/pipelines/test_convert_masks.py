"""Class ids come through every form of mask unchanged; what is no mask is told, all at once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from flexseg_errors import FlexsegError
from pipelines import convert_masks
from pipelines import label_map as label_maps
from pipelines.label_map import LabelClass, LabelMap

READ_AS = {"rgb": "rgb", "palette": "index", "index": "index", "onehot": "onehot"}
LITERAL = "{(0,0,0):0,(255,0,0):1,(0,200,0):2,(40,40,255):3}"
IDS = np.array([[0, 1, 2], [3, 0, 1]], np.uint8)


@st.composite
def masks(draw: st.DrawFn) -> tuple[np.ndarray, LabelMap, tuple[int, int, int]]:
    """Class ids with some to ignore, a map of 1 to 255 classes, and a color for the ignored."""
    count = draw(st.sampled_from([1, 2, 3, 5, 16, 17, 254, 255]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    packed = rng.choice(1 << 24, count + 1, replace=False).tolist()
    *colors, ignored = [(p >> 16, p >> 8 & 255, p & 255) for p in packed]
    classes = tuple(LabelClass(i, f"c{i}", (c,)) for i, c in enumerate(colors))
    values = st.sampled_from([0, count // 2, count - 1, 255]) | st.integers(0, count - 1)
    shape = st.tuples(st.integers(1, 9), st.integers(1, 9))
    return draw(hnp.arrays(np.uint8, shape, elements=values)), LabelMap(classes), ignored


def read_back(folder: Path, ids: np.ndarray, form: str, label_map: LabelMap, **how: Any) -> Any:
    path = folder / ("mask" + convert_masks.suffix(form))
    path.write_bytes(convert_masks.encode(ids, form, label_map, **how))
    ignore_color = how.get("ignore_color")
    read = convert_masks.reader(READ_AS[form], label_map, ignore_color=ignore_color)
    return read(str(path))


@pytest.mark.parametrize("there", READ_AS)
@pytest.mark.parametrize("back", READ_AS)
@given(made=masks(), dtype=st.sampled_from(["uint8", "float32"]))
@settings(max_examples=12)
def test_a_round_trip_over_any_two_forms_gives_the_same_ids(
    tmp_path_factory, there, back, made, dtype
):
    ids, label_map, ignored = made
    folder = tmp_path_factory.mktemp("masks")
    how = {"ignore_color": ignored, "onehot_dtype": dtype}
    first = read_back(folder, ids, there, label_map, **how)
    second = read_back(folder, first.ids, back, label_map, **how)
    for mask in (first, second):
        assert mask.ids.dtype == np.uint8
        assert (mask.ids == ids).all()
        assert mask.unmatched == 0


def as_written(form: str, ids: np.ndarray = IDS, **how: Any) -> bytes:
    return convert_masks.encode(ids, form, label_maps.load(LITERAL), **how)


def test_each_form_is_what_its_name_says(tmp_path, colors):
    files = {form: tmp_path / (form + convert_masks.suffix(form)) for form in READ_AS}
    for form, path in files.items():
        path.write_bytes(as_written(form))
    rgb, palette, index = (Image.open(files[f]) for f in ("rgb", "palette", "index"))
    assert (rgb.mode, palette.mode, index.mode) == ("RGB", "P", "L")
    assert (np.array(rgb) == colors[IDS]).all()
    assert (np.array(palette) == IDS).all()
    assert (np.array(palette.convert("RGB")) == colors[IDS]).all()
    assert (np.array(index) == IDS).all()
    array = np.load(files["onehot"])["mask"]
    assert (array.dtype, array.shape) == (np.uint8, (2, 3, 4))
    assert (array == np.eye(4)[IDS]).all()


def test_ignored_pixels_are_255_or_no_class_or_gray(tmp_path):
    ids = np.array([[0, 255]], np.uint8)
    paths = {form: tmp_path / (form + convert_masks.suffix(form)) for form in READ_AS}
    for form, path in paths.items():
        path.write_bytes(as_written(form, ids))
    assert np.array(Image.open(paths["index"])).tolist() == [[0, 255]]
    assert np.array(Image.open(paths["palette"])).tolist() == [[0, 255]]
    assert np.load(paths["onehot"])["mask"].tolist() == [[[1, 0, 0, 0], [0, 0, 0, 0]]]
    assert np.array(Image.open(paths["rgb"])).tolist() == [[[0, 0, 0], [128, 128, 128]]]
    painted = as_written("rgb", ids, ignore_color=(9, 8, 7))
    paths["rgb"].write_bytes(painted)
    assert np.array(Image.open(paths["rgb"]))[0, 1].tolist() == [9, 8, 7]


def test_ignored_pixels_never_get_the_color_of_a_class():
    gray = label_maps.load("{(0,0,0):0,(128,128,128):1}")
    ids = np.array([[0, 255]], np.uint8)
    with pytest.raises(FlexsegError, match=r"color \(128, 128, 128\) of class 1.*--ignore_color"):
        convert_masks.encode(ids, "rgb", gray)
    assert convert_masks.encode(ids, "rgb", gray, ignore_color=(1, 2, 3))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_gray_png_of_few_bits_holds_its_samples_not_their_brightness(tmp_path, bits):
    ids = np.array([[0, 1, 1, 0]] if bits == 1 else [[0, 1, 2, 3]], np.uint8)
    (tmp_path / "mask.png").write_bytes(gray_png(ids, bits))
    read = convert_masks.reader("index", label_maps.load(LITERAL))
    assert read(str(tmp_path / "mask.png")).ids.tolist() == ids.tolist()


def gray_png(ids: np.ndarray, bits: int) -> bytes:
    """A PNG of one row, by the book, since the libraries at hand do not write few bits."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    row = "".join(format(v, f"0{bits}b") for v in ids[0])
    row += "0" * (-len(row) % 8)
    packed = bytes(int(row[i : i + 8], 2) for i in range(0, len(row), 8))
    header = struct.pack(">IIBBBBB", ids.shape[1], 1, bits, 0, 0, 0, 0)
    data = zlib.compress(b"\0" + packed)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(k, d) for k, d in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def test_an_index_mask_in_three_equal_channels_is_one(tmp_path, save):
    save(tmp_path / "mask.png", np.repeat(IDS[..., None], 3, -1))
    read = convert_masks.reader("index", label_maps.load(LITERAL))
    assert (read(str(tmp_path / "mask.png")).ids == IDS).all()


# The command.


@pytest.fixture
def convert(command: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """`convert("--to=index", ...)` converts tmp_path/masks into tmp_path/out."""

    def run(*flags: str) -> Any:
        defaults = {
            "--masks": tmp_path / "masks",
            "--output": tmp_path / "out",
            "--label_map": LITERAL,
            "--to": "index",
        }
        given = {flag.partition("=")[0] for flag in flags}
        shown = [f"{name}={value}" for name, value in defaults.items() if name not in given]
        return command("convert-masks", *shown, *flags)

    return run


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_command_keeps_paths_and_ids_through_all_forms(command, tmp_path, save, colors):
    rng = np.random.default_rng(0)
    drawn = {name: rng.integers(0, 4, (5, 7)) for name in ("a", "deep/er/b", "deep/c.0.3")}
    for name, ids in drawn.items():
        save(tmp_path / "rgb" / f"{name}.png", colors[ids])
    forms = ["rgb", "onehot", "palette", "rgb", "index", "onehot", "index", "palette", "index"]
    for step, (source, target) in enumerate(itertools.pairwise(forms)):
        result = command(
            "convert-masks",
            f"--masks={tmp_path / ('rgb' if step == 0 else str(step - 1))}",
            f"--output={tmp_path / str(step)}",
            f"--label_map={LITERAL}",
            f"--from={READ_AS[source]}",
            f"--to={target}",
        )
        assert result.status == 0, result.err
        assert f"3 masks, {READ_AS[source]} -> {target}." in result.out
        suffix = convert_masks.suffix(target)
        assert tree(tmp_path / str(step)) == sorted(name + suffix for name in drawn)
    for name, ids in drawn.items():
        assert (np.array(Image.open(tmp_path / str(step) / f"{name}.png")) == ids).all()


def test_the_nearest_color_is_taken_and_what_is_far_is_told(convert, tmp_path, save):
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0, :2] = (250, 5, 5), (90, 90, 90)
    save(tmp_path / "masks" / "a.png", pixels)
    result = convert("--color_tolerance=50")
    assert result.status == 0
    assert "1 pixels match no color of the label map and became the nearest class" in result.out
    assert "a.png: 1 pixels match no color" in result.out
    assert "most of them (90, 90, 90), taken for (0, 0, 0)" in result.out
    assert np.array(Image.open(tmp_path / "out" / "a.png"))[0].tolist() == [1, 0, 0, 0]


def test_pixels_of_the_ignore_color_are_ignored_and_counted_as_nothing_else(
    convert, tmp_path, save
):
    save(tmp_path / "masks" / "color.png", np.array([[[9, 9, 9], [255, 0, 0]]], np.uint8))
    save(tmp_path / "masks" / "gray.png", np.array([[9, 0]], np.uint8))
    save(tmp_path / "masks" / "all.png", np.full((2, 2, 3), 9, np.uint8))
    result = convert("--ignore_color=9,9,9", "--color_tolerance=1")
    assert result.status == 0
    assert "match no color" not in result.out
    assert "all.png: 4 pixels are ignored" in result.out
    found = {n: np.array(Image.open(tmp_path / "out" / n)).tolist() for n in tree(tmp_path / "out")}
    assert found == {
        "all.png": [[255, 255], [255, 255]],
        "color.png": [[255, 1]],
        "gray.png": [[255, 0]],
    }


def test_all_problems_are_shown_together_and_nothing_is_written(convert, tmp_path, save):
    masks = tmp_path / "masks"
    save(masks / "good.png", IDS)
    save(masks / "high.png", np.array([[0, 7, 7, 255]], np.uint8))
    save(masks / "red.png", np.array([[[255, 0, 0]]], np.uint8))
    save(masks / "lossy.jpg", IDS)
    save(masks / "twice.png", IDS)
    save(masks / "twice.bmp", IDS)
    (masks / "broken.png").write_bytes(b"no picture")
    result = convert("--from=index", "--to=rgb")
    assert result.status == 1
    for message in (
        "5 problems; nothing was written",
        "high.png holds 7 (2 pixels); the label map has the ids 0 to 3 (and 255 is ignored)",
        "red.png has colors, not class ids; read it as colors",
        "lossy.jpg is a JPEG",
        "broken.png cannot be read",
        f"twice.bmp, {masks}/twice.png: would become one mask",
    ):
        assert message in result.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.eye(4)[IDS]}, 'has no array "mask"; it has other'),
        ({"mask": np.eye(5)[IDS]}, r"float64 [2, 3, 5]; expected numbers [H, W, 4]"),
        ({"mask": IDS}, r"uint8 [2, 3]; expected numbers"),
        ({"mask": np.full((2, 2, 4), 0.25)}, "is not one-hot: 4 pixels"),
        ({"mask": np.ones((1, 3, 4), np.uint8)}, "is not one-hot: 3 pixels"),
        ({"mask": np.full((1, 1, 4), np.nan)}, "is not one-hot: 1 pixels"),
        ({"mask": np.array([[{}]])}, "cannot be read as NPZ"),  # pickled, which is never loaded
    ],
)
def test_what_is_not_one_hot_is_refused(convert, tmp_path, arrays, message):
    (tmp_path / "masks").mkdir()
    np.savez(tmp_path / "masks" / "a.npz", **arrays)
    result = convert("--from=onehot")
    assert result.status == 1
    assert f"{tmp_path / 'masks' / 'a.npz'}" in result.err
    assert message in result.err


def test_a_file_that_is_no_npz_is_named(convert, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.npz").write_bytes(b"PK nothing")
    result = convert("--from=onehot")
    assert result.status == 1
    assert "a.npz cannot be read as NPZ" in result.err


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--to="], 2, "--to"),
        (["--label_map="], 2, "convert-masks needs --label_map"),
        (["--masks=nowhere"], 1, "--masks=nowhere: there is no such folder"),
        (["--from=onehot"], 1, "There are no masks in .*looked for .npz"),
        (["--ignore_color=1,2"], 1, '--ignore_color="1,2": expected red,green,blue'),
        (["--ignore_color=1,2,256"], 1, "--ignore_color"),
        (["--ignore_color=255,0,0"], 1, r"color \(255, 0, 0\) of class 1"),
        (["--color_tolerance=-1"], 1, "--color_tolerance=-1.0"),
    ],
)
def test_what_cannot_be_done_is_refused(convert, tmp_path, save, flags, status, message):
    save(tmp_path / "masks" / "a.png", IDS)
    result = convert(*flags)
    assert result.status == status
    assert re.search(message, result.err)
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_something_or_lies_in_the_masks_is_refused(convert, tmp_path, save):
    save(tmp_path / "masks" / "a.png", IDS)
    save(tmp_path / "other" / "b.png", IDS)
    before = tree(tmp_path)
    for output, message in (
        (tmp_path / "other", r"holds something already (b.png); nothing was touched"),
        (tmp_path / "masks" / "out", "lies inside --masks"),
        (tmp_path / "other" / "b.png", "is a file; expected a folder"),
    ):
        result = convert(f"--output={output}", "--from=index")
        assert result.status == 1
        assert message in result.err
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert convert(f"--output={tmp_path / 'empty'}", "--from=index").status == 0
    assert tree(tmp_path / "empty") == ["a.png"]


def test_the_same_masks_give_the_same_bytes(convert, tmp_path, save, colors):
    save(tmp_path / "masks" / "a.png", colors[IDS])
    for form in READ_AS:
        outputs = [tmp_path / f"{form}{i}" for i in range(2)]
        for output in outputs:
            assert convert(f"--output={output}", f"--to={form}").status == 0
        name = "a" + convert_masks.suffix(form)
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
