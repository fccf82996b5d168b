"""Pictures inside a page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from export.reports import pictures
from pipelines import label_map as label_maps

LABEL_MAP = label_maps.load("{(9,9,9):0,(255,0,0):1,(255,255,255):2,(0,0,0):3,(0,0,250):4}")


def decoded(picture):
    head, data = picture.uri.split(",")
    form = head.removeprefix("data:image/").removesuffix(";base64")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format.lower() == form
    assert image.size == (picture.width, picture.height)
    return image


@pytest.fixture
def ids():
    ids = np.random.default_rng(3).integers(0, 5, (20, 30), np.uint8)
    ids[0, 0] = 255
    return ids


def test_a_layer_shows_classes_and_leaves_the_background_clear(ids):
    pixels = np.asarray(decoded(pictures.layer(ids, LABEL_MAP)).convert("RGBA"))
    for k, color in enumerate(LABEL_MAP.colors):
        assert (pixels[ids == k, :3] == color).all()
        assert (pixels[ids == k, 3] == (255 if k else 0)).all()
    assert 0 < pixels[0, 0, 3] < 255


def test_a_mask_shows_every_class(ids):
    pixels = np.asarray(decoded(pictures.mask(ids, LABEL_MAP)).convert("RGB"))
    np.testing.assert_array_equal(pixels, label_maps.colorize(ids, LABEL_MAP))


def test_a_drawing_keeps_its_pixels(ids):
    drawn = label_maps.colorize(ids, LABEL_MAP)
    np.testing.assert_array_equal(np.asarray(decoded(pictures.drawing(drawn))), drawn)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photo_looks_like_the_image(channels):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.repeat(np.add.outer(ramp // 2, ramp // 2)[..., None], channels, -1)
    shown = np.asarray(decoded(pictures.photo(image))).reshape(64, 64, -1)
    assert shown.shape == image.shape
    assert np.abs(shown.astype(int) - image).mean() < 2


@pytest.mark.parametrize(
    ("size", "shown"), [((100, 400), (64, 256)), ((1, 999), (1, 256)), ((40, 30), (40, 30))]
)
def test_large_pictures_are_reduced_and_small_ones_stay(size, shown):
    image, ids = np.zeros((*size, 3), np.uint8), np.ones(size, np.uint8)
    for picture in (pictures.photo(image), pictures.layer(ids, LABEL_MAP), pictures.drawing(image)):
        assert (picture.height, picture.width) == shown


def test_over_a_gray_image_every_class_can_be_seen():
    vivid = pictures.vivid(LABEL_MAP)
    assert vivid.names == LABEL_MAP.names
    kept = {0, 1, 4}
    for k, (old, new) in enumerate(zip(LABEL_MAP.colors, vivid.colors, strict=True)):
        assert (tuple(old) == tuple(new)) == (k in kept)
    foreground = vivid.colors[1:].astype(int)
    assert (foreground.max(1) - foreground.min(1) >= 32).all()
    assert len({tuple(c) for c in foreground}) == len(foreground)
