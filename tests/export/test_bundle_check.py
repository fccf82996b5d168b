"""What is exported is held to the network, signature by signature, and no fault escapes."""

import types

import numpy as np
import pytest
import tensorflow as tf

from export.bundles import signatures, verify_bundle
from pipelines import records
from pipelines.preparation import Preparation
from pipelines.records import Record
from tests.export.conftest import make_run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A function from a preparation to a segmenter and its signatures, of small gray tiles."""
    folder, made = tmp_path_factory.mktemp("tiny"), {}

    def build(preparation=None):
        if preparation not in made:
            run = make_run(
                folder / str(len(made)), channels=1, preparation=preparation, tile=(16, 16)
            )
            segmenter = run.segmenter()
            made[preparation] = segmenter, signatures.Bundle(segmenter)
        return made[preparation]

    return build


HALVED = Preparation(scale=0.5, preprocessing="invert")
WINDOW = Preparation(intensity="window:120,100")


@pytest.mark.parametrize("preparation", [None, HALVED, WINDOW])
def test_every_signature_is_checked_and_found_equal(tiny, preparation):
    segmenter, module = tiny(preparation)
    checks = verify_bundle.check(module.endpoints, segmenter)
    assert {c.signature for c in checks} == set(module.endpoints)
    for check in checks:
        assert check.passed
        assert check.wrong_pixels == 0
        assert check.images == 3
        assert check.seconds > 0
    assert {c.signature for c in checks if c.difference is not None} == {"serving_default"}


def failing(tiny, endpoints):
    segmenter, module = tiny()
    checks = verify_bundle.check({**module.endpoints, **endpoints}, segmenter)
    return {c.signature for c in checks if not c.passed}


def test_a_fault_of_any_signature_is_found(tiny):
    """Class 0 everywhere, masks moved by a pixel, masks that are cut, source ids that are mixed."""
    _, module = tiny()

    def png_of(change):
        def changed(masks):
            pngs = [tf.io.encode_png(change(tf.io.decode_png(m))) for m in masks]
            return tf.stack(pngs)

        return changed

    faults = {
        "blank": png_of(tf.zeros_like),
        "moved": png_of(lambda m: tf.roll(m, 1, 1)),
        "cut": png_of(lambda m: m[1:]),
    }
    for fault in faults.values():
        for name, key in (
            ("encoded", "mask_png"),
            ("rest", "mask_png_bytes"),
            ("examples", "mask_png"),
        ):
            good = module.endpoints[name]

            def bad(good=good, key=key, fault=fault, **inputs):
                answer = dict(good(**inputs))
                return {**answer, key: fault(answer[key])}

            assert failing(tiny, {name: bad}) == {name}
    tiled, examples = module.endpoints["tiled"], module.endpoints["examples"]
    for change in (tf.zeros_like, lambda ids: ids[:, :-1]):
        bad = {"tiled": lambda image, c=change: {"class_ids": c(tiled(image=image)["class_ids"])}}
        assert failing(tiny, bad) == {"tiled"}

    def mixed(**inputs):
        answer = examples(**inputs)
        return {**answer, "source_id": answer["source_id"][::-1]}

    assert failing(tiny, {"examples": mixed}) == {"examples"}


@pytest.mark.parametrize("change", [1.001, float("nan"), float("inf")])
def test_wrong_probabilities_are_found(tiny, change):
    segmenter, module = tiny()
    good = module.endpoints["serving_default"]

    def bad(images):
        answer = good(images=images)
        return {**answer, "probabilities": answer["probabilities"] * change}

    checks = verify_bundle.check({**module.endpoints, "serving_default": bad}, segmenter)
    assert [c.signature for c in checks if not c.passed] == ["serving_default"]
    assert checks[0].difference > 1e-4


def test_probabilities_of_another_shape_are_found(tiny):
    segmenter, module = tiny()
    good = module.endpoints["serving_default"]

    def bad(images):
        answer = good(images=images)
        return {**answer, "probabilities": answer["probabilities"][:, :1]}

    checks = verify_bundle.check({**module.endpoints, "serving_default": bad}, segmenter)
    assert [c.signature for c in checks if not c.passed] == ["serving_default"]
    assert (checks[0].difference, checks[0].wrong_pixels) == (float("inf"), 0)
    assert str(checks[0]) == "serving_default: probabilities differ by inf, 0 pixels differ"


def test_other_weights_are_found_by_all(tiny):
    """What the network said is remembered; then its weights change, which the signatures share."""
    segmenter, module = tiny()
    said = {}

    def remembered(image):
        if image.tobytes() not in said:
            said[image.tobytes()] = segmenter.probabilities(image)
        return said[image.tobytes()]

    known = types.SimpleNamespace(
        tile=segmenter.tile,
        channels=segmenter.channels,
        preparation=segmenter.preparation,
        probabilities=remembered,
    )
    assert all(check.passed for check in verify_bundle.check(module.endpoints, known))
    bias = segmenter.model.get_layer("logits").bias
    before = bias.numpy()
    bias.assign_add([0.0, 2.0, 0.0])
    checks = verify_bundle.check(module.endpoints, known)
    bias.assign(before)
    assert len(checks) == 5
    assert not any(c.passed for c in checks)


def ids_of(png):
    return tf.io.decode_png(png).numpy()[..., 0]


def record_of(image, source_id, encoding="png"):
    """A record as `flexseg prepare` writes it."""
    mask = np.zeros(image.shape[:2], np.uint8)
    record = Record(image, mask, source_id, source_id + ".png", (0, 0), image.shape[:2])
    return records.encode(record, 3, encoding)


@pytest.mark.parametrize("preparation", [None, HALVED, WINDOW])
@pytest.mark.parametrize("encoding", ["png", "raw", "jpeg:100"])
def test_records_of_a_dataset_are_taken_as_prepared_and_files_as_they_come(
    tiny, draw_image, preparation, encoding
):
    segmenter, module = tiny(preparation)
    images = [draw_image(size, 1, seed=5) for size in ((16, 16), (37, 21), (8, 50))]
    names = ["a/b", "c", "ü"]
    sent = [record_of(i, n, encoding) for i, n in zip(images, names, strict=True)]
    from_files = [verify_bundle.example(tf.io.encode_png(images[1]).numpy(), b"")]
    answer = module.endpoints["examples"](examples=tf.constant(sent + from_files))
    assert [n.decode() for n in answer["source_id"].numpy()] == [*names, ""]
    masks = [ids_of(png) for png in answer["mask_png"]]
    for image, data, mask in zip(images, sent, masks[:3], strict=True):
        seen, _ = records.pixels_of(records.parse_features(data))  # JPEG changes it
        expected = segmenter.prepared_probabilities(seen).numpy().argmax(-1)
        np.testing.assert_array_equal(mask, expected)
        assert mask.shape == image.shape[:2]
    mapped = module._intensity.apply(images[1])
    expected = segmenter.probabilities(mapped).numpy().argmax(-1)
    np.testing.assert_array_equal(masks[3], expected)
    if preparation and encoding == "png":
        assert (masks[3] != masks[1]).any(), "the two are told apart, or this would say little"


def test_a_raw_record_of_another_size_than_it_says_is_an_error(tiny, draw_image):
    _, module = tiny()
    data = record_of(draw_image((8, 9), 1), "x", "raw")
    message = tf.train.Example.FromString(data)
    message.features.feature["image/height"].int64_list.value[0] = 7
    with pytest.raises(tf.errors.InvalidArgumentError, match="must hold image/height"):
        module.endpoints["examples"](examples=tf.constant([message.SerializeToString()]))


@pytest.mark.parametrize("preparation", [None, HALVED, WINDOW])
def test_raw_pixels_of_somebody_else_are_prepared_like_a_file(tiny, draw_image, preparation):
    _, module = tiny(preparation)
    image = draw_image((21, 18), 1, seed=7)
    message = tf.train.Example.FromString(record_of(image, "x", "raw"))
    del message.features.feature["image/tile/origin"]
    sent = [
        message.SerializeToString(),
        verify_bundle.example(tf.io.encode_png(image).numpy(), b"x"),
    ]
    one, other = module.endpoints["examples"](examples=tf.constant(sent))["mask_png"]
    np.testing.assert_array_equal(ids_of(one), ids_of(other))
    assert len(np.unique(ids_of(one))) > 1


def test_an_example_without_an_image_is_an_error(tiny):
    _, module = tiny()
    with pytest.raises(tf.errors.InvalidArgumentError, match="image/encoded"):
        module.endpoints["examples"](examples=tf.constant([b""]))


@pytest.mark.parametrize("name", ["encoded", "rest", "examples"])
def test_an_empty_batch_of_files_has_an_empty_answer(tiny, name):
    _, module = tiny()
    (spec,) = tf.nest.flatten(module.endpoints[name].structured_input_signature)
    for value in module.endpoints[name](**{spec.name: tf.constant([], spec.dtype)}).values():
        assert value.shape[0] == 0
