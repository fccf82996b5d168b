"""UNet 3+ joins all levels at every level; its guide lowers what is not there."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry
from models.class_guide import ClassGuide


def old_parameters(filters, classes, counted_levels=5, channels=3):
    """The older projects' count, and how many are biases before a normalization.

    They had five levels whatever was set; the setting only widened the joined maps.
    """

    def conv(inputs, outputs):
        return 9 * inputs * outputs + outputs + 4 * outputs

    widths = [filters * 2**level for level in range(5)]
    joined = filters * counted_levels
    total, biases, inputs = 9 * joined * classes + classes, 0, channels
    for width in widths:
        total += conv(inputs, width) + conv(width, width)
        biases += 2 * width
        inputs = width
    for level in range(4):
        for source in range(5):
            width = joined if level < source < 4 else widths[source]
            total += conv(width, filters)
            biases += filters
        total += conv(5 * filters, joined)
        biases += joined
    return total, biases


def test_parameters_are_those_of_the_original_without_its_idle_biases(abstract):
    assert old_parameters(16, 1, counted_levels=6)[0] == 1_753_905
    total, biases = old_parameters(16, 1)
    assert (total, biases) == (1_693_537, 1_632)
    assert registry.build("unet3_plus", num_classes=1).count_params() == total - biases
    total, biases = old_parameters(64, 1)
    paper = registry.build("unet3_plus", num_classes=1, base_filters=64)
    assert paper.count_params() == total - biases
    deep = registry.build("unet3_plus", num_classes=1, base_filters=64, deep_supervision=True)
    assert deep.count_params() - paper.count_params() == 3 * (9 * 320 + 1) + 9 * 1024 + 1


@pytest.mark.parametrize("guided", [False, True])
def test_the_network_computes_the_recipe(guided, recipe):
    model = registry.build(
        "unet3_plus",
        num_classes=3,
        base_filters=3,
        levels=4,
        deep_supervision=True,
        classification_guided=guided,
    )
    r = recipe(model)
    images = np.random.default_rng(1).integers(0, 256, (2, 24, 16, 3), dtype=np.uint8)

    def unit(x, part):
        return tf.nn.relu(r.norm(r.conv(x, f"{part}_conv"), f"{part}_norm"))

    x = tf.cast(images, tf.float64) / 255
    encoder = []
    for level in range(4):
        x = r.pool(x) if level else x
        x = unit(unit(x, f"enc{level}_1"), f"enc{level}_2")
        encoder.append(x)
    decoder = {3: encoder[3]}
    for level in (2, 1, 0):
        maps = [r.pool(encoder[source], 2 ** (level - source)) for source in range(level)]
        maps.append(encoder[level])
        maps += [
            r.enlarge(decoder[source], 2 ** (source - level)) for source in range(level + 1, 4)
        ]
        maps = [unit(x, f"dec{level}_from{source}") for source, x in enumerate(maps)]
        decoder[level] = unit(tf.concat(maps, -1), f"dec{level}")
    shift = 0.0
    if guided:
        places = r.conv(encoder[3], "presence_places")
        presence = tf.math.log_sigmoid(tf.reduce_max(places, [1, 2], keepdims=True))
        shift = tf.pad(presence, [[0, 0], [0, 0], [0, 0], [1, 0]])
        assert presence.shape == (2, 1, 1, 2)
    outputs = model(images)
    assert len(outputs) == 4
    for level, logits in enumerate(outputs):
        name = (f"logits_{level}" if level else "logits") + ("_unguided" if guided else "")
        expected = np.array(r.enlarge(r.conv(decoder[level], name), 2**level) + shift)
        np.testing.assert_allclose(logits, expected, atol=1e-4 * expected.std())


def test_every_decoder_level_is_wired_to_every_level():
    model = registry.build("unet3_plus", num_classes=2, base_filters=2, levels=5)
    for level, source in itertools.product(range(4), range(5)):
        part = f"dec{level}_from{source}"
        names = {layer.name for layer in model.layers if layer.name.startswith(f"{part}_")}
        assert (f"{part}_pool" in names) == (source < level)
        assert (f"{part}_up" in names) == (source > level)
        if source < level:
            assert model.get_layer(f"{part}_pool").pool_size == (2 ** (level - source),) * 2
        elif source > level:
            assert model.get_layer(f"{part}_up").factor == 2 ** (source - level)
        first = next(n for n in ("pool", "up", "conv") if f"{part}_{n}" in names)
        x = model.get_layer(f"{part}_{first}").input
        below = f"dec{source}_act" if level < source < 4 else f"enc{source}_2_act"
        assert x is model.get_layer(below).output


def test_deep_supervision_leaves_the_main_logits_as_they_are():
    knobs = {"base_filters": 2, "levels": 3, "num_classes": 2, "classification_guided": True}
    images = np.random.default_rng(1).integers(0, 256, (1, 16, 8, 3), dtype=np.uint8)
    plain = registry.build("unet3_plus", **knobs)
    outputs = registry.build("unet3_plus", **knobs, deep_supervision=True)(images)
    np.testing.assert_array_equal(outputs[0], plain(images))


def test_guidance_multiplies_the_odds_by_the_probability_of_presence():
    rng = np.random.default_rng(0)
    for classes in (1, 2, 4):
        logits = rng.normal(size=(2, 3, 5, classes)).astype(np.float32)
        presence = rng.normal(0, 3, (2, max(1, classes - 1))).astype(np.float32)
        guided = np.array(ClassGuide(name="g")([logits, presence]))
        share = 1 / (1 + np.exp(-presence))[:, None, None]
        odds = np.exp(logits if classes == 1 else logits[..., 1:] - logits[..., :1])
        after = np.exp(guided if classes == 1 else guided[..., 1:] - guided[..., :1])
        np.testing.assert_allclose(after, odds * share, rtol=1e-4)


def test_the_guide_learns_from_the_logits_alone():
    for classes in (1, 3):
        model = registry.build(
            "unet3_plus", num_classes=classes, base_filters=2, levels=2, classification_guided=True
        )
        images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
        kernel = model.get_layer("presence_places").kernel
        with tf.GradientTape() as tape:
            # Of the last class: a class beside it would draw the other way.
            loss = tf.reduce_mean(tf.math.softplus(model(images, training=True)[..., -1]))
        gradient = tape.gradient(loss, kernel.value)
        assert np.abs(gradient).max() > 1e-6
        assert kernel.shape == (1, 1, 4, max(1, classes - 1))


def test_a_guided_network_survives_its_file(tmp_path):
    model = registry.build(
        "unet3_plus", num_classes=3, base_filters=2, levels=2, classification_guided=True
    )
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


def test_dropout_is_twice_as_high_after_the_second_convolution():
    model = registry.build("unet3_plus", num_classes=2, base_filters=2, levels=2, dropout_rate=0.2)
    rates = {
        layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)
    }
    assert rates == {
        **{f"enc{level}_{number}_drop": 0.2 * number for level in (0, 1) for number in (1, 2)},
        **{f"dec0_from{source}_drop": 0.2 for source in (0, 1)},
        "dec0_drop": 0.2,
    }


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"dropout_rate": 0.5}, "dropout_rate must be less than 0.5"),
        ({"levels": 1, "deep_supervision": True}, "levels of at least 2, not 1"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("unet3_plus", **knobs)
