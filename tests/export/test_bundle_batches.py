"""A batch gets the masks that each of its images gets alone, together in the network or not."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from export.bundles import signatures as bundle_signatures
from pipelines import records

SIZE = (41, 52)
SURE = 1e-5  # difference of probabilities from which rounding does not decide the class


@pytest.fixture(scope="module", params=["colour", "halved"])
def bundle(request, untrained_runs):
    """A run and its signatures, traced and not written: writing is not the matter here."""
    run = untrained_runs[request.param]
    segmenter = run.segmenter()
    return run, segmenter, bundle_signatures.Bundle(segmenter)


@pytest.fixture
def pictures(draw_image):
    return np.stack([draw_image(SIZE, 3, seed) for seed in range(5)])


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def decoded(masks):
    return [cv2.imdecode(np.frombuffer(m, np.uint8), cv2.IMREAD_UNCHANGED) for m in masks.numpy()]


def assert_ids(found, probabilities):
    top = np.sort(probabilities, -1)
    sure = top[..., -1] - top[..., -2] > SURE
    np.testing.assert_array_equal(found[sure], probabilities.argmax(-1)[sure])
    assert sure.mean() > 0.99
    assert len(np.unique(found)) > 1


def test_images_of_a_batch_are_answered_as_each_alone(bundle, pictures):
    _, segmenter, module = bundle
    found = module.endpoints["serving_default"](images=tf.constant(pictures))
    for image, probabilities, ids in zip(
        pictures, found["probabilities"].numpy(), found["class_ids"].numpy(), strict=True
    ):
        expected = segmenter.probabilities(image).numpy()
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        np.testing.assert_array_equal(ids, probabilities.argmax(-1))


@pytest.mark.parametrize("limit", [0, 1 << 24], ids=["one by one", "together"])
@pytest.mark.parametrize("kind", ["alike", "of two sizes"])
def test_files_are_answered_as_each_alone(bundle, pictures, kind, limit, monkeypatch):
    _, segmenter, module = bundle
    if limit == 0:
        monkeypatch.setattr(bundle_signatures, "_TOGETHER_PIXELS", limit)
        module = bundle_signatures.Bundle(segmenter)
    images = list(pictures)
    if kind != "alike":
        images[2] = images[2][:30, :17]
    files = tf.constant([png(image) for image in images])
    for name, takes in (("encoded", "encoded"), ("rest", "image_bytes")):
        answer = module.endpoints[name](**{takes: files})
        for image, ids in zip(images, decoded(next(iter(answer.values()))), strict=True):
            assert_ids(ids, segmenter.probabilities(image).numpy())


@pytest.mark.parametrize("prepared", ["none", "all", "some"])
def test_records_of_a_batch_are_answered_by_what_each_says_of_itself(bundle, pictures, prepared):
    _, segmenter, module = bundle
    which = {"none": [False] * 5, "all": [True] * 5, "some": [True, False, False, True, False]}
    messages = []
    for number, (image, done) in enumerate(zip(pictures, which[prepared], strict=True)):
        feature = {
            records.ENCODED: [png(image)],
            records.SOURCE_ID: [b"%d" % number],
            **({records.TILE_ORIGIN: [0, 0]} if done else {}),
        }
        example = tf.train.Example()
        for key, values in feature.items():
            part = example.features.feature[key]
            kept = part.bytes_list if isinstance(values[0], bytes) else part.int64_list
            kept.value.extend(values)
        messages.append(example.SerializeToString())
    answer = module.endpoints["examples"](examples=tf.constant(messages))
    assert answer["source_id"].numpy().tolist() == [b"0", b"1", b"2", b"3", b"4"]
    ways = {True: segmenter.prepared_probabilities, False: segmenter.probabilities}
    for image, done, ids in zip(
        pictures, which[prepared], decoded(answer["mask_png"]), strict=True
    ):
        assert_ids(ids, ways[done](image).numpy())


def test_no_files_get_no_masks(bundle):
    nothing = tf.constant([], tf.string)
    assert bundle[2].endpoints["encoded"](encoded=nothing)["mask_png"].shape == (0,)
    assert bundle[2].endpoints["examples"](examples=nothing)["mask_png"].shape == (0,)
