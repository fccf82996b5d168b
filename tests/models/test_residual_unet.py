"""The residual U-Net is nnU-Net's recipe: its blocks, its widths and its extra logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry
from models.residual_unet import ResidualUNetConfig

SMALL = {"base_filters": 3, "max_filters": 6, "levels": 3, "blocks": (1, 2, 1)}


@pytest.fixture
def abstract():
    """Models of tens of millions of parameters whose weights are never made."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def test_parameters_are_those_of_the_recipe(abstract):
    widths, blocks = (32, 64, 128, 256, 512, 512), (1, 3, 4, 6, 6, 6)

    def conv(inputs, outputs, kernel=3):  # without bias, with its normalization's two vectors
        return kernel**2 * inputs * outputs + 2 * outputs

    expected, width = conv(3, 32), 32
    for out, count in zip(widths, blocks, strict=True):
        expected += conv(width, out, 1) if out != width else 0
        expected += conv(width, out) + (2 * count - 1) * conv(out, out)
        width = out
    for out in reversed(widths[:-1]):
        expected += 4 * width * out + out + conv(2 * out, out)
        width = out
    expected += 32 * 4 + 4
    model = registry.build("residual_unet", num_classes=4)
    assert model.count_params() == expected
    deep = registry.build("residual_unet", num_classes=4, deep_supervision=True)
    assert deep.count_params() == expected + sum(4 * width + 4 for width in (64, 128, 256, 512))


def oracle(model, config, images):
    """The logits of every decoder level, from the recipe and the weights' names."""

    def weights(name):
        return [tf.cast(w.value, tf.float64) for w in model.get_layer(name).weights]

    def conv(x, name, stride=1):
        kernel, *bias = weights(name)
        assert not bias
        return tf.nn.conv2d(x, kernel, stride, "SAME")

    def norm(x, name):  # instance normalization
        gamma, beta = weights(name)
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta

    def act(x):
        return tf.nn.leaky_relu(x, 0.2)

    def residual(x, part, stride):
        y = act(norm(conv(x, f"{part}_conv1", stride), f"{part}_norm1"))
        y = norm(conv(y, f"{part}_conv2"), f"{part}_norm2")
        if stride == 2:
            x = tf.nn.avg_pool2d(x, 2, 2, "VALID")
        if x.shape[-1] != y.shape[-1]:
            x = norm(conv(x, f"{part}_shortcut_conv"), f"{part}_shortcut_norm")
        return act(x + y)

    x = tf.cast(images, tf.float64) / 255
    x = act(norm(conv(x, "stem_conv1"), "stem_norm1"))
    skips, logits = [], []
    for level, count in enumerate(config.blocks):
        for index in range(count):
            stride = 2 if level and not index else 1
            x = residual(x, f"enc{level}_block{index + 1}", stride)
        skips.append(x)
    for level in reversed(range(config.levels - 1)):
        kernel, bias = weights(f"dec{level}_up")
        shape = [*skips[level].shape[:3], kernel.shape[2]]
        x = tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME") + bias
        x = tf.concat([x, skips[level]], -1)
        x = act(norm(conv(x, f"dec{level}_conv1"), f"dec{level}_norm1"))
        name = f"logits_{level}" if level else "logits"
        kernel, bias = weights(name)
        out = tf.nn.conv2d(x, kernel, 1, "SAME") + bias
        logits.insert(0, tf.image.resize(out, images.shape[1:3]))
    return logits


@pytest.mark.parametrize("levels", [3, 4])
def test_the_network_computes_the_recipe(levels):
    config = ResidualUNetConfig(
        base_filters=3,
        max_filters=6,
        levels=levels,
        blocks=(1, 2, 2, 1)[:levels],
        deep_supervision=True,
    )
    model = registry.build("residual_unet", config=config, num_classes=4, channels=2)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if not weight.path.endswith("/kernel"):
            weight.assign(rng.uniform(0.1, 0.9, weight.shape))
    images = rng.integers(0, 256, (2, 48, 32, 2), dtype=np.uint8)
    outputs, expected = model(images), oracle(model, config, images)
    assert len(outputs) == len(expected) == levels - 1
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.shape == (2, 48, 32, 4)
        scale = np.array(wanted).std()
        np.testing.assert_allclose(output, wanted, atol=1e-4 * scale, rtol=1e-4)


def test_deep_supervision_only_adds_logits():
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), dtype=np.uint8)
    plain = registry.build("residual_unet", num_classes=2, **SMALL)
    deep = registry.build(
        "residual_unet",
        num_classes=2,
        deep_supervision=True,
        **SMALL,
    )
    main, second = deep(images)
    np.testing.assert_array_equal(main, plain(images))
    assert second.shape == main.shape
    assert second.dtype == "float32"


def test_schedules_stop_at_their_last_value():
    config = ResidualUNetConfig(levels=8)
    assert [config.block_count(i) for i in range(8)] == [1, 3, 4, 6, 6, 6, 6, 6]
    assert [config.filters(i) for i in range(8)] == [32, 64, 128, 256, 512, 512, 512, 512]
    assert (config.size_divisor, config.size_minimum) == (128, 256)
    assert ResidualUNetConfig(normalization="batch").size_minimum == 32


def test_dropout_lies_inside_every_block():
    model = registry.build("residual_unet", num_classes=2, dropout_rate=0.2, **SMALL)
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert len(drops) == sum(SMALL["blocks"])
    assert {drop.rate for drop in drops} == {0.2}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"levels": 0}, "levels must be at least 1"),
        ({"blocks": (1, 2)}, "blocks must have one value for each of the 6 levels.*it has 2"),
        ({"normalization": "bach"}, 'Did you mean "batch"'),
        ({"deep_supervision": True, "levels": 2}, "levels of at least 3, not 2"),
        ({"deep_supervision": 1}, "deep_supervision must be a value of type bool"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("residual_unet", **knobs)
