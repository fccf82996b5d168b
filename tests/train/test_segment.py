"""Whole images through a network: prepared as the dataset was, stitched, and brought back."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from pipelines.preparation import Preparation, resize_image
from train import segment
from train.experiment import InferenceConfig
from train.segment import Segmenter

TILE = (32, 24)
SIZES = [(1, 1), (9, 40), (32, 24), (33, 25), (31, 61), (150, 117)]
PREPARATIONS = [
    Preparation(),
    Preparation(scale=0.5),
    Preparation(scale=1.7),
    Preparation(image_size=(32, 24)),
    Preparation(image_size=(50, 70)),
]


def resizer(channels):
    """`segment.resize` as it runs in the exported graph: sizes unknown until an image arrives."""
    image = tf.TensorSpec([None, None, channels], tf.float32)
    return tf.function(segment.resize, input_signature=[image, tf.TensorSpec([2], tf.int32)])


RESIZERS = {channels: resizer(channels) for channels in (1, 3)}


def gray_levels(found):
    return np.round(np.clip(found, 0, 255)).astype(int)


@settings(max_examples=200)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    target=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    channels=st.sampled_from([1, 3]),
)
def test_an_image_is_resized_as_the_dataset_was_to_within_one_gray_level(size, target, channels):
    rng = np.random.default_rng(sum(size) * 71 + sum(target))
    image = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
    found = RESIZERS[channels](image.astype(np.float32), target).numpy()
    expected = resize_image(image, target)
    assert found.shape == expected.shape
    assert abs(gray_levels(found) - expected).max() <= 1
    # OpenCV rounds as it goes on uint8; on float32 it does not, and then nothing is left over.
    exact = resize_image(image.astype(np.float32), target)
    np.testing.assert_allclose(found, exact, atol=0.02)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((600, 800), (300, 400)),
        ((301, 417), (97, 113)),
        ((200, 80), (77, 160)),
        ((57, 91), (470, 710)),
        ((64, 64), (64, 64)),
    ],
    ids=["half", "odd shrink", "mixed", "enlarge", "same"],
)
def test_large_images_are_resized_alike_too(size, target):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.float32)
    found = RESIZERS[3](image, target).numpy()
    np.testing.assert_allclose(found, resize_image(image, target), atol=0.05)


def identity(channels):
    """A network whose probabilities are the image's own values.

    One channel v is taken for the probability v / 255 of class 1, by a single sigmoid logit; three
    that add up to 255 for those of three classes.
    """
    images = keras.Input((None, None, channels), dtype="float32")
    share = images / 255.0
    logits = keras.ops.log(share)
    if channels == 1:
        logits = logits - keras.ops.log(1.0 - share)
    return keras.Model(images, logits)


MODELS = {channels: identity(channels) for channels in (1, 3)}


def shares_image(size, channels, smooth=False):
    """An image whose channels, if there are three, add up to 255 at every pixel."""
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    if smooth:
        y, x = np.mgrid[: size[0], : size[1]]
        first = 100 + 60 * np.sin(x / 9) * np.cos(y / 11)
    else:
        first = rng.integers(0, 256, size)
    first = first.astype(np.uint8)
    if channels == 1:
        return first[..., None]
    second = (rng.random(size) * (256 - first.astype(int))).astype(np.uint8)
    return np.stack([first, second, 255 - first - second], -1)


def shares_of(image):
    p = image.astype(np.float64) / 255
    return np.concatenate([1 - p, p], -1) if image.shape[-1] == 1 else p


def segmenter(channels, preparation=None, **inference):
    inference = InferenceConfig(**inference)
    return Segmenter(MODELS[channels], TILE, preparation or Preparation(), inference)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("weights", "overlap"),
    [("gaussian", 0.25), ("gaussian", 0.0), ("uniform", 0.5), ("margin", 0.5), ("gaussian", 1)],
)
def test_the_identity_gives_the_image_back_at_every_size(channels, weights, overlap):
    segment_image = segmenter(channels, weights=weights, overlap=overlap, batch_size=3)
    for size in SIZES:
        image = shares_image(size, channels)
        for function in (segment_image.probabilities, segment_image.prepared_probabilities):
            found = function(image).numpy()
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, shares_of(image), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preparation", PREPARATIONS, ids=str)
def test_probabilities_come_back_at_the_size_of_the_original(channels, preparation):
    segment_image = segmenter(channels, preparation)
    for size in SIZES:
        found = segment_image.probabilities(shares_image(size, channels)).numpy()
        assert found.shape == (*size, max(2, channels))
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-4)


@pytest.mark.parametrize("preparation", PREPARATIONS, ids=str)
@pytest.mark.parametrize("size", [(64, 48), (75, 61), (20, 90)])
def test_the_preparation_is_done_to_the_image_and_undone_on_the_probabilities(preparation, size):
    """By the dataset's own code, on the CPU and without a graph: resize, look up, resize back."""
    image = shares_image(size, 1, smooth=True)
    found = segmenter(1, preparation).probabilities(image).numpy()
    there = shares_of(preparation.image(image)).astype(np.float32)
    np.testing.assert_allclose(found, resize_image(there, size), atol=1.5 / 255)


def watched(channels=1):
    """A network, and a list that gets every batch of tiles that it is given."""
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, images):
            tf.py_function(lambda x: seen.append(x.numpy()), [images], [])
            return images

    images = keras.Input((None, None, channels), dtype="float32")
    return keras.Model(images, Spy()(images)), seen


def test_the_network_sees_whole_gray_values_of_the_prepared_size():
    """It learnt on uint8 records; a resized image is rounded before it gets there."""
    model, seen = watched()
    preparation = Preparation(image_size=TILE)
    image = shares_image((75, 61), 1)
    Segmenter(model, TILE, preparation, InferenceConfig()).probabilities(image)
    assert len(seen) == 1
    difference = seen[0][0] - preparation.image(image)
    assert abs(difference).max() <= 1
    assert abs(difference.mean()) < 0.05, "rounded, not cut off"
    np.testing.assert_array_equal(seen[0], np.round(seen[0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_sees_what_the_dataset_showed_it_after_preprocessing(channels):
    model, seen = watched(channels)
    preparation = Preparation(preprocessing="gamma=1.5,sharpen=1,invert,contrast=1.5:40")
    image = np.random.default_rng(0).integers(0, 256, (*TILE, channels), dtype=np.uint8)
    Segmenter(model, TILE, preparation, InferenceConfig()).probabilities(image)
    np.testing.assert_array_equal(seen[0][0], preparation.image(image))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("blend", ["probabilities", "logits"])
@pytest.mark.parametrize(
    "preparation", [*PREPARATIONS, Preparation(preprocessing="sharpen=1,gamma=1.5")], ids=str
)
def test_a_batch_is_segmented_as_each_of_its_images(preparation, blend, channels):
    segment_image = segmenter(channels, preparation, blend=blend, batch_size=3)
    for size in [(9, 40), (33, 50)]:
        images = np.stack([shares_image(size, channels), shares_image(size, channels, True)] * 2)
        expected = np.stack([segment_image.probabilities(image) for image in images])
        found = segment_image.batch_probabilities(images).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        top = np.sort(expected, -1)
        sure = top[..., -1] - top[..., -2] > 1e-5
        ids = segment_image.batch_class_ids(images).numpy()
        assert ids.dtype == np.uint8
        np.testing.assert_array_equal(ids[sure], expected.argmax(-1)[sure])
        assert sure.mean() > 0.9
        prepared = np.stack([segment_image.prepared_probabilities(image) for image in images])
        ids = segment_image.prepared_class_ids(images).numpy()
        top = np.sort(prepared, -1)
        sure = top[..., -1] - top[..., -2] > 1e-5
        np.testing.assert_array_equal(ids[sure], prepared.argmax(-1)[sure])


@pytest.mark.parametrize(("overlap", "tiles"), [(0.0, 2 * 3), (0.5, 3 * 5)])
def test_the_window_slides_as_the_experiment_says(overlap, tiles):
    model, seen = watched()
    inference = InferenceConfig(overlap=overlap, batch_size=2)
    image = shares_image((64, 72), 1)
    Segmenter(model, TILE, Preparation(), inference).probabilities(image)
    assert sum(len(batch) for batch in seen) == tiles
    assert max(len(batch) for batch in seen) == 2


def test_tiles_are_blended_as_the_experiment_says():
    """A network that says where in its tile a pixel lies tells the weights apart."""
    images = keras.Input((*TILE, 1), dtype="float32")
    column = tf.reshape(tf.range(TILE[1], dtype=tf.float32), [1, 1, -1, 1])
    model = keras.Model(images, images * 0.0 + column)
    found = [
        Segmenter(model, TILE, Preparation(), InferenceConfig(overlap=0.5, weights=weights))
        .probabilities(shares_image((32, 36), 1))
        .numpy()
        for weights in ("gaussian", "uniform")
    ]
    p = 1 / (1 + np.exp(-np.arange(24.0)))
    np.testing.assert_allclose(found[1][0, 12:24, 1], (p[12:] + p[:12]) / 2, rtol=1e-5)
    assert abs(found[0] - found[1]).max() > 0.1


@pytest.mark.parametrize("scale", [0.01, 0.5, 1 / 3, 0.9, 1.5, 2.0, 3.7])
def test_the_prepared_size_is_the_one_that_the_dataset_has(scale):
    preparation = Preparation(scale=scale)
    segment_image = segmenter(1, preparation)
    for size in [(1, 1), (2, 3), (31, 33), (47, 50), (99, 101), (3025, 3500)]:
        found = segment_image._prepared_size(tf.constant(size))
        assert tuple(found.numpy()) == preparation.size_of(*size)


def test_what_is_given_beside_the_experiment_replaces_it_and_nothing_else():
    inference = InferenceConfig(overlap=0.5, weights="uniform", batch_size=2)
    plain = Segmenter(MODELS[1], TILE, Preparation(), inference)
    assert plain.inference == inference
    other = Segmenter(
        MODELS[1], TILE, Preparation(), inference, overlap=3, weights="margin", blend="logits"
    )
    assert other.inference == InferenceConfig(3, "margin", 2, "logits")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"overlap": 24}, "overlap is 24 pixels, but a tile has 24"),
        ({"overlap": 2.5}, "whole number of pixels"),
        ({"overlap": -1}, "overlap must be at least 0"),
        ({"weights": "triangle"}, 'weights "triangle" is unknown'),
        ({"blend": "masks"}, 'blend "masks" is unknown'),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_windows_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(FlexsegError, match=message):
        Segmenter(MODELS[1], TILE, Preparation(), InferenceConfig(), **wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_may_be_blended_in_place_of_probabilities(channels):
    """At the middle of what two tiles share, with equal weights: softmax of a mean of logits."""
    images = keras.Input((*TILE, channels), dtype="float32")
    column = tf.reshape(tf.range(TILE[1], dtype=tf.float32), [1, 1, -1, 1])
    factor = tf.constant([1.0, -2.0, 0.5][:channels])
    model = keras.Model(images, images * 0.0 + (column - 9.0) * factor)
    blended = {}
    for blend in ("probabilities", "logits"):
        inference = InferenceConfig(overlap=0.5, weights="uniform", blend=blend)
        segment_image = Segmenter(model, TILE, Preparation(), inference)
        blended[blend] = segment_image.probabilities(shares_image((32, 36), channels)).numpy()
    tile = (np.arange(24)[:, None] - 9.0) * np.array([1, -2, 0.5][:channels])
    logits = (tile[12:] + tile[:12]) / 2  # columns 12 to 23 of the image, seen by both tiles

    def softmax(x):
        x = np.concatenate([0 * x, x], -1) if channels == 1 else x
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    found = {name: values[0, 12:24] for name, values in blended.items()}
    np.testing.assert_allclose(found["logits"], softmax(logits), atol=1e-6)
    expected = (softmax(tile[12:]) + softmax(tile[:12])) / 2
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
    assert abs(found["logits"] - found["probabilities"]).max() > 0.05


def test_tiles_alone_give_the_networks_probabilities():
    tiles = np.stack([shares_image(TILE, 3), shares_image(TILE, 3, smooth=True)])
    for blend in ("probabilities", "logits"):
        segment_image = segmenter(3, Preparation(scale=0.5), blend=blend)
        found = segment_image.tile_probabilities(tiles).numpy()
        np.testing.assert_allclose(found, tiles / 255, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_logits_become_the_probabilities_of_their_head(outputs):
    logits = np.random.default_rng(0).normal(0, 3, (4, 5, outputs)).astype(np.float32)
    two = np.concatenate([np.zeros_like(logits), logits], -1) if outputs == 1 else logits
    expected = np.exp(two) / np.exp(two).sum(-1, keepdims=True)
    found = segment.probabilities(tf.constant(logits))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    low = segment.probabilities(tf.cast(logits, tf.bfloat16))
    assert low.dtype == tf.float32
