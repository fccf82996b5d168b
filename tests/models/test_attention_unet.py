"""The attention U-Net is the recipe of the projects it replaces."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry


def old_parameters(filters, levels, classes, channels=3):
    """What the older projects counted, and how many of them are biases before a normalization."""

    def conv(inputs, outputs, kernel):
        return kernel**2 * inputs * outputs + outputs

    total, biases = conv(filters, classes, 1), 0
    width = channels
    widths = [filters * 2**level for level in range(levels)]
    blocks = [(channels, widths[0])]
    blocks += list(itertools.pairwise(widths))
    blocks += [(3 * width, width) for width in widths[:-1]]
    for inputs, width in blocks:
        total += conv(inputs, width, 3) + conv(width, width, 3) + 2 * 4 * width
        biases += 2 * width
    for width in widths[:-1]:
        total += conv(2 * width, width, 1) + conv(width, width, 1) + 2 * 4 * width
        total += conv(width, width, 1)
        biases += 2 * width
    return total, biases


def test_parameters_are_those_of_the_original_without_its_idle_biases(abstract):
    total, biases = old_parameters(16, 6, classes=1)
    assert (total, biases) == (8_229_073, 4_000)
    model = registry.build("attention_unet", num_classes=1)
    assert model.count_params() == total - biases
    assert old_parameters(16, 8, classes=2)[0] == 131_499_746
    unnormalized = registry.build("attention_unet", num_classes=1, normalization="none")
    assert unnormalized.count_params() == total - 4 * biases  # a norm has four vectors


@pytest.mark.parametrize("gate", ["channel", "pixel"])
def test_the_network_computes_the_recipe(gate, recipe):
    model = registry.build("attention_unet", num_classes=3, base_filters=3, levels=3, gate=gate)
    r = recipe(model)
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 8, 3), dtype=np.uint8)

    def unit(x, part):
        return r.norm(r.conv(x, f"{part}_conv"), f"{part}_norm")

    def block(x, part):
        for number in (1, 2):
            x = tf.nn.relu(unit(x, f"{part}_{number}"))
        return x

    x = tf.cast(images, tf.float64) / 255
    skips = []
    for level in (0, 1):
        skips.append(block(x, f"enc{level}"))
        x = r.pool(skips[-1])
    x = block(x, "bridge")
    for level in (1, 0):
        x = r.enlarge(x)
        both = unit(x, f"gate{level}_decoder") + unit(skips[level], f"gate{level}_skip")
        weights = tf.sigmoid(r.conv(tf.nn.relu(both), f"gate{level}_weights_conv"))
        assert weights.shape[-1] == (3 * 2**level if gate == "channel" else 1)
        x = block(tf.concat([x, skips[level] * weights], -1), f"dec{level}")
    expected = np.array(r.conv(x, "logits"))
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * expected.std())


def test_dropout_is_in_every_block_and_gate_and_constant():
    model = registry.build("attention_unet", num_classes=2, base_filters=2, levels=3)
    rates = {
        layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)
    }
    blocks = {f"{part}_2_drop": 0.1 for part in ("enc0", "enc1", "bridge", "dec1", "dec0")}
    assert rates == {**blocks, "gate0_skip_drop": 0.1, "gate1_skip_drop": 0.1}


def test_deep_supervision_leaves_the_main_logits_as_they_are():
    knobs = {"base_filters": 2, "levels": 4, "num_classes": 2}
    images = np.random.default_rng(1).integers(0, 256, (1, 16, 8, 3), dtype=np.uint8)
    plain = registry.build("attention_unet", **knobs)
    deep = registry.build("attention_unet", **knobs, deep_supervision=True)
    outputs = deep(images)
    assert len(outputs) == 3
    np.testing.assert_array_equal(outputs[0], plain(images))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"gate": "pixels"}, 'gate "pixels" is unknown.*Did you mean "pixel"'),
        ({"levels": 2, "deep_supervision": True}, "levels of at least 3, not 2"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("attention_unet", **knobs)
