"""The curves' files to the letter: people and scripts read those of the old projects."""

import cv2
import numpy as np
import pytest

from train import curves

HISTORY = {
    "loss": [1.23456, 0.5, 0.25],
    "dice": [None, 0.25, 1 / 3],
    "dice/a": [0.5, None, 1.0],
    'dice/b, "c"': [0.0, 0.1, 0.2],
    "learning_rate": [0.1, 0.1, 0.1],
    "val_loss": [2.0, None, 0.00004],
    "val_dice": [0.1, 0.2, 0.99996],
    "val_dice/a": [0.1, 0.2, 0.3],
}


@pytest.fixture
def written(tmp_path):
    """A function from a history to the folder of its curves."""

    def write(history):
        curves.write(str(tmp_path / "eval"), history)
        return tmp_path / "eval"

    return write


def test_files_have_the_old_form(written):
    folder = written(HISTORY)
    assert (folder / "train_losses.csv").read_text() == (
        "epoch, loss, val_loss\n0, 1.2346, 2.0000\n1, 0.5000, \n2, 0.2500, 0.0000\n"
    )
    assert (folder / "train_metrics.csv").read_text() == (
        "epoch,dice,val_dice,\n0, , 0.1000\n1, 0.2500, 0.2000\n2, 0.3333, 1.0000\n"
    )


def test_classes_have_a_file_of_their_own(written):
    assert (written(HISTORY) / "train_classes.csv").read_text() == (
        'epoch,dice/a,"dice/b, ""c""",val_dice/a\n'
        "0, 0.5000, 0.0000, 0.1000\n1, , 0.1000, 0.2000\n2, 1.0000, 0.2000, 0.3000\n"
    )


def test_without_a_valid_split_its_columns_are_there_and_empty(written):
    folder = written({k: v for k, v in HISTORY.items() if not k.startswith("val_")})
    assert (folder / "train_losses.csv").read_text() == (
        "epoch, loss, val_loss\n0, 1.2346, \n1, 0.5000, \n2, 0.2500, \n"
    )
    assert (folder / "train_metrics.csv").read_text().splitlines()[:2] == [
        "epoch,dice,val_dice,",
        "0, , ",
    ]


def test_drawings_are_of_8_by_6_inches_and_nothing_unfinished_is_left(written):
    folder = written(HISTORY)
    names = ("train_classes", "train_losses", "train_metrics")
    for name in names:
        assert cv2.imread(str(folder / f"{name}.png")).shape == (600, 800, 3)
    wanted = sorted(f"{name}.{suffix}" for name in names for suffix in ("csv", "png"))
    assert sorted(path.name for path in folder.iterdir()) == wanted


def test_the_first_curve_is_green_and_the_second_red(written):
    pixels = cv2.imread(str(written(HISTORY) / "train_losses.png")).reshape(-1, 3)
    for color in ((0, 128, 0), (0, 0, 255)):  # matplotlib's green and red, in OpenCV's order
        assert (pixels == np.array(color)).all(1).sum() > 50


def test_a_curve_without_any_figure_is_no_error(written):
    folder = written({"loss": [None], "dice": [None]})
    assert (folder / "train_metrics.csv").read_text() == "epoch,dice,val_dice,\n0, , \n"
    assert (folder / "train_losses.png").exists()
