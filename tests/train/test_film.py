"""Film strips show the pictures that lie in the run directory, and of many epochs a few."""

import cv2
import numpy as np
import pytest

from pipelines import label_map as label_maps
from train import film, previews

MAP = label_maps.load("{(0,0,0):0,(200,0,0):1,(0,100,0):2}")
CELL = 128 + 2  # pixels: a square picture and the gap
TOP = 18


def plain(*color):
    return np.full((128, 128, 3), color, np.uint8)


def cell(strip, row, column):
    """A picture of a strip, whose pictures are square."""
    top, left = TOP + row * CELL, column * CELL
    return strip[top : top + 128, left : left + 128]


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("epochs", [0, 1, 5, 12, 13, 40, 200])
def test_few_of_many_epochs_are_spread_evenly_from_the_first_to_the_last(epochs, count):
    epochs = list(range(3, 3 + epochs))
    found = film.spread(epochs, count)
    assert len(found) == min(len(epochs), count)
    assert found == sorted(set(found))
    assert set(found) <= set(epochs)
    if epochs and count > 1:
        assert (found[0], found[-1]) == (epochs[0], epochs[-1])
        steps = np.diff(found)
        assert not len(steps) or steps.max() - steps.min() <= 1


def write_sheets(folder, epochs):
    """A sheet of two rows for each epoch, whose predictions tell the epoch by their gray."""
    for epoch in epochs:
        rows = [
            np.hstack(
                [
                    np.pad(np.full((256, 256, 3), v, np.uint8), ((0, 4), (0, 4), (0, 0)))
                    for v in (row, 10 + row, 100 + 10 * row + epoch, 255)
                ]
            )
            for row in (1, 2)
        ]
        path = folder / "previews" / film.sheet_name(epoch)
        previews.write_png(str(path), np.vstack(rows))


def test_a_strip_of_sheets_has_image_truth_and_the_prediction_of_each_epoch(tmp_path):
    write_sheets(tmp_path, range(3))
    strip = film.Film(str(tmp_path)).of_sheets(2)
    assert strip.shape == (TOP + 2 * CELL, 5 * CELL, 3)
    for i, row in enumerate((1, 2)):
        wanted = [row, 10 + row, *(100 + 10 * row + epoch for epoch in range(3))]
        found = [cell(strip, i, column) for column in range(5)]
        for picture, value in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(picture, value)


def test_pictures_of_later_epochs_are_of_a_process_that_was_killed(tmp_path):
    write_sheets(tmp_path, range(4))
    once = film.Film(str(tmp_path)).of_sheets(1)
    assert once.shape[1] == 4 * CELL


def test_a_strip_is_bounded_however_many_epochs_there_are(tmp_path):
    write_sheets(tmp_path, range(30))
    strip = film.Film(str(tmp_path)).of_sheets(29)
    assert strip.shape[1] == (2 + 12) * CELL
    assert cell(strip, 0, 2)[0, 0, 0] == 110
    assert cell(strip, 0, 13)[0, 0, 0] == 110 + 29


def test_a_film_goes_on_as_if_it_had_never_been_broken_off(tmp_path):
    unbroken = film.Film(str(tmp_path))
    for epoch in range(20):
        write_sheets(tmp_path, [epoch])
        seen = unbroken.of_sheets(epoch)
    np.testing.assert_array_equal(film.Film(str(tmp_path)).of_sheets(19), seen)


def test_a_strip_of_masks_shows_the_old_names_in_the_colours_of_the_label_map(tmp_path):
    images = {"a.b": np.full((64, 64, 1), 7, np.uint8), "c": np.full((32, 32, 3), 9, np.uint8)}
    folder = tmp_path / film.WHOLE
    folder.mkdir()
    for epoch in range(3):
        for stem in images:
            ids = np.full((64, 64), epoch, np.uint8)
            path = folder / f"Epoch_{epoch + 1}_{stem}.png"
            previews.write_mask(str(path), ids, MAP)
    (folder / "Epoch_3_c.png").unlink()  # an epoch that is not whole is left out
    strip = film.Film(str(tmp_path)).of_masks(film.WHOLE, images, 2)
    assert strip.shape == (TOP + 2 * CELL, 3 * CELL, 3)
    for row, gray in enumerate((7, 9)):
        np.testing.assert_array_equal(cell(strip, row, 0), gray)
        for epoch in (0, 1):
            np.testing.assert_array_equal(cell(strip, row, 1 + epoch), plain(*MAP.colors[epoch]))


def test_pictures_of_unlike_widths_stand_in_columns():
    rows = [
        [("image", film.shrink(np.full((10, 30, 3), 5, np.uint8)))] * 2,
        [("image", film.shrink(np.full((10, 10, 1), 6, np.uint8)))] * 2,
    ]
    strip = film.strip(rows)
    assert strip.shape == (TOP + 2 * CELL, 2 * (3 * 128 + 2), 3)
    assert (strip[TOP + CELL : TOP + CELL + 128, 386 : 386 + 128] == 6).all()


def test_without_pictures_there_is_no_strip(tmp_path):
    films = film.Film(str(tmp_path))
    assert films.of_sheets(3) is None
    assert films.of_masks(film.TILED, {"a": np.zeros((8, 8, 3), np.uint8)}, 3) is None


def test_titles_name_the_columns():
    strip = film.strip([[("image", plain(0, 0, 0)), ("12", plain(0, 0, 0))]])
    for column in (0, 1):
        assert strip[:TOP, column * CELL : (column + 1) * CELL].max() > 200
    blank = film.strip([[("", plain(0, 0, 0))]])
    assert cv2.countNonZero(blank[..., 0]) == 0
