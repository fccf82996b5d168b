"""Image and mask share one geometric draw, a mask is never interpolated, and all is repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from pipelines import label_map as label_maps
from pipelines.online_augment import Augmentation, augment

# Pure colours: how much of a class a blended pixel holds is its channel.
MAP = label_maps.load("{(255,0,0):0,(0,255,0):1,(0,0,255):2}")
GEOMETRIC = {
    "flip_horizontal": Augmentation(flip_horizontal=True),
    "flip_vertical": Augmentation(flip_vertical=True),
    "rotate90": Augmentation(rotate90=True),
    "rotation": Augmentation(rotation=180.0),
    "scale": Augmentation(scale=0.5),
    "all": Augmentation(True, True, True, 30.0, 0.3),
}
PHOTOMETRIC = {
    "brightness": Augmentation(brightness=0.2),
    "contrast": Augmentation(contrast=0.4),
    "both": Augmentation(brightness=0.3, contrast=0.5),
}
SIZES = [None, (8, 8), (24, 24), (9, 16), (40, 30)]


def painted(height: int = 24, width: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image painted from its mask of blocks."""
    blocks = np.random.default_rng(seed).integers(0, 3, (height // 3 + 1, width // 4 + 1), np.uint8)
    mask = blocks.repeat(3, 0).repeat(4, 1)[:height, :width]
    return label_maps.colorize(mask, MAP), mask


def drawn(image, mask, position, augmentation, size=None, seed=7):
    """One draw, as NumPy."""
    parts = augment(
        tf.constant(image), tf.constant(mask), seed, tf.constant(position, tf.int64),
        augmentation, size,
    )  # fmt: skip
    assert all(part.dtype == tf.uint8 for part in parts)
    return tuple(part.numpy() for part in parts)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", GEOMETRIC)
def test_the_warped_image_is_that_of_the_warped_mask_up_to_blending(name, size):
    for position in range(12):
        image, mask = painted(seed=position)
        new_image, new_mask = drawn(image, mask, position, GEOMETRIC[name], size)
        assert new_image.shape[:2] == new_mask.shape == (size or mask.shape)
        # Of the four pixels that are blended, the nearest has a quarter of the weight or more.
        own = np.take_along_axis(new_image, new_mask[..., None].astype(int), -1)[..., 0]
        assert own.min() >= 63
        pure = new_image.max(-1) == 255
        assert (new_image[pure] == label_maps.colorize(new_mask, MAP)[pure]).all()
        assert np.abs(new_image.sum(-1, dtype=int) - 255).max() <= 2, "nothing but the image"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", GEOMETRIC)
def test_no_class_appears_that_was_not_there(name, size):
    mask = np.where(painted()[1] == 1, 200, 7).astype(np.uint8)
    image = np.zeros((24, 24, 1), np.uint8)
    for position in range(8):
        assert set(np.unique(drawn(image, mask, position, GEOMETRIC[name], size)[1])) <= {7, 200}


@pytest.mark.parametrize("shape", [(6, 9), (7, 7), (8, 8)])
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("flip_horizontal", [lambda p: p, np.fliplr]),
        ("flip_vertical", [lambda p: p, np.flipud]),
        ("rotate90", [lambda p, k=k: np.rot90(p, k) for k in range(4)]),
    ],
)
def test_flips_and_quarter_turns_copy_pixels_exactly(name, allowed, shape):
    if name == "rotate90":
        shape = (shape[1], shape[1])  # only a square stays within its size
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    mask = rng.integers(0, 256, shape, np.uint8)
    seen = set()
    for position in range(30):
        new_image, new_mask = drawn(image, mask, position, GEOMETRIC[name])
        (which,) = [i for i, f in enumerate(allowed) if np.array_equal(f(mask), new_mask)]
        assert np.array_equal(allowed[which](image), new_image), "as the mask"
        seen.add(which)
    assert len(seen) == len(allowed), "each occurs"


def test_without_augmentation_nothing_changes():
    image, mask = painted()
    for size in (None, mask.shape):
        new_image, new_mask = drawn(image, mask, 0, Augmentation(), size)
        assert (new_image == image).all()
        assert (new_mask == mask).all()


@pytest.mark.parametrize("size", [(5, 5), (4, 8), (1, 1), (11, 13), (6, 3)])
def test_a_crop_is_a_window_of_the_input_and_lies_anywhere(size):
    y, x = np.indices((11, 13), np.uint8)
    image = np.stack([y, x, y + x], -1)
    corners = set()
    for position in range(60):
        crop, mask = drawn(image, 13 * y + x, position, Augmentation(), size)
        top, left = crop[0, 0, :2]
        window = np.s_[top : top + size[0], left : left + size[1]]
        assert (crop == image[window]).all()
        assert (mask == (13 * y + x)[window]).all()
        corners.add((top, left))
    for axis in (0, 1):
        spare = (11, 13)[axis] - size[axis]
        found = {corner[axis] for corner in corners}
        assert min(found) == 0
        assert max(found) == spare


@pytest.mark.parametrize("size", [(12, 16), (15, 13), (15, 14), (12, 21), (30, 40)])
def test_what_a_crop_has_more_than_the_input_is_its_reflection_pixel_by_pixel(size):
    rng = np.random.default_rng(0)
    image, mask = (
        rng.integers(0, 256, (12, 13, 3), np.uint8),
        rng.integers(0, 9, (12, 13), np.uint8),
    )
    crop, new_mask = drawn(image, mask, 3, Augmentation(), size)
    missing = [new - old for new, old in zip(size, mask.shape, strict=True)]
    found = 0
    for top in {missing[0] // 2, -(-missing[0] // 2)}:
        for left in {missing[1] // 2, -(-missing[1] // 2)}:
            around = ((top, missing[0] - top), (left, missing[1] - left))
            expected = np.pad(image, (*around, (0, 0)), "symmetric")
            if np.array_equal(expected, crop):
                assert np.array_equal(np.pad(mask, around, "symmetric"), new_mask)
                found += 1
    assert found == 1, "in the middle"


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_brightness_and_contrast_leave_the_mask_alone(name):
    image = np.random.default_rng(0).integers(90, 160, (16, 16, 3), np.uint8)
    mask = np.random.default_rng(1).integers(0, 256, (16, 16), np.uint8)
    wanted = PHOTOMETRIC[name]
    stretches, shifts = [], []
    for position in range(40):
        new_image, new_mask = drawn(image, mask, position, wanted)
        assert (new_mask == mask).all()
        # One straight line takes every pixel to its new value.
        inside = (new_image > 0) & (new_image < 255)
        slope, shift = np.polyfit(image[inside] - image.mean(), new_image[inside], 1)
        line = np.clip((image - image.mean()) * slope + shift, 0, 255)
        assert np.abs(line - new_image).max() <= 1
        stretches.append(slope - 1)
        shifts.append((shift - image.mean()) / 255)
    for found, most in ((stretches, wanted.contrast), (shifts, wanted.brightness)):
        assert np.abs(found).max() <= most + 0.01
        assert np.max(found) > most / 2 - 0.01
        assert np.min(found) < -most / 2 + 0.01


def test_values_are_clipped_and_never_wrap():
    image = np.array([[[0], [10], [245], [255]]], np.uint8)
    mask = np.zeros((1, 4), np.uint8)
    for position in range(20):
        new = drawn(image, mask, position, Augmentation(brightness=0.5, contrast=0.9))[0].ravel()
        assert (np.diff(new.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("augmentation", "angle", "zoom", "mirrors"),
    [
        (Augmentation(rotation=25.0), 25, 1, {False}),
        (Augmentation(scale=0.25), 0, 1.25, {False}),
        (Augmentation(rotation=10.0, scale=0.1), 10, 1.1, {False}),
        (Augmentation(flip_horizontal=True, rotation=10.0), 10, 1, {False, True}),
    ],
)
def test_draws_fill_their_ranges_and_stay_within(augmentation, angle, zoom, mirrors):
    # Two ramps: from their slopes the matrix can be read off.
    y, x = np.indices((60, 60))
    image = np.stack([4 * x, 4 * y, y], -1).astype(np.uint8)
    angles, zooms, seen = [], [], set()
    for position in range(60):
        new = drawn(image, x.astype(np.uint8), position, augmentation)[0].astype(float) / 4
        along_x = (new[30, 40, :2] - new[30, 20, :2]) / 20
        along_y = (new[40, 30, :2] - new[20, 30, :2]) / 20
        matrix = np.stack([along_x, along_y], 1)
        mirrored = np.linalg.det(matrix) < 0
        seen.add(bool(mirrored))
        turn = along_x * (-1 if mirrored else 1)
        angles.append(np.degrees(np.arctan2(turn[1], turn[0])))
        zooms.append(np.sqrt(abs(np.linalg.det(matrix))))
        assert np.allclose(matrix.T @ matrix, zooms[-1] ** 2 * np.eye(2), atol=0.05), "no shear"
    assert seen == mirrors
    assert np.max(np.abs(angles)) <= angle + 1
    assert 1 / zoom - 0.02 <= np.min(zooms) <= np.max(zooms) <= zoom + 0.02
    if angle:
        assert min(angles) < -angle / 2
        assert max(angles) > angle / 2
    if zoom > 1:
        assert min(zooms) < 1 / (1 + (zoom - 1) / 2)
        assert max(zooms) > 1 + (zoom - 1) / 2


def test_the_same_seed_and_position_draw_the_same_and_others_do_not():
    everything = Augmentation(True, True, True, 45.0, 0.3, 0.3, 0.3)
    image, mask = painted()
    results = {
        (seed, position): drawn(image, mask, position, everything, (16, 16), seed)
        for seed in (0, 1)
        for position in (0, 1, 2, 2**40)
    }
    for (seed, position), (new_image, new_mask) in results.items():
        again = drawn(image, mask, position, everything, (16, 16), seed)
        assert (again[0] == new_image).all()
        assert (again[1] == new_mask).all()
    assert len({new_image.tobytes() for new_image, _ in results.values()}) == len(results)


def test_a_graph_draws_what_eager_execution_draws():
    everything = Augmentation(True, True, True, 45.0, 0.3, 0.3, 0.3)
    image, mask = painted()
    graph = tf.function(lambda i, m, p: augment(i, m, 7, p, everything, (16, 16)))
    for position in range(4):
        ours = graph(image, mask, tf.constant(position, tf.int64))
        for one, other in zip(
            ours, drawn(image, mask, position, everything, (16, 16)), strict=True
        ):
            assert np.abs(one.numpy().astype(int) - other).max() <= 1
