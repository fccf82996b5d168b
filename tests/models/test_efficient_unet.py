"""The two networks over EfficientNet, and that one is a set of knobs of the other."""

import keras
import numpy as np
import pytest

from flexseg_errors import FlexsegError
from models import registry
from models.efficient_unet import EfficientNetB7UNetConfig, EfficientUNetConfig

SMALL = {"width": 0.25, "depth": 0.2}


@pytest.fixture
def abstract():
    """Models of tens of millions of parameters whose weights are never made."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def conv(inputs, outputs):  # 3 x 3 without bias, with the four vectors of its normalization
    return 9 * inputs * outputs + 4 * outputs


def test_parameters_of_the_b7_network_are_those_of_the_original(abstract):
    model = registry.build("efficientnet_b7_unet", num_classes=1)
    biases = 2 * (512 + 256 + 128 + 64 + 32)  # before batch normalization, which cancels them
    standardization = 3 + 3 + 1  # Keras' layer keeps mean, variance and a count as weights
    assert model.count_params() == 56_725_112 - biases - standardization


def test_parameters_of_the_b0_network_are_those_of_the_recipe(abstract):
    source = keras.applications.EfficientNetB0(include_top=False, weights=None)
    expected = sum(
        layer.count_params()
        for layer in source.layers
        if not layer.name.startswith(("top_", "normalization"))
    )
    width, levels = 320, ((320, 0), (112, 112), (40, 40), (24, 24), (16, 16), (16, 3))
    for filters, skip in levels:
        inputs = width + skip
        expected += conv(inputs, filters) + conv(filters, filters) + inputs * filters + filters
        width = filters
    expected += 16 * 6 + 6
    assert registry.build("efficient_unet", num_classes=6).count_params() == expected


def test_the_b7_network_is_a_set_of_knobs():
    knobs = {
        "variant": "b7",
        "taps": "depthwise",
        "upsampling": "transposed",
        "decoder_block": "plain",
        "bridge_block": False,
        "decoder_filters": (16, 16, 8, 8, 4),
    }
    preset = registry.build(
        "efficientnet_b7_unet", num_classes=2, decoder_filters=(16, 16, 8, 8, 4), **SMALL
    )
    general = registry.build("efficient_unet", num_classes=2, **SMALL, **knobs)
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(preset(images), general(images))


@pytest.mark.parametrize("config", [EfficientUNetConfig(), EfficientNetB7UNetConfig()])
def test_skips_have_half_a_quarter_and_so_on_of_the_size(config, abstract):
    name = "efficient_unet" if type(config) is EfficientUNetConfig else "efficientnet_b7_unet"
    model = registry.build(name, config=config, num_classes=2, size=(64, 96))
    for level, tap in enumerate(config.tap_names(), start=1):
        assert model.get_layer(tap).output.shape[1:3] == (64 // 2**level, 96 // 2**level)


def test_the_skips_of_b0_are_the_ends_of_its_stages():
    assert EfficientUNetConfig().tap_names() == [
        "block1a_project_bn",
        "block2b_add",
        "block3b_add",
        "block5c_add",
        "block7a_project_bn",
    ]
    assert EfficientUNetConfig(variant="b7").tap_names()[1:] == [
        "block2g_add",
        "block3g_add",
        "block5j_add",
        "block7d_add",
    ]


def test_frozen_statistics_do_not_move():
    model = registry.build("efficient_unet", num_classes=2, frozen_stages=6, **SMALL)
    frozen = {layer.name for layer in model.layers if layer.weights and not layer.trainable}
    encoder = {x.name for x in model.layers if x.weights and x.name.startswith(("stem", "block"))}
    assert frozen == {name for name in encoder if not name.startswith("block7")}
    before = {weight.path: np.array(weight) for weight in model.weights}
    model(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)), training=True)
    moved = {p for p, v in before.items() if not np.array_equal(v, dict_of(model)[p])}
    parts = {path.partition("_")[0] for path in moved}
    assert parts == {"block7a", "bridge", "dec0", "dec1", "dec2", "dec3", "dec4"}


def dict_of(model):
    return {weight.path: weight for weight in model.weights}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"variant": "b8"}, 'variant "b8" is unknown'),
        ({"decoder_filters": (8, 8)}, "one value for each of the 5 decoder levels.*it has 2"),
        ({"width": 0.0}, "width must be above 0"),
        ({"depth": float("nan")}, "depth must be above 0"),
        ({"weights": "imagenet", "width": 0.5}, 'weights "imagenet" fit a backbone of width 1'),
        ({"frozen_stages": 8}, "frozen_stages must be less than 8"),
        ({"upsampling": "bilinear"}, "known are nearest, transposed"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    for name in ("efficient_unet", "efficientnet_b7_unet"):
        with pytest.raises(FlexsegError, match=message):
            registry.configure(name, **knobs)
