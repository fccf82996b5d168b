"""DeepLab v3+ has the branches, dilations and parameters of its recipe over either backbone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry
from models.deeplab_v3_plus import DeepLabV3PlusConfig

SMALL = {"width": 0.125, "depth": 0.3, "aspp_filters": 4, "aspp_rates": (2, 3), "low_filters": 3}


@pytest.fixture
def abstract():
    """Models of tens of millions of parameters whose weights are never made."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def test_parameters_are_those_of_the_original(abstract):
    source = keras.applications.ResNet50(include_top=False, weights=None)
    source = keras.Model(source.input, source.get_layer("conv4_block6_2_relu").output)
    convs = [layer for layer in source.layers if isinstance(layer, keras.layers.Conv2D)]
    biases = sum(layer.filters for layer in convs) + 256  # of the pooled branch
    model = registry.build("deeplab_v3_plus", num_classes=2)
    assert model.count_params() == 11_852_610 - biases


@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet_b0", "efficientnet_b5"])
def test_the_backbone_is_read_at_a_quarter_and_a_sixteenth(backbone, abstract):
    config = DeepLabV3PlusConfig(backbone=backbone)
    model = registry.build("deeplab_v3_plus", config=config, num_classes=2, size=(64, 96))
    low, deep = (model.get_layer(tap).output.shape[1:3] for tap in config.tap_names())
    assert (low, deep) == ((16, 24), (4, 6))


@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet_b0"])
def test_what_follows_the_backbone_computes_the_recipe(backbone):
    config = DeepLabV3PlusConfig(backbone=backbone, **SMALL)
    model = registry.build("deeplab_v3_plus", config=config, num_classes=3)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if not weight.path.endswith("/kernel"):
            weight.assign(rng.uniform(0.1, 0.9, weight.shape))
    images = rng.integers(0, 256, (2, 64, 96, 3)).astype(np.float32)
    taps = keras.Model(model.inputs, [model.get_layer(name).output for name in config.tap_names()])
    low, deep = taps(images)

    def unit(x, part, dilation=1):
        (kernel,) = model.get_layer(f"{part}_conv").weights
        gamma, beta, mean, variance = model.get_layer(f"{part}_norm").weights
        x = tf.nn.conv2d(x, kernel, 1, "SAME", dilations=dilation)
        return tf.nn.relu((x - mean) / tf.sqrt(variance + 1e-3) * gamma + beta)

    pooled = unit(tf.reduce_mean(deep, [1, 2], keepdims=True), "aspp_pool")
    branches = [tf.image.resize(pooled, deep.shape[1:3]), unit(deep, "aspp_point")]
    branches += [unit(deep, f"aspp_dilated{i + 1}", rate) for i, rate in enumerate((2, 3))]
    x = unit(tf.concat(branches, -1), "aspp_union")
    x = tf.concat([tf.image.resize(x, low.shape[1:3]), unit(low, "low")], -1)
    x = unit(unit(x, "decoder1"), "decoder2")
    kernel, bias = model.get_layer("logits").weights
    expected = tf.image.resize(tf.nn.conv2d(x, kernel, 1, "SAME") + bias, (64, 96))
    scale = np.array(expected).std()
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * scale, rtol=1e-4)


def test_a_frozen_backbone_leaves_the_rest_to_be_trained():
    model = registry.build("deeplab_v3_plus", num_classes=2, frozen=True, **SMALL)
    parts = {weight.path.partition("/")[0].partition("_")[0] for weight in model.trainable_weights}
    assert parts == {"aspp", "low", "decoder1", "decoder2", "logits"}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"backbone": "resnet"}, 'backbone "resnet" is unknown.*Did you mean "resnet50"'),
        ({"aspp_rates": ()}, "aspp_rates must have at least one"),
        ({"aspp_rates": (0,)}, "aspp_rates must be at least 1"),
        ({"weights": "w.h5", "depth": 0.5}, 'weights "w.h5" fit a backbone of width 1 and depth 1'),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("deeplab_v3_plus", **knobs)
