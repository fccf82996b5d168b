"""A mask that is post-processed in bands comes out as the whole would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from train import postprocessing_bands
from train.postprocessing import ClassRule, Postprocessing

EIGHT = np.ones((3, 3), int)


def drawn(seed, height, width, kind):
    """Dense class ids 0..3: noise, bodies with holes, or blocks of pixels."""
    rng = np.random.default_rng([seed, height, width])
    if kind == "noise":
        return rng.integers(0, 4, (height, width)).astype(np.uint8)
    if kind == "holes":
        return rng.choice([1, 1, 1, 1, 0, 0, 2], (height, width)).astype(np.uint8)
    blocks = rng.integers(0, 4, (-(-height // 3), -(-width // 2)))
    return np.kron(blocks, np.ones((3, 2)))[:height, :width].astype(np.uint8)


MASKS = st.builds(
    drawn,
    st.integers(0, 2**32),
    st.integers(1, 30),
    st.integers(1, 24),
    st.sampled_from(["noise", "holes", "blocks"]),
)
RULES = st.lists(
    st.builds(ClassRule, st.integers(1, 3), st.booleans(), st.integers(0, 12), st.integers(0, 12)),
    unique_by=lambda rule: rule.id,
    max_size=3,
)
ROWS = st.integers(1, 20)


class OneBandOnly:
    """A mask of which no more than a band, and the rows around it, may be held."""

    def __init__(self, ids, most):
        self.ids, self.most = ids.copy(), most
        self.shape = ids.shape

    def __getitem__(self, rows):
        found = self.ids[rows].copy()
        assert len(found) <= self.most + 2
        return found

    def __setitem__(self, rows, ids):
        assert len(ids) <= self.most
        self.ids[rows] = ids


@settings(deadline=None, max_examples=500)
@given(MASKS, RULES, st.sampled_from([1.0, 0.25, 3.7]), ROWS)
def test_bands_give_what_the_whole_gives(ids, rules, area, rows):
    chosen = Postprocessing(tuple(rules))
    found = OneBandOnly(ids, rows)
    postprocessing_bands.apply(chosen, found, area, band_pixels=rows * ids.shape[1])
    np.testing.assert_array_equal(found.ids, chosen.apply(ids, area))


@settings(deadline=None, max_examples=100)
@given(MASKS, ROWS)
def test_components_that_go_are_those_of_scipy(ids, rows):
    """Of class 1, without the code that treats a mask as a whole."""
    labels, count = ndimage.label(ids == 1, EIGHT)
    sizes = ndimage.sum_labels(ids == 1, labels, np.arange(count + 1))
    found = ids.copy()
    rule = ClassRule(1, minimum_size=4)
    postprocessing_bands.apply(Postprocessing((rule,)), found, 1.0, rows * ids.shape[1])
    stays = (ids == 1) & (sizes >= 4)[labels]
    assert (found[stays] == 1).all()
    np.testing.assert_array_equal(found[ids != 1], ids[ids != 1])
    goes = (ids == 1) & ~stays
    if (ids != 1).any():
        assert (found[goes] != 1).all()


def spiral(side):
    """One line of class 1 that winds through all rows many times, and what is left of class 0."""
    ids = np.zeros((side, side), np.uint8)
    ids[::4] = 1
    for turn, row in enumerate(range(0, side - 4, 4)):
        ids[row : row + 4, 0 if turn % 2 else side - 1] = 1
    return ids


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64])
def test_what_winds_through_many_bands_is_one_component(rows):
    ids = spiral(61)
    ids[30, 30] = 1  # alone
    found = ids.copy()
    chosen = Postprocessing((ClassRule(1, largest_component=True),))
    postprocessing_bands.apply(chosen, found, 1.0, rows * 61)
    np.testing.assert_array_equal(found, spiral(61))


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_of_several_largest_the_first_by_rows_stays_across_bands(rows):
    """OpenCV numbers components two rows at a time, from the left."""
    chosen = Postprocessing((ClassRule(1, largest_component=True),))
    for first, second in (([4, 6], [5, 1]), ([0, 8], [1, 0]), ([6, 7], [8, 0])):
        ids = np.zeros((9, 9), np.uint8)
        ids[tuple(first)] = ids[tuple(second)] = 1
        postprocessing_bands.apply(chosen, ids, 1.0, rows * 9)
        np.testing.assert_array_equal(np.argwhere(ids), [first])
