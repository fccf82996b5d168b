"""Image and mask are resized alike, pixel centres aligned, and a mask is never interpolated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flexseg_errors import FlexsegError
from pipelines.preparation import Preparation, resize_image, resize_mask

SIDE = st.integers(1, 40)


@given(hnp.arrays(np.uint8, st.tuples(SIDE, SIDE)), SIDE, SIDE)
@settings(max_examples=200)
def test_a_mask_is_resized_by_the_nearest_pixel_centre(ids, height, width):
    y, x = np.indices(ids.shape, np.uint8)
    rows, columns = resize_mask(y, (height, width)), resize_mask(x, (height, width))
    for axis, index in enumerate((rows, columns)):
        length, new = ids.shape[axis], (height, width)[axis]
        centre = (2 * np.indices((height, width))[axis] + 1) * length  # in units of 1 / (2 new)
        assert (np.abs(centre - new * (2 * index.astype(int) + 1)) <= new).all()
    resized = resize_mask(ids, (height, width))
    assert resized.dtype == np.uint8
    assert (resized == ids[rows, columns]).all()


@given(hnp.arrays(np.uint8, st.tuples(SIDE, SIDE), elements=st.sampled_from([0, 3, 255])), SIDE)
@settings(max_examples=50)
def test_a_mask_never_gets_a_class_that_it_had_not(ids, side):
    for preparation in (Preparation((side, 2 * side)), Preparation(scale=side / 10)):
        assert set(np.unique(preparation.mask(ids))) <= set(np.unique(ids))


def stretched(values: np.ndarray, new: int) -> np.ndarray:
    """One axis resized by the book: the mean over each new pixel's span, or linear in between."""
    length = len(values)
    if new <= length:
        total = np.concatenate([[0.0], np.cumsum(values, dtype=float)])
        edges = np.interp(np.linspace(0, length, new + 1), np.arange(length + 1), total)
        return np.diff(edges) * new / length
    return np.interp((np.arange(new) + 0.5) * length / new - 0.5, np.arange(length), values)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
@given(hnp.arrays(np.uint8, st.integers(1, 40)), st.integers(1, 60))
@settings(max_examples=40)
def test_an_image_is_resized_with_its_pixel_centres_aligned(axis, channels, line, new):
    image = line[:, None, None].repeat(7, 1).repeat(channels, 2)
    size = (new, 7)
    if axis:
        image, size = np.ascontiguousarray(image.swapaxes(0, 1)), (7, new)
    resized = resize_image(image, size)
    assert resized.shape == (*size, channels)
    along = resized.swapaxes(0, 1) if axis else resized
    assert (along == along[:, :1, :1]).all()
    assert np.abs(along[:, 0, 0] - stretched(line, new)).max() <= 1.01


@given(st.integers(2, 30), st.integers(2, 30), st.integers(2, 60), st.integers(2, 60))
@settings(max_examples=60)
def test_image_and_mask_stay_aligned(height, width, new_height, new_width):
    ids = np.zeros((height, width), np.uint8)
    ids[: height // 2, : width // 2] = 1
    image = np.where(ids, 255, 0).astype(np.uint8)[..., None].repeat(3, -1)
    preparation = Preparation((new_height, new_width))
    resized, mask = preparation.image(image), preparation.mask(ids)
    assert resized.shape[:2] == mask.shape
    far = np.abs(resized[..., 0].astype(float) - 255.0 * mask) > 191.5
    assert not far.any(), "a pixel shows at least a quarter of its class"


def test_shrinking_takes_the_mean_over_areas():
    image = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    mean = image.reshape(6, 4, 9, 4, 3).mean((1, 3))
    assert np.abs(resize_image(image, (6, 9)) - mean).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(5, 6), (20, 6), (40, 60)])
def test_channels_and_dtype_are_kept_and_the_size_can_be_undone(channels, dtype, size):
    image = np.zeros((10, 12, channels), dtype)
    there = resize_image(image, size)
    assert (there.shape, there.dtype) == ((*size, channels), dtype)
    assert resize_image(there, (10, 12)).shape == image.shape


def test_no_preparation_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (Preparation().image(image) == image).all()
    assert (Preparation((5, 7)).image(image) == image).all()
    assert (Preparation().mask(image[..., 0]) == image[..., 0]).all()


@pytest.mark.parametrize(
    ("preparation", "size", "expected"),
    [
        (Preparation(), (7, 9), (7, 9)),
        (Preparation((32, 64)), (7, 9), (32, 64)),
        (Preparation(scale=2.0), (7, 9), (14, 18)),
        (Preparation(scale=0.5), (7, 9), (4, 5)),  # halves are rounded up
        (Preparation(scale=0.01), (7, 9), (1, 1)),
        (Preparation(scale=1.3), (10, 100), (13, 130)),
    ],
)
def test_the_size_of_a_prepared_source_is_known_beforehand(preparation, size, expected):
    assert preparation.size_of(*size) == expected
    assert preparation.image(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)
    assert preparation.mask(np.zeros(size, np.uint8)).shape == expected


@pytest.mark.parametrize("preparation", [Preparation(), Preparation((3, 4)), Preparation(None, 2)])
def test_it_survives_plain_data(preparation):
    import dataclasses
    import json

    data = json.loads(json.dumps(dataclasses.asdict(preparation)))
    assert Preparation.from_dict(data) == preparation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), 2.0), "Give --image_size or --scale, not both"),
        (((0, 4), 1.0), r"--image_size=\(0, 4\): both sides must be at least 1"),
        ((None, 0.0), "--scale=0.0: expected a factor above 0"),
        ((None, -1.0), "--scale=-1.0"),
        ((None, 65.0), "--scale=65.0"),
        ((None, float("nan")), "--scale=nan"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments, message):
    with pytest.raises(FlexsegError, match=message):
        Preparation(*arguments)
