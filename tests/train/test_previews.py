"""Pictures show what they say: classes in their colours, background as it was."""

import cv2
import numpy as np
import pytest

from pipelines import label_map as label_maps
from pipelines.label_map import IGNORE_ID
from train import previews

MAP = label_maps.load("{(0,0,0):0,(200,0,0):1,(0,100,0):2}")


def image_and_ids(channels):
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 1, 2, IGNORE_ID], (9, 13)).astype(np.uint8)
    return rng.integers(0, 256, (9, 13, channels), dtype=np.uint8), ids


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("opacity", [0.0, 0.25, 1.0])
def test_an_overlay_paints_the_foreground_alone(channels, opacity):
    image, ids = image_and_ids(channels)
    found = previews.overlay(image, ids, MAP, opacity)
    assert found.dtype == np.uint8
    for y, x in np.ndindex(*ids.shape):
        pixel = np.broadcast_to(image[y, x], 3).astype(float)
        if ids[y, x] in (1, 2):
            pixel = pixel * (1 - opacity) + MAP.colors[ids[y, x]] * opacity
        assert abs(found[y, x] - pixel).max() <= 0.5


def test_a_sheet_has_a_row_for_each_image_and_shows_masks_in_their_colours():
    (image, ids), gray = image_and_ids(3), image_and_ids(1)[0]
    sheet = previews.sheet([image, gray], [(ids, ids), (ids, ids)], MAP, side=9)
    row, cell = 9 + 4, 13 + 4
    assert sheet.shape == (2 * row, 3 * cell, 3)
    np.testing.assert_array_equal(sheet[:9, :13], image)
    np.testing.assert_array_equal(sheet[row : row + 9, :13], np.repeat(gray, 3, -1))
    for top in (0, row):
        for left in (cell, 2 * cell):
            part = sheet[top : top + 9, left : left + 13]
            np.testing.assert_array_equal(part, label_maps.colorize(ids, MAP))


def test_a_picture_is_read_back_as_it_was_written(tmp_path):
    picture = image_and_ids(3)[0]
    previews.write_png(str(tmp_path / "deep" / "a.png"), picture)
    found = cv2.imread(str(tmp_path / "deep" / "a.png"))[..., ::-1]
    np.testing.assert_array_equal(found, picture)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_errors_are_painted_by_their_kind_and_what_is_ignored_is_never_wrong():
    image, truth = image_and_ids(3)
    found = np.random.default_rng(1).integers(0, 3, truth.shape, dtype=np.uint8)
    picture = previews.errors(image, truth, found)
    kinds = set()
    for y, x in np.ndindex(*truth.shape):
        true, said = truth[y, x], found[y, x]
        if true in (IGNORE_ID, said):
            kinds.add("right")
            gray = image[y, x].astype(float).mean() / 2
            assert abs(picture[y, x] - gray).max() <= 0.5
        elif true == 0:
            kinds.add("false alarm")
            assert tuple(picture[y, x]) == (213, 94, 0)
        elif said == 0:
            kinds.add("missed")
            assert tuple(picture[y, x]) == (86, 180, 233)
        else:
            kinds.add("confused")
            assert tuple(picture[y, x]) == (240, 228, 66)
    assert len(kinds) == 4


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_ends_with_the_errors_of_its_second_mask(channels):
    image, truth = image_and_ids(channels)
    found = np.roll(truth, 1)
    found[found == IGNORE_ID] = 0
    sheet = previews.sheet([image], [(truth, found)], MAP, side=9, with_errors=True)
    assert sheet.shape == (13, 4 * 17, 3)
    wanted = previews.errors(image, truth, found)
    np.testing.assert_array_equal(sheet[:9, 3 * 17 : 3 * 17 + 13], wanted)


def test_the_previews_of_a_run_show_validation_images(trained):
    """Two rows of image, truth, prediction and error, for each of the two epochs."""
    for epoch in (0, 1):
        picture = cv2.imread(str(trained / "previews" / f"epoch_{epoch:04d}.png"))
        assert picture.shape == (2 * 260, 4 * 260, 3)
