"""Masks written row by row are the masks that were written whole."""

import os
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from export.predictions import windowed_masks
from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from train import previews

LABELS = label_maps.load("{(10,20,30):0,(255,0,0):1,(0,200,90):2}")
PALETTE = label_maps.colorize(np.arange(256, dtype=np.uint8)[None], LABELS)[0]


def ids_of(size, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (max(1, size[0] // 9), max(1, size[1] // 9)), dtype=np.uint8)
    ids = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    ids[rng.random(size) < 0.05] = 2
    return ids


def cut(ids, cuts):
    return (ids[a:b] for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True))


def test_a_palette_png_is_the_one_that_is_written_whole(tmp_path):
    ids = ids_of((301, 217))
    previews.write_mask(str(tmp_path / "whole.png"), ids, LABELS)
    windowed_masks.write_mask(str(tmp_path / "rows.png"), ids.shape, cut(ids, [1, 100]), LABELS)
    whole, rows = (Image.open(tmp_path / name) for name in ("whole.png", "rows.png"))
    assert rows.mode == whole.mode == "P"
    assert rows.getpalette() == whole.getpalette()
    np.testing.assert_array_equal(np.asarray(rows), ids)
    colors = cv2.imread(str(tmp_path / "rows.png"))[..., ::-1]
    np.testing.assert_array_equal(colors, PALETTE[ids])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("form", windowed_masks.FORMS)
def test_every_form_shows_ids_or_their_colours(tmp_path, suffix, form):
    ids = ids_of((301, 517))
    path = str(tmp_path / ("mask" + suffix))
    windowed_masks.write_mask(path, ids.shape, cut(ids, [7, 300]), LABELS, form)
    picture = Image.open(path)
    assert picture.mode == {"palette": "P", "index": "L", "rgb": "RGB"}[form]
    expected = PALETTE[ids] if form == "rgb" else ids
    np.testing.assert_array_equal(np.asarray(picture), expected)
    if form == "palette":
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), PALETTE[ids])
    assert os.listdir(tmp_path) == ["mask" + suffix]


def test_an_array_of_ids(tmp_path):
    ids = ids_of((301, 217))
    windowed_masks.write_mask(str(tmp_path / "a.npy"), ids.shape, cut(ids, [30, 30]), LABELS)
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, ids)


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(1, 600), st.integers(1, 300)),
    suffix=st.sampled_from(windowed_masks.SUFFIXES),
    data=st.data(),
)
def test_neither_size_nor_cuts_matter(tmp_path_factory, size, suffix, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, size[0]), max_size=4)))
    ids = ids_of(size)
    path = str(tmp_path_factory.mktemp("cuts") / ("mask" + suffix))
    windowed_masks.write_mask(path, size, cut(ids, cuts), LABELS)
    found = np.load(path) if suffix == ".npy" else np.asarray(Image.open(path))
    np.testing.assert_array_equal(found, ids)


def test_a_large_noisy_png_has_several_chunks_and_opencv_reads_it(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, (900, 1000), dtype=np.uint8)
    path = str(tmp_path / "a.png")
    windowed_masks.write_mask(path, ids.shape, cut(ids, list(range(0, 900, 50))), LABELS, "index")
    assert (tmp_path / "a.png").read_bytes().count(b"IDAT") > 2
    np.testing.assert_array_equal(cv2.imread(path, cv2.IMREAD_UNCHANGED), ids)


def test_probabilities_are_those_that_are_written_whole(tmp_path):
    values = np.random.default_rng(0).random((70, 50, 3), np.float32)
    path = tmp_path / "a.npz"
    with windowed_masks.probability_file(str(path), (70, 50), 3) as take:
        for part in cut(values, [1, 33]):
            take(part)
    with np.load(path) as found:
        assert list(found) == ["probabilities"]
        assert found["probabilities"].dtype == np.float16
        np.testing.assert_array_equal(found["probabilities"], values.astype(np.float16))
    assert zipfile.ZipFile(path).testzip() is None


def failing(ids):
    yield ids[:10]
    raise FlexsegError("the image ends here")


@pytest.mark.parametrize("suffix", windowed_masks.SUFFIXES)
def test_what_fails_leaves_what_was_there(tmp_path, suffix):
    ids = ids_of((40, 30))
    path = tmp_path / ("mask" + suffix)
    with pytest.raises(FlexsegError, match="ends here"):
        windowed_masks.write_mask(str(path), ids.shape, failing(ids), LABELS)
    assert os.listdir(tmp_path) == []
    windowed_masks.write_mask(str(path), ids.shape, [ids], LABELS)
    before = path.read_bytes()
    with pytest.raises(FlexsegError, match="ends here"):
        windowed_masks.write_mask(str(path), ids.shape, failing(ids), LABELS)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", windowed_masks.SUFFIXES)
def test_rows_that_do_not_make_the_mask_make_none(tmp_path, suffix):
    ids = ids_of((40, 30))
    for rows in ([ids[:39]], [ids, ids[:1]], [ids[:, :29]], [ids[:0]]):
        with pytest.raises(ValueError, match="for a mask of"):
            windowed_masks.write_mask(str(tmp_path / ("a" + suffix)), (40, 30), rows, LABELS)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(FlexsegError, match=r"a\.jpg: masks are written by rows as \.png"):
        windowed_masks.write_mask(str(tmp_path / "a.jpg"), (1, 1), [], LABELS)
    with pytest.raises(FlexsegError, match='Did you mean "palette"'):
        windowed_masks.write_mask(str(tmp_path / "a.png"), (1, 1), [], LABELS, "pallete")
