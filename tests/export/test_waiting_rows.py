"""Class ids that wait in a file are what was put there."""

import tempfile

import numpy as np
import pytest

from export.predictions.waiting_rows import WaitingRows
from flexseg_errors import FlexsegError
from train import postprocessing_bands
from train.postprocessing import ClassRule, Postprocessing


def test_a_mask_may_wait_in_a_file():
    rng = np.random.default_rng(0)
    ids = np.kron(rng.integers(0, 4, (40, 30)), np.ones((4, 5))).astype(np.uint8)
    ids[rng.random(ids.shape) < 0.02] = 0
    chosen = Postprocessing(
        (ClassRule(1, False, 30, 5), ClassRule(2, True), ClassRule(3, False, 9))
    )
    with WaitingRows.of(ids.shape, np.split(ids, [1, 50, 51, 159])) as waiting:
        assert waiting.shape == ids.shape
        np.testing.assert_array_equal(waiting[3:70], ids[3:70])
        postprocessing_bands.apply(chosen, waiting, 1.0, 7 * ids.shape[1])
        found = np.concatenate(list(waiting.parts()))
    expected = chosen.apply(ids)
    assert (expected != ids).any()
    np.testing.assert_array_equal(found, expected)


def test_rows_of_another_size_are_a_mistake():
    with (
        pytest.raises(ValueError, match="rows 2 to 4"),
        WaitingRows.of((4, 3), [np.zeros((2, 3), np.uint8), np.zeros((2, 4), np.uint8)]),
    ):
        pass


def test_a_full_disk_is_told():
    class Full:
        def seek(self, where):
            pass

        def write(self, data):
            raise OSError(28, "No space left on device")

    rows = WaitingRows((2, 3), Full())
    with pytest.raises(FlexsegError, match=r"No space left.*6 bytes.*--nopostprocessing") as error:
        rows[0:1] = np.zeros((1, 3), np.uint8)
    assert tempfile.gettempdir() in str(error.value)
