"""Swin-Unet has the paper's parameters, windows and shifts, and takes images of any size."""

import keras
import numpy as np
import pytest

from flexseg_errors import FlexsegError
from models import attention, registry
from models.swin_unet import SwinUNetConfig

SMALL = {"width": 4, "patch": 2, "depths": (2, 2), "heads": (1, 2), "windows": (4, 3)}


@pytest.fixture
def abstract():
    """Models of tens of millions of parameters whose weights are never made."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def test_parameters_are_the_papers_but_for_those_without_effect(abstract):
    def linear(inputs, outputs):
        return inputs * outputs + outputs

    def blocks(width, heads):
        feeding = linear(width, 4 * width) + linear(4 * width, width)
        return 2 * (4 * linear(width, width) + 13**2 * heads + feeding + 4 * width)

    widths, heads = (96, 192, 384, 768), (3, 6, 12, 24)
    paper = linear(48, 96) + 2 * 96 + 2 * 768 + 2 * 96  # patches; ends of encoder and decoder
    paper += sum(blocks(w, h) for w, h in zip(widths, heads, strict=True))
    paper += sum(blocks(w, h) for w, h in zip(widths[:3], heads[:3], strict=True))
    paper += sum(4 * w * 2 * w + 2 * 4 * w for w in widths[:3])  # merging
    paper += sum(2 * w * 4 * w + 2 * w for w in widths[:3])  # expanding
    paper += sum(linear(2 * w, w) for w in widths[:3])  # beside the skip
    paper += 96 * 16 * 96 + 2 * 96 + 96 * 9  # to full size, and nine classes without bias
    assert round(paper / 1e6, 2) == 27.17
    key_biases = 2 * (2 * sum(widths[:3]) + widths[3])
    model = registry.build("swin_unet", num_classes=9)
    assert model.count_params() == paper - key_biases + 9


def test_every_second_block_is_shifted_by_half_a_window():
    def shifts(**knobs):
        model = registry.build("swin_unet", num_classes=2, **{**SMALL, **knobs})
        found = [x for x in model.layers if isinstance(x, attention.WindowAttention)]
        return [(x.window, x.shift, x.heads) for x in found]

    upper, lower = [(4, 0, 1), (4, 2, 1)], [(3, 0, 2), (3, 1, 2)]
    assert shifts() == [*upper, *lower, *upper]
    assert {shift for _, shift, _ in shifts(shifted=False)} == {0}


def test_a_pixel_reaches_the_next_window_through_the_shift_alone():
    images = np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3)).astype(np.float32)
    other = images.copy()
    other[:, :2, :2] += 1  # one patch in the first of four windows

    def reached(shifted):
        model = registry.build(
            "swin_unet",
            num_classes=1,
            shifted=shifted,
            **{**SMALL, "depths": (2,), "heads": (1,), "windows": (4,)},
        )
        for weight in model.weights:  # large enough for the difference to show
            weight.assign(np.array(weight) * 5)
        change = np.abs(np.array(model(other)) - model(images))[0, :, :, 0]
        return change[:8, :8].max() > 0, change[8:, 8:].max() > 0

    assert reached(shifted=False) == (True, False)
    assert reached(shifted=True) == (True, True)


def test_stochastic_depth_grows_from_the_first_to_the_deepest_block():
    model = registry.build("swin_unet", num_classes=2, stochastic_depth=0.3, **SMALL)
    rates = {
        x.name.removesuffix("_mlp_skip"): x.rate
        for x in model.layers
        if x.name.endswith("mlp_skip")
    }
    assert rates == pytest.approx(
        {"enc0_block2": 0.1, "enc1_block1": 0.2, "enc1_block2": 0.3, "dec0_block2": 0.1}
    )


def test_widths_of_the_feed_forward_parts_can_be_given():
    model = registry.build("swin_unet", num_classes=2, mlp_widths=(5, 7), **SMALL)
    assert model.get_layer("enc0_block1_mlp_in").units == 5
    assert model.get_layer("enc1_block2_mlp_in").units == 7
    assert SwinUNetConfig().mlp_width(2) == 1536


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"depths": ()}, "depths must have at least one level"),
        ({"depths": (2, 2)}, "heads must have one value for each of the 2 levels of depths"),
        ({"windows": (7,)}, "windows must have one value for each of the 4 levels"),
        ({"mlp_widths": (7,)}, "mlp_widths must have one value for each of the 4 levels"),
        ({"heads": (3, 6, 12, 5)}, "5 does not divide the 768 of level 3"),
        ({"windows": (7, 7, 7, 0)}, "windows must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("swin_unet", **knobs)
