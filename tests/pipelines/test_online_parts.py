"""Every part of online augmentation, alone and together: aligned, repeatable, within its range."""

from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from flexseg_errors import FlexsegError
from pipelines import online_warps
from pipelines.online_augment import Augmentation, augment, mix

SIDE = 24
# A strength for each part; a part that is added without one fails below.
STRENGTHS = {
    "flip_horizontal": True,
    "flip_vertical": True,
    "rotate90": True,
    "rotation": 180.0,
    "scale": 0.5,
    "brightness": 0.3,
    "contrast": 0.5,
    "shear": 0.5,
    "elastic": 0.08,
    "gamma": 1.0,
    "hue": 0.5,
    "saturation": 0.9,
    "blur": 2.0,
    "noise": 0.2,
    "cutout": 0.8,
    "cutmix": 1.0,
}
MOVES = ["flip_horizontal", "flip_vertical", "rotate90", "rotation", "scale", "shear", "elastic"]
LOOKS = ["brightness", "contrast", "gamma", "hue", "saturation", "blur", "noise", "cutout"]
PARTS = {name: Augmentation(**{name: value}) for name, value in STRENGTHS.items()}
PARTS["all"] = Augmentation(**STRENGTHS)
SIZES = [None, (16, 16), (30, 20)]


def picture(seed: int = 0, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """A mask of blocks, the ignore id among them, and an image whose channels are its indicators.

    So the image says how much of each id is blended in a pixel.
    """
    rng = np.random.default_rng(seed)
    ids = np.array([0, 7, 255], np.uint8)
    classes = rng.integers(0, 3, (side // 6, side // 6)).repeat(6, 0).repeat(6, 1)
    return (np.eye(3, dtype=np.uint8) * 255)[classes], ids[classes]


@pytest.fixture(scope="module")
def draw():
    """`draw(image, mask, position, augmentation, size)` by graphs that are traced once each."""
    graphs = {}

    def run(image, mask, position, augmentation, size=None, seed=7):
        key = (augmentation, size, seed, image.shape)
        if key not in graphs:
            graphs[key] = tf.function(
                lambda i, m, p: augment(i, m, seed, p, augmentation, size), jit_compile=False
            )
        parts = graphs[key](tf.constant(image), tf.constant(mask), tf.constant(position, tf.int64))
        return tuple(part.numpy() for part in parts)

    return run


def test_every_part_is_tried_and_is_off_by_default():
    fields = dataclasses.fields(Augmentation)
    assert {f.name for f in fields} == set(STRENGTHS) == {*MOVES, *LOOKS, "cutmix"}
    assert not any(f.default for f in fields)
    assert not Augmentation().geometric
    assert not Augmentation().looks
    assert {n for n in STRENGTHS if PARTS[n].geometric} == set(MOVES)
    assert {n for n in STRENGTHS if PARTS[n].looks} == set(LOOKS)


@pytest.mark.parametrize("name", PARTS)
def test_types_shapes_ids_and_repeatability(name, draw):
    image, mask = picture()
    found = []
    for position in (0, 1, 2, 3, 2**40):
        new_image, new_mask = draw(image, mask, position, PARTS[name], (16, 20))
        assert new_image.dtype == new_mask.dtype == np.uint8
        assert new_image.shape == (16, 20, 3)
        assert new_mask.shape == (16, 20)
        assert set(np.unique(new_mask)) <= {0, 7, 255}, "no id is made up"
        again = draw(image, mask, position, PARTS[name], (16, 20))
        assert (again[0] == new_image).all()
        assert (again[1] == new_mask).all()
        found.append(new_image.tobytes() + new_mask.tobytes())
    assert len(set(found)) == len(found), "every position draws for itself"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*MOVES, "moves"])
def test_image_and_mask_are_moved_alike(name, size, draw):
    wanted = PARTS.get(name) or Augmentation(**{n: STRENGTHS[n] for n in MOVES})
    channel = {0: 0, 7: 1, 255: 2}
    kept = set()
    for position in range(8):
        image, mask = picture(position)
        new_image, new_mask = draw(image, mask, position, wanted, size)
        own = np.vectorize(channel.get)(new_mask)[..., None]
        # Of the four pixels that are blended, the nearest has a quarter of the weight or more.
        assert np.take_along_axis(new_image, own, -1).min() >= 63
        assert np.abs(new_image.sum(-1, dtype=int) - 255).max() <= 2, "nothing but the image"
        kept |= set(np.unique(new_mask))
    assert kept == {0, 7, 255}, "ignored pixels survive"


@pytest.mark.parametrize("name", LOOKS)
def test_looks_leave_the_mask_alone(name, draw):
    rng = np.random.default_rng(0)
    image = rng.integers(40, 200, (SIDE, SIDE, 3), np.uint8)
    mask = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
    changed = 0
    for position in range(4):
        new_image, new_mask = draw(image, mask, position, PARTS[name])
        assert (new_mask == mask).all()
        changed += (new_image != image).any()
    assert changed >= 3, "a box may be too small to be seen"


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_colour_alike(channels, draw):
    image, mask = picture()
    strengths = {**STRENGTHS, "hue": 0.0, "saturation": 0.0}
    new_image, new_mask = draw(image[..., :channels], mask, 5, Augmentation(**strengths), (12, 18))
    assert new_image.shape == (12, 18, channels)
    assert new_mask.shape == (12, 18)


def test_what_needs_colours_or_a_partner_says_so():
    for name in ("hue", "saturation"):
        with pytest.raises(FlexsegError, match=f"augment.{name}=.* 3 channels; these have 1"):
            PARTS[name].check(1, 8)
        PARTS[name].check(3, 1)
    with pytest.raises(FlexsegError, match=r"augment.cutmix=1\.0 needs two examples"):
        PARTS["cutmix"].check(3, 1)


# ---- Ranges --------------------------------------------------------------------------------------


def test_shear_moves_rows_sideways_by_a_slope_within_its_range(draw):
    y, x = np.indices((60, 60))
    image = np.stack([4 * x, 4 * y, x], -1).astype(np.uint8)
    slopes = []
    for position in range(40):
        new = draw(image, x.astype(np.uint8), position, Augmentation(shear=0.3))[0] / 4
        down, across = new[40, 30] - new[20, 30], new[30, 40] - new[30, 20]
        assert np.abs(across[:2] - [20, 0]).max() < 0.6
        assert abs(down[1] - 20) < 0.6
        slopes.append(down[0] / 20)
    assert np.abs(slopes).max() <= 0.32
    assert min(slopes) < -0.15 < 0.15 < max(slopes)


def test_elastic_moves_within_its_range_smoothly_and_folds_nowhere(draw):
    y, x = np.indices((64, 64))
    image = np.stack([3 * x, 3 * y, 0 * x], -1).astype(np.uint8)
    largest = 0.0
    for position in range(10):
        new = draw(image, x.astype(np.uint8), position, Augmentation(elastic=0.06))[0] / 3
        inner = np.s_[8:-8, 8:-8]
        dx, dy = (new[..., 0] - x)[inner], (new[..., 1] - y)[inner]
        largest = max(largest, np.abs(dx).max(), np.abs(dy).max())
        stretch_x = np.diff(new[..., 0][inner], axis=1)
        stretch_y = np.diff(new[..., 1][inner], axis=0)
        assert stretch_x.min() > -0.34, "but for rounding, the order of pixels stays"
        assert stretch_y.min() > -0.34
        assert dx.std() > 0.2
        assert np.abs(dx - dx.mean()).max() > 0.5, "no mere shift"
    assert 1.0 < largest <= 0.06 * 64 + 0.7


def test_an_elastic_sheet_of_no_height_is_the_affine_map():
    """Both ways of resampling agree, reflection included."""
    rng = np.random.default_rng(0)
    image = tf.constant(rng.integers(0, 256, (20, 26, 3), np.uint8))
    mask = tf.constant(rng.integers(0, 9, (20, 26), np.uint8))
    for angle in (0.0, 0.5, 2.0):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn *= 1.317  # no pixel halfway between two
        window = online_warps.Window(
            tf.constant(turn, tf.float32), tf.constant([9.25, 13.4]), tf.constant([30, 24]),
            None, tf.constant(0.0),
        )  # fmt: skip
        flat = dataclasses.replace(window, sheet=tf.zeros([2, 8, 8]))
        one, other = (online_warps.resample(image, mask, w) for w in (window, flat))
        assert np.abs(one[0].numpy().astype(int) - other[0].numpy()).max() <= 1
        assert (one[1].numpy() == other[1].numpy()).mean() > 0.99


def test_what_is_left_away_around_a_small_window_is_not_missed(draw):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (90, 70, 3), np.uint8)
    mask = rng.integers(0, 9, (90, 70), np.uint8)
    shape, middle = tf.constant([14, 18]), [6.5, 8.5]
    for angle, y, x in ((0.3, 45.0, 30.0), (2.5, 2.0, 68.0), (4.0, 88.0, -3.0), (0.0, -8.0, 35.0)):
        cos, sin = 1.2 * np.cos(angle), 1.2 * np.sin(angle)
        window = online_warps.Window(
            tf.constant([[cos, -sin], [sin, cos]], tf.float32), tf.constant([y, x]), shape,
            None, tf.constant(0.0),
        )  # fmt: skip
        found = online_warps.resample(tf.constant(image), tf.constant(mask), window)
        dy, dx = np.indices((14, 18)) - np.array(middle)[:, None, None]
        places = [sin * dx + cos * dy + y, cos * dx - sin * dy + x]
        for c in range(3):  # scipy calls this reflection "reflect" too
            expected = ndimage.map_coordinates(
                image[..., c].astype(float), places, order=1, mode="reflect"
            )
            assert np.abs(found[0].numpy()[..., c] - expected).max() <= 1.0


def test_gamma_is_a_power_within_its_range(draw):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    exponents = []
    for position in range(30):
        new = draw(image, image[..., 0], position, Augmentation(gamma=0.5))[0].ravel() / 255
        exponent = np.log(new[128]) / np.log(128 / 255)
        assert np.abs(new - (np.arange(256) / 255) ** exponent).max() < 0.02
        exponents.append(exponent)
    assert 1 / 1.5 - 0.02 <= min(exponents) < 0.8
    assert 1.2 < max(exponents) <= 1.52


def test_hue_turns_and_saturation_stretches_and_grays_stay(draw):
    gray = np.repeat(np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8), 3, -1)
    wanted = Augmentation(hue=0.5, saturation=0.9)
    for position in range(5):
        new = draw(gray, gray[..., 0], position, wanted)[0]
        assert np.abs(new.astype(int) - gray).max() <= 1
    color = np.broadcast_to(np.array([140, 110, 100], np.uint8), (8, 8, 3)).copy()
    hue, saturation, _ = colorsys.rgb_to_hsv(140, 110, 100)
    turns, factors = [], []
    for position in range(40):
        new = draw(color, color[..., 0], position, Augmentation(hue=0.1))[0][0, 0]
        turn = colorsys.rgb_to_hsv(*new.tolist())[0] - hue
        turns.append((turn + 0.5) % 1 - 0.5)
        new = draw(color, color[..., 0], position, Augmentation(saturation=0.5))[0][0, 0]
        factors.append(np.ptp(new.astype(int)) / 40)
        assert abs(new @ [0.299, 0.587, 0.114] - color[0, 0] @ [0.299, 0.587, 0.114]) < 1
    assert np.abs(turns).max() < 0.15
    assert min(turns) < -0.04 < 0.04 < max(turns)
    assert 0.45 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.55


def test_blur_is_scipys_gaussian(draw):
    image = np.random.default_rng(0).integers(0, 256, (20, 22, 3), np.uint8)
    sigmas = []
    for position in range(12):
        new = draw(image, image[..., 0], position, Augmentation(blur=2.0))[0].astype(float)
        errors = {
            sigma: np.abs(
                ndimage.gaussian_filter(
                    image.astype(float), (sigma, sigma, 0), mode="reflect", radius=6
                )
                - new
            ).max()
            for sigma in np.arange(0.05, 2.1, 0.01)
        }
        best = min(errors, key=errors.get)
        assert errors[best] < 3
        sigmas.append(best)
    assert min(sigmas) < 0.8 < 1.2 < max(sigmas) <= 2.01


def test_noise_is_normal_and_of_a_deviation_within_its_range(draw):
    image = np.full((40, 40, 3), 128, np.uint8)
    deviations = []
    for position in range(30):
        new = draw(image, image[..., 0], position, Augmentation(noise=0.1))[0].astype(float) - 128
        deviations.append(new.std())
        assert abs(new.mean()) < 1.5
        assert abs(np.corrcoef(new[..., 0].ravel(), new[..., 1].ravel())[0, 1]) < 0.1
    assert min(deviations) < 8
    assert 17 < max(deviations) < 27


def test_cutout_fills_one_box_with_the_mean(draw):
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    image[..., 0] |= 1
    heights = []
    for position in range(30):
        new = draw(image, image[..., 0], position, Augmentation(cutout=0.5))[0]
        mean = np.rint(image.mean((0, 1)))
        changed = (new != image).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        if rows.size:
            box = new[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert np.abs(box - mean).max() <= 1
            heights.append(len(rows))
            assert len(columns) <= 21
    assert 10 < max(heights) <= 17


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_cutmix_takes_a_box_with_its_mask_from_the_partner(share):
    count, side = 40, 12
    numbers = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None, None], (count, side, side, 3)).copy()
    masks = images[..., 0] + np.uint8(100)
    partners = np.roll(images, -1, 0), np.roll(masks, -1, 0)

    def run(positions):
        return [
            t.numpy()
            for t in mix(
                tf.constant(images), tf.constant(masks),
                (tf.constant(partners[0]), tf.constant(partners[1])),
                3, tf.constant(positions, tf.int64), Augmentation(cutmix=share),
            )
        ]  # fmt: skip

    new_images, new_masks = run(np.arange(count))
    assert (new_images[..., 0] + np.uint8(100) == new_masks).all(), "image and mask alike"
    foreign = new_images[..., 0] != numbers[:, None, None]
    assert (new_masks[foreign] == partners[1][foreign]).all()
    mixed = foreign.any((1, 2)).sum()
    assert mixed == 0 if share == 0 else share * 30 * 0.5 < mixed <= count * min(1, share * 1.5)
    for one in foreign:  # one box
        assert (one == (one.any(1)[:, None] & one.any(0)[None])).all()
    again = run(np.arange(count)[::-1].copy())[0]
    if share == 1.0:
        assert (again[..., 0] != numbers[:, None, None])[::-1].any()
        assert ((again[..., 0] != numbers[:, None, None])[::-1] == foreign).all(), "by position"
