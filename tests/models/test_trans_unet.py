"""TransUNet has the paper's parameters, and attends over the whole of any image."""

import keras
import numpy as np
import pytest

from flexseg_errors import FlexsegError
from models import registry
from models.trans_unet import TransUNetConfig

SMALL = {
    "blocks": (1, 1, 1),
    "backbone_width": 0.125,
    "embed_width": 8,
    "layers": 2,
    "heads": 2,
    "mlp_width": 16,
    "position_grid": 2,
    "bridge_filters": 8,
    "decoder_filters": (8, 8, 8, 8),
}


@pytest.fixture
def abstract():
    """Models of tens of millions of parameters whose weights are never made."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def test_parameters_are_the_papers_but_for_those_without_effect(abstract):
    def conv(inputs, outputs, kernel, moments=2):  # with its normalization
        return kernel**2 * inputs * outputs + moments * outputs

    paper, width = conv(3, 64, 7), 64
    for filters, count in ((64, 3), (128, 4), (256, 9)):
        paper += conv(width, 4 * filters, 1)
        for _ in range(count):
            paper += conv(width, filters, 1) + conv(filters, filters, 3)
            paper += conv(filters, 4 * filters, 1)
            width = 4 * filters
    paper += 1024 * 768 + 768 + 14**2 * 768 + 2 * 768
    paper += 12 * (4 * (768**2 + 768) + 768 * 3072 + 3072 + 3072 * 768 + 768 + 4 * 768)
    paper += conv(768, 512, 3)
    for inputs, outputs in ((1024, 256), (512, 128), (192, 64), (64, 16)):
        paper += conv(inputs, outputs, 3) + conv(outputs, outputs, 3)
    paper += 9 * 16 * 9 + 9
    moments = 2 * (512 + 2 * (256 + 128 + 64 + 16))  # batch normalization's own, not trained
    assert round(paper / 1e6, 2) == 105.28
    model = registry.build("trans_unet", num_classes=9)
    assert model.count_params() == paper + moments - 12 * 768


def test_every_pixel_reaches_every_other_through_the_transformer():
    images = np.random.default_rng(0).integers(0, 255, (1, 160, 32, 3)).astype(np.float32)
    other = images.copy()
    other[:, :2, :2] = 255 - other[:, :2, :2]

    def reached(layers):
        knobs = {**SMALL, "layers": layers, "backbone_normalization": "batch"}
        model = registry.build("trans_unet", num_classes=1, **knobs)
        change = np.abs(np.array(model(other)) - model(images))[0, :, :, 0]
        return change[:8].max() > 0, change[-8:].max() > 0

    assert reached(0) == (True, False)
    assert reached(1) == (True, True)


def test_positions_tell_places_apart():
    model = registry.build("trans_unet", num_classes=1, **SMALL)
    positions = model.get_layer("positions")
    assert positions.positions.shape == (2, 2, 8)
    out = np.array(positions(np.zeros((1, 4, 6, 8), np.float32)))
    assert len({pixel.tobytes() for pixel in out.reshape(-1, 8)}) > 8


def test_deep_supervision_only_adds_logits():
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)
    plain = registry.build("trans_unet", num_classes=2, **SMALL)
    deep = registry.build("trans_unet", num_classes=2, deep_supervision=True, **SMALL)
    outputs = deep(images)
    np.testing.assert_array_equal(outputs[0], plain(images))
    assert [x.shape for x in outputs] == [(1, 32, 48, 2)] * 4


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"blocks": (3, 4, 6, 3)}, "blocks must have 3 values; it has 4"),
        ({"decoder_filters": (8,)}, "decoder_filters must have 4 values; it has 1"),
        ({"heads": 7}, "7 does not divide 768"),
        ({"backbone_width": 0.0}, "backbone_width must be above 0"),
        ({"layers": -1}, "layers must be at least 0"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("trans_unet", **knobs)


def test_instance_normalization_needs_two_pixels_at_the_bridge():
    assert TransUNetConfig().size_minimum == 16
    assert TransUNetConfig(normalization="instance").size_minimum == 32
