"""Warps are the textbook formulas, chain into one resampling, and keep image and mask together."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from flexseg_errors import FlexsegError
from pipelines import warps

SIZES = [(16, 16), (17, 17), (20, 32), (33, 24), (21, 32)]
CENTERS = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.5))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def pair(size: tuple[int, int], channels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(seed)
    image = rng.integers(0, 256, (*size, channels), np.uint8)
    return image, rng.integers(0, 5, size, np.uint8)


def smooth(size: tuple[int, int]) -> np.ndarray:
    """An image that interpolation hardly changes."""
    y, x = np.mgrid[: size[0], : size[1]]
    planes = [128 + 100 * np.sin(x / 9 + k) * np.cos(y / 7 - k) for k in range(3)]
    return np.stack(planes, -1).round().astype(np.uint8)


def every_warp(size: tuple[int, int]) -> dict[str, warps.Warp]:
    return {
        "hflip": warps.hflip(size),
        "vflip": warps.vflip(size),
        "rotation": warps.rotation(size, 20.0),
        "right angle": warps.rotation(size, 90.0),
        "shrink": warps.shrink(size, 0.8),
        "shear": warps.shear(size, 0.1),
        "elastic": warps.elastic(size, 1300.0, 8.0, generator(1)),
        "distortion": warps.distortion(size, 0.03, 40.0, generator(2)),
        "barrel": warps.radial(size, 0.5, 0.5, ((0.4, 0.5),)),
        "pincushion": warps.radial(size, 0.3, -0.3, CENTERS),
    }


def barrel_of_one_point(x, y, width, height, radius, amount, center):
    """The formula as it was always written, for one pixel."""
    center_x, center_y = width * center[0], height * center[1]
    radius = width * radius
    dx, dy = x - center_x, y - center_y
    squared = dx * dx + dy * dy
    if squared >= radius * radius:
        return x, y
    factor = 1.0
    if squared > 0:
        factor = math.pow(math.sin(math.pi * math.sqrt(squared) / radius / 2), amount)
    return factor * dx + center_x, factor * dy + center_y


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("radius", "amount", "centers"),
    [(0.5, 0.5, CENTERS[2:]), (0.3, 0.3, CENTERS), (0.3, -0.3, CENTERS), (0.7, -0.8, CENTERS[:1])],
)
def test_discs_are_distorted_by_the_formula_of_every_point(size, radius, amount, centers):
    height, width = size
    expected = np.empty((2, *size))
    for y, x in itertools.product(range(height), range(width)):
        point = (float(x), float(y))
        for center in reversed(centers):
            point = barrel_of_one_point(*point, width, height, radius, amount, center)
        expected[:, y, x] = point
    lens = warps.radial(size, radius, amount, centers)
    np.testing.assert_allclose(warps.sampling_map([lens], size), expected, atol=2e-5)


def test_a_barrel_is_the_image_that_a_pixel_loop_gives():
    size = (40, 56)
    image, mask = pair(size)
    x, y = np.empty((2, *size), np.float32)
    for row, column in itertools.product(range(40), range(56)):
        x[row, column], y[row, column] = barrel_of_one_point(
            column, row, 56, 40, 0.3, 0.3, (0.3, 0.3)
        )
    lens = warps.radial(size, 0.3, 0.3, ((0.3, 0.3),))
    found, found_mask = warps.resample(image, mask, [lens], border="constant")
    assert np.mean(found != cv2.remap(image, x, y, cv2.INTER_LINEAR)) < 1e-3
    assert np.mean(found_mask != cv2.remap(mask, x, y, cv2.INTER_NEAREST)) < 1e-3


def test_images_of_discs_are_distorted_one_upon_the_other():
    size = (64, 64)
    one_by_one = smooth(size)
    mask = np.zeros(size, np.uint8)
    for center in CENTERS:
        one_by_one, _ = warps.resample(
            one_by_one, mask, [warps.radial(size, 0.3, 0.3, (center,))], border="replicate"
        )
    lens = warps.radial(size, 0.3, 0.3, CENTERS)
    at_once, _ = warps.resample(smooth(size), mask, [lens], border="replicate")
    assert np.abs(at_once.astype(int) - one_by_one).max() <= 12


@pytest.mark.parametrize("size", [(48, 48), (40, 70)])
@pytest.mark.parametrize(("alpha", "sigma"), [(1300.0, 8.0), (700.0, 3.0)])
def test_an_elastic_field_is_what_scipy_makes_of_the_same_noise(size, alpha, sigma):
    noise = generator().uniform(-1, 1, (2, *size)).astype(np.float32)
    impulse = np.zeros(201)
    impulse[100] = 1
    weights = ndimage.gaussian_filter1d(impulse, sigma, mode="constant")[100:102]
    strength = alpha * math.sqrt(weights[0] ** 2 + 2 * weights[1] ** 2)
    expected = [
        strength * ndimage.gaussian_filter(p.astype(float), sigma, mode="constant") for p in noise
    ]
    field = warps.elastic_field(noise, alpha, sigma)
    np.testing.assert_allclose(field, expected, atol=1e-4)

    image = smooth(size)
    mask = (image[..., 0] > 128).astype(np.uint8)
    found, found_mask = warps.resample(image, mask, [warps.Displacement(field)], border="replicate")
    y, x = np.mgrid[: size[0], : size[1]]
    points = [y + expected[1], x + expected[0]]
    for channel in range(3):
        slow = ndimage.map_coordinates(image[..., channel], points, order=1, mode="nearest")
        assert np.abs(found[..., channel].astype(int) - slow).max() <= 2
    slow = ndimage.map_coordinates(mask, points, order=0, mode="nearest")
    assert np.mean(found_mask != slow) < 1e-3


def test_an_elastic_field_is_as_strong_as_one_filtered_along_three_channels_too():
    size = (160, 160)
    noise = np.random.RandomState(137).rand(*size, 3) * 2 - 1
    old = ndimage.gaussian_filter(noise, 8, mode="constant")[..., 1] * 1300
    fields = [warps.elastic(size, 1300.0, 8.0, generator(i)).field for i in range(4)]
    assert np.std(fields) == pytest.approx(2.3, rel=0.1)
    assert np.std(fields) == pytest.approx(old.std(), rel=0.15)


@pytest.mark.parametrize("size", [(96, 96), (60, 100)])
def test_a_distortion_is_what_scipy_makes_of_the_same_noise(size):
    noise = generator().standard_normal(size, np.float32)
    sigmas = (40 * size[0] / 512, 40 * size[1] / 512)
    expected = []
    for order, side in (((0, 1), size[1]), ((1, 0), size[0])):
        slope = ndimage.gaussian_filter(noise.astype(float), sigmas, order=order)
        expected.append(-slope * 0.03 * side / np.abs(slope).max())
    field = warps.distortion_field(noise, size, 0.03, 40.0)
    np.testing.assert_allclose(field, expected, atol=1e-3)


@pytest.mark.parametrize("size", [(512, 512), (300, 700), (90, 40), (3, 200), (1, 1)])
def test_a_distortion_moves_pixels_by_no_more_than_the_share_of_each_side(size):
    field = warps.distortion(size, 0.02, 40.0, generator()).field
    assert field.shape == (2, *size)
    assert field.dtype == np.float32
    for plane, side in zip(field, size[::-1], strict=True):
        assert np.abs(plane).max() == pytest.approx(0.02 * side if side > 1 else 0, rel=1e-4)


def test_an_image_and_its_enlargement_are_distorted_alike():
    noise = generator().standard_normal((103, 103), np.float32)
    field = warps.distortion_field(noise, (512, 512), 0.03, 40.0)
    large = warps.distortion_field(noise, (1024, 2048), 0.03, 40.0)
    reduced = np.stack([cv2.resize(p, (512, 512), interpolation=cv2.INTER_AREA) for p in large])
    assert np.abs(reduced[0] / 4 - field[0]).max() < 0.05
    assert np.abs(reduced[1] / 2 - field[1]).max() < 0.05


@pytest.mark.parametrize("size", SIZES)
def test_flips_and_half_turns_are_those_of_numpy_and_undo_themselves(size):
    image, mask = pair(size)
    for warp, expected in (
        (warps.hflip(size), np.s_[:, ::-1]),
        (warps.vflip(size), np.s_[::-1]),
        (warps.rotation(size, 180.0), np.s_[::-1, ::-1]),
    ):
        once = warps.resample(image, mask, [warp])
        np.testing.assert_array_equal(once[0], image[expected])
        np.testing.assert_array_equal(once[1], mask[expected])
        for twice in (
            warps.resample(*once, [warp]),
            warps.resample(image, mask, [warp, warp]),
        ):
            np.testing.assert_array_equal(twice[0], image)
            np.testing.assert_array_equal(twice[1], mask)


@pytest.mark.parametrize("side", [1, 2, 16, 17])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quarters", range(-4, 5))
def test_right_angles_turn_squares_counterclockwise_pixel_by_pixel(side, channels, quarters):
    image, mask = pair((side, side), channels)
    found, found_mask = warps.resample(image, mask, [warps.rotation((side, side), 90.0 * quarters)])
    np.testing.assert_array_equal(found, np.rot90(image, quarters))
    np.testing.assert_array_equal(found_mask, np.rot90(mask, quarters))


@pytest.mark.parametrize("angle", [90.0, 270.0])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(20, 32), (21, 32), (32, 21), (33, 21)])
def test_right_angles_copy_the_pixels_of_a_rectangle_that_stay_in_sight(size, interpolation, angle):
    image, mask = pair(size)
    image = np.maximum(image, 1)
    turn = [warps.rotation(size, angle)]
    found, found_mask = warps.resample(image, mask, turn, interpolation, "constant")
    turned, turned_mask = (np.rot90(a, 1 if angle == 90 else 3) for a in (image, mask))
    square = min(size)
    seen = (found > 0).all(-1)
    assert seen.sum() == square * square
    y, x = np.argwhere(seen).min(0)
    inside = np.s_[y : y + square, x : x + square]
    matches = [
        (top, left)
        for top in range(turned.shape[0] - square + 1)
        for left in range(turned.shape[1] - square + 1)
        if (turned[top : top + square, left : left + square] == found[inside]).all()
    ]
    assert len(matches) == 1, "pixels are copied, none is made up"
    ((top, left),) = matches
    assert abs(2 * top - (turned.shape[0] - square)) <= 1
    assert abs(2 * left - (turned.shape[1] - square)) <= 1
    same = turned_mask[top : top + square, left : left + square]
    np.testing.assert_array_equal(found_mask[inside], same)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(-360, 360), st.floats(0.2, 4))
def test_rotation_shear_and_scale_leave_the_middle_where_it_is(height, width, angle, factor):
    size = (height, width)
    middle = np.array([(width - 1) / 2, (height - 1) / 2], np.float32).reshape(2, 1, 1)
    for warp in (warps.shear(size, factor), warps.shrink(size, factor)):
        np.testing.assert_allclose(warp.at(middle, None), middle, atol=1e-3)
    beside = 0.0 if angle % 90 else 0.5
    turned = warps.rotation(size, angle).at(middle, None)
    assert np.abs(turned - middle).max() <= beside + 1e-3


def test_affine_steps_do_what_they_say():
    size = (31, 41)
    y, x = np.mgrid[:31, :41].astype(float)
    sheared = warps.sampling_map([warps.shear(size, 0.25)], size)
    np.testing.assert_allclose(sheared, [x, y - 0.25 * (x - 20)], atol=1e-5)
    shrunk = warps.sampling_map([warps.shrink(size, 0.5)], size)
    np.testing.assert_allclose(shrunk, [20 + 2 * (x - 20), 15 + 2 * (y - 15)], atol=1e-5)
    matrix = cv2.getRotationMatrix2D((20.0, 15.0), 30.0, 1.0)
    there = warps.sampling_map([warps.rotation(size, 30.0)], size).reshape(2, -1)
    back = matrix[:, :2] @ there + matrix[:, 2:]
    np.testing.assert_allclose(back, [x.ravel(), y.ravel()], atol=1e-4)


@pytest.mark.parametrize("size", [(48, 48), (40, 56)])
def test_chained_warps_move_points_one_after_the_other(size):
    known = every_warp(size)
    grid = warps.sampling_map([], size)
    for first, second in itertools.product(known, known):
        chained = warps.sampling_map([known[first], known[second]], size)
        by_hand = known[first].at(known[second].at(grid, 0), None)
        np.testing.assert_allclose(chained, by_hand, atol=2e-3, err_msg=f"{first}, {second}")


@pytest.mark.parametrize("size", [(96, 96), (80, 120)])
def test_one_resampling_is_the_same_image_as_one_after_the_other(size):
    image, mask = smooth(size), np.zeros(size, np.uint8)
    known = every_warp(size)
    inner = np.s_[24:-24, 24:-24]  # where nothing comes from outside
    for first, second in itertools.product(known, known):
        once, _ = warps.resample(image, mask, [known[first], known[second]])
        twice, _ = warps.resample(*warps.resample(image, mask, [known[first]]), [known[second]])
        apart = np.abs(once.astype(int) - twice)[inner]
        assert apart.mean() < 1.5, (first, second)
        assert np.percentile(apart, 99) < 10, (first, second)


@pytest.mark.parametrize("size", [(16, 16), (12, 21)])
def test_the_mask_takes_the_pixel_nearest_to_where_the_image_is_sampled(size):
    ids = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    for name, warp in every_warp(size).items():
        x, y = warps.sampling_map([warp], size)
        _, found = warps.resample(ids[..., None], ids, [warp], border="replicate")
        decided = (np.abs(x % 1 - 0.5) > 1e-4) & (np.abs(y % 1 - 0.5) > 1e-4)
        row = np.rint(y).astype(int).clip(0, size[0] - 1)
        column = np.rint(x).astype(int).clip(0, size[1] - 1)
        np.testing.assert_array_equal(found[decided], ids[row, column][decided], err_msg=name)


@pytest.mark.parametrize("interpolation", warps.INTERPOLATIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("border", "numpy"), [("reflect", "reflect"), ("replicate", "edge")])
def test_what_lies_outside_is_filled_alike_in_image_and_mask(
    border, numpy, channels, interpolation
):
    image, mask = pair((9, 11), channels)
    shift = [warps.Affine(((1.0, 0.0, 4.0), (0.0, 1.0, -3.0)))]
    found, found_mask = warps.resample(image, mask, shift, interpolation, border)
    wide = np.pad(image, ((3, 0), (0, 4), (0, 0)), numpy)
    np.testing.assert_array_equal(found, wide[:9, 4:])
    wide_mask = np.pad(mask, ((3, 0), (0, 4)), numpy)
    np.testing.assert_array_equal(found_mask, wide_mask[:9, 4:])


@pytest.mark.parametrize(
    ("border", "fill", "expected"),
    [
        ("constant", (7,), (7, 7, 7)),
        ("constant", (1, 2, 3), (1, 2, 3)),
        ("corner", (9,), (11, 22, 33)),
    ],
)
def test_what_lies_outside_is_background_where_a_color_fills_it(border, fill, expected):
    image, mask = pair((9, 11))
    image[2, 2] = 11, 22, 33
    mask[:] = 3
    shift = [warps.Affine(((1.0, 0.0, 4.0), (0.0, 1.0, 0.0)))]
    found, found_mask = warps.resample(image, mask, shift, "linear", border, fill)
    np.testing.assert_array_equal(found[:, 7:], np.broadcast_to(expected, (9, 4, 3)))
    np.testing.assert_array_equal(found[:, :7], image[:, 4:])
    assert (found_mask[:, 7:] == 0).all()
    assert (found_mask[:, :7] == 3).all()


@pytest.mark.parametrize("reuse", [False, True])
def test_a_large_image_is_warped_some_rows_at_a_time_to_the_same_bytes(monkeypatch, reuse):
    size = (50, 30)
    image, mask = pair(size)
    chains = [[warp] for warp in every_warp(size).values()]
    chains.append(list(every_warp(size).values()))
    whole = [warps.resample(image, mask, chain, reuse=reuse) for chain in chains]
    monkeypatch.setattr(warps, "_BAND", 7 * 30)
    for chain, (expected, expected_mask) in zip(chains, whole, strict=True):
        found, found_mask = warps.resample(image, mask, chain, reuse=reuse)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(found_mask, expected_mask)


def test_a_map_that_is_kept_is_not_taken_for_another_size_or_another_lens():
    for size, amount in itertools.product([(20, 30), (30, 20)], [0.3, 0.5, 0.3]):
        image, mask = pair(size)
        chain = [warps.radial(size, 0.4, amount, CENTERS)]
        kept = warps.resample(image, mask, chain, reuse=True)
        fresh = warps.resample(image, mask, chain, reuse=False)
        np.testing.assert_array_equal(kept[0], fresh[0])
        np.testing.assert_array_equal(kept[1], fresh[1])


def test_an_image_too_long_to_warp_is_refused_but_can_be_mirrored():
    size = (2, warps.LONGEST_SIDE + 1)
    image, mask = pair(size, 1)
    found, _ = warps.resample(image, mask, [warps.hflip(size)])
    np.testing.assert_array_equal(found, image[:, ::-1])
    with pytest.raises(FlexsegError, match=r"2x32767 is too large to warp.*--scale"):
        warps.resample(image, mask, [warps.rotation(size, 5.0)])
