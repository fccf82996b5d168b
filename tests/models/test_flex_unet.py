"""The network is the recipe of the projects it replaces, to the last parameter."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import flex_unet, registry
from models.flex_unet import FlexUNetConfig

# The recipe as its first users trained it.
ORIGINAL = {
    "base_filters": 16,
    "levels": 8,
    "dropout_rate": 0.04,
    "normalization": "none",
    "normalization_position": "after_activation",
}


@pytest.fixture
def abstract():
    """Models of 125 million parameters whose weights are never made."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


# base kernel: parameters for 1, 2 and 6 classes, and for 2 classes with batch normalization.
PARAMETERS = {
    3: (124_440_433, 124_440_450, 124_440_518, 124_489_346),
    5: (124_457_585, 124_457_602, 124_457_670, 124_506_498),
    7: (124_557_041, 124_557_058, 124_557_126, 124_605_954),
    9: (124_996_849, 124_996_866, 124_996_934, 125_045_762),
    11: (126_809_201, 126_809_218, 126_809_286, 126_858_114),
}


@pytest.mark.parametrize("kernel", PARAMETERS)
def test_parameters_are_those_of_the_original(kernel, abstract):
    knobs = {**ORIGINAL, "base_kernel": kernel}
    counts = [registry.build("flex_unet", num_classes=n, **knobs).count_params() for n in (1, 2, 6)]
    knobs["normalization"] = "batch"
    counts.append(registry.build("flex_unet", num_classes=2, **knobs).count_params())
    assert tuple(counts) == PARAMETERS[kernel]


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"levels": 5}, 2_497_538),
        ({"levels": 6}, 8_332_034),
        ({"levels": 7}, 31_666_434),
        ({"base_filters": 8}, 31_253_762),
        ({"base_filters": 32}, 499_951_106),
    ],
)
def test_parameters_at_other_depths_and_widths(knobs, expected, abstract):
    model = registry.build("flex_unet", num_classes=2, **{**ORIGINAL, "base_kernel": 9, **knobs})
    assert model.count_params() == expected


def test_parameters_of_each_level(abstract):
    model = registry.build("flex_unet", num_classes=6, **ORIGINAL, base_kernel=9)
    levels = {}
    for layer in model.layers:
        level = layer.name.split("_")[0]
        levels[level] = levels.get(level, 0) + layer.count_params()
    assert {level: count for level, count in levels.items() if count} == {
        "enc0": 24_656,
        "enc1": 75_328,
        "enc2": 153_728,
        "enc3": 221_440,
        "enc4": 885_248,
        "enc5": 3_539_968,
        "enc6": 14_157_824,
        "bridge": 56_627_200,
        "dec6": 36_703_232,
        "dec5": 9_176_576,
        "dec4": 2_294_528,
        "dec3": 573_824,
        "dec2": 340_160,
        "dec1": 158_816,
        "dec0": 64_304,
        "logits": 102,
    }
    assert model.get_layer("dec6_up").count_params() == 8_389_632


def oracle(model, config, images):
    """The network again, in TensorFlow's own operations, from the recipe and the weights' names."""

    def weights(name):
        return [tf.cast(w.value, tf.float64) for w in model.get_layer(name).weights]

    def conv(x, level, name):
        kernel, *bias = weights(name)
        x = tf.nn.conv2d(x, kernel, 1, "SAME", dilations=config.dilations[level])
        return x + bias[0] if bias else x

    def norm(x, name):
        if config.normalization == "none":
            return x
        gamma, beta, mean, variance = weights(name)
        return (x - mean) / tf.sqrt(variance + 1e-3) * gamma + beta

    def block(x, level, part):
        for number in (1, 2):
            x = conv(x, level, f"{part}_conv{number}")
            if config.normalization_position == "after_activation":
                x = norm(tf.nn.relu(x), f"{part}_norm{number}")
            else:
                x = tf.nn.relu(norm(x, f"{part}_norm{number}"))
        return x

    x = tf.cast(images, tf.float64) / 255
    skips = []
    for level in range(config.levels - 1):
        skips.append(block(x, level, f"enc{level}"))
        x = tf.nn.max_pool2d(skips[-1], 2, 2, "VALID")
    x = block(x, config.levels - 1, "bridge")
    for level in reversed(range(config.levels - 1)):
        kernel, bias = weights(f"dec{level}_up")
        shape = [*skips[level].shape[:3], kernel.shape[2]]
        x = tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME") + bias
        x = block(tf.concat([x, skips[level]], -1), level, f"dec{level}")
    kernel, bias = weights("logits")
    return tf.nn.conv2d(x, kernel, 1, "SAME") + bias


@pytest.mark.parametrize("position", ["before_activation", "after_activation"])
@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_the_network_computes_the_recipe(normalization, position):
    config = FlexUNetConfig(
        base_filters=3,
        levels=3,
        kernels=(5, 4, 3),
        dilations=(2, 1, 3),
        normalization=normalization,
        normalization_position=position,
    )
    model = flex_unet.build(config, num_classes=4, channels=2)
    rng = np.random.default_rng(0)
    for weight in model.weights:  # so that no bias is 0, no scale 1, no moment trivial
        if not weight.path.endswith("/kernel"):
            weight.assign(rng.uniform(0.1, 0.9, weight.shape))
    images = rng.integers(0, 256, (2, 20, 12, 2), dtype=np.uint8)
    expected = np.array(oracle(model, config, images))
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * expected.std())


def test_schedules_fall_to_their_floor():
    config = FlexUNetConfig(levels=6, base_kernel=9, base_dilation=3, dropout_rate=0.04)
    levels = range(6)
    assert [config.kernel(i) for i in levels] == [9, 7, 5, 3, 3, 3]
    assert [config.dilation(i) for i in levels] == [3, 2, 1, 1, 1, 1]
    assert [config.filters(i) for i in levels] == [16, 32, 64, 128, 256, 512]
    np.testing.assert_allclose(
        [config.dropout(i) for i in levels], [0, 0.04, 0.08, 0.12, 0.16, 0.20]
    )


def test_schedules_reach_encoder_bridge_and_decoder():
    model = registry.build(
        "flex_unet",
        num_classes=2,
        base_filters=2,
        levels=3,
        kernels=(7, 5, 4),
        dilations=(3, 2, 1),
        dropouts=(0.1, 0.2, 0.3),
    )
    for part, level in {"enc0": 0, "enc1": 1, "bridge": 2, "dec1": 1, "dec0": 0}.items():
        for number in (1, 2):
            conv = model.get_layer(f"{part}_conv{number}")
            assert conv.kernel_size == ((7, 7), (5, 5), (4, 4))[level]
            assert conv.dilation_rate == ((3, 3), (2, 2), (1, 1))[level]
            assert conv.filters == (2, 4, 8)[level]
        drop = model.get_layer(f"{part}_drop")
        assert drop.rate == (0.1, 0.2, 0.3)[level]
        assert drop.input is model.get_layer(f"{part}_act1").output
        assert drop.output is model.get_layer(f"{part}_conv2").input


def test_dropout_grows_with_depth_from_none():
    model = registry.build("flex_unet", num_classes=2, base_filters=2, levels=3, dropout_rate=0.05)
    rates = {
        layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)
    }
    assert rates == {"enc1_drop": 0.05, "bridge_drop": 0.1, "dec1_drop": 0.05}


def test_weights_start_as_in_the_original():
    model = registry.build("flex_unet", num_classes=2, base_filters=32, levels=2)
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        kernel = np.array(layer.kernel)
        fan = np.prod(kernel.shape[:2])
        fan_in, fan_out = fan * kernel.shape[2], fan * kernel.shape[3]
        he = "conv" in layer.name
        expected = np.sqrt(2 / fan_in if he else 2 / (fan_in + fan_out))
        if kernel.size > 1000:
            assert np.std(kernel) == pytest.approx(expected, rel=0.1), layer.name
        # Glorot's is uniform, and ends at sqrt(3) deviations; He's is normal, cut at two.
        assert (np.abs(kernel).max() > 1.8 * expected) == he, layer.name


def test_biases_are_left_out_only_where_normalization_takes_them_away():
    biased = {
        (normalization, position): FlexUNetConfig(
            normalization=normalization, normalization_position=position
        ).conv_bias
        for normalization in ("none", "batch", "group", "instance")
        for position in ("before_activation", "after_activation")
    }
    assert {key for key, bias in biased.items() if not bias} == {
        ("batch", "before_activation"),
        ("instance", "before_activation"),
    }


@pytest.mark.parametrize("normalization", ["none", "batch", "group", "instance"])
@pytest.mark.parametrize("position", ["before_activation", "after_activation"])
def test_the_gradient_reaches_every_weight_under_every_normalization(normalization, position):
    model = registry.build(
        "flex_unet",
        num_classes=2,
        base_filters=4,
        levels=2,
        activation="mish",
        normalization=normalization,
        normalization_position=position,
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 12, 8, 3), dtype=np.uint8)
    targets = rng.normal(size=(2, 12, 8, 2)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(images, training=True) - targets) ** 2)
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-6, weight.path


@pytest.mark.parametrize("activation", ["relu", "mish", "leaky_relu"])
def test_the_activation_is_the_one_named(activation):
    model = registry.build(
        "flex_unet", num_classes=1, base_filters=2, levels=1, activation=activation
    )
    layer = model.get_layer("bridge_act2")
    assert layer.activation is getattr(keras.activations, activation)


def test_one_level_is_one_block_at_full_resolution():
    model = registry.build("flex_unet", num_classes=2, base_filters=2, levels=1)
    assert model(np.zeros((1, 5, 7, 3), np.uint8)).shape == (1, 5, 7, 2)


def test_the_least_size_is_one_pixel_at_the_bridge_two_under_instance_normalization():
    assert FlexUNetConfig(levels=4).size_divisor == 8
    assert FlexUNetConfig(levels=4).size_minimum == 8
    assert FlexUNetConfig(levels=4, normalization="instance").size_minimum == 16
    model = registry.build(
        "flex_unet", num_classes=2, base_filters=2, levels=3, normalization="instance"
    )
    with pytest.raises(FlexsegError, match="at least 8"):
        model(np.zeros((1, 4, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"levels": 0}, "levels must be at least 1"),
        ({"base_filters": 0}, "base_filters must be at least 1"),
        ({"base_kernel": 0}, "base_kernel must be at least 1"),
        ({"base_dilation": -1}, "base_dilation must be at least 1"),
        ({"kernels": (3, 0, 3, 3, 3)}, "kernels must be at least 1"),
        ({"kernels": (3, 3)}, "kernels must have one value for each of the 5 levels.*it has 2"),
        ({"dilations": (1,) * 6}, "dilations must have one value for each.*it has 6"),
        ({"dropouts": (0.1,)}, "dropouts must have one value for each"),
        ({"dropouts": (0, 0, 0, 0, 1)}, "dropouts must be less than 1"),
        ({"dropout_rate": -0.1}, "dropout_rate must be at least 0"),
        ({"dropout_rate": 0.25}, "dropout_rate 0.25 grows to 1 at level 4"),
        ({"activation": "rellu"}, 'activation "rellu" is unknown.*Did you mean "relu"'),
        ({"normalization": "bach"}, 'Did you mean "batch"'),
        ({"normalization_position": "before"}, "normalization_position"),
        ({"input_normalization": "z"}, "input_normalization"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("flex_unet", **knobs)
