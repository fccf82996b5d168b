"""SegFormer has the paper's parameters, strides and reductions."""

import keras
import numpy as np
import pytest

from flexseg_errors import FlexsegError
from models import attention, registry
from models.segformer import SegFormerConfig

# Widths, depths, the decoder's width, and the paper's parameters of encoder and decoder in millions
# (its table 1, for 150 classes).
PAPER = {
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2), 256, 3.4, 0.4),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2), 256, 13.1, 0.6),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3), 768, 24.2, 3.3),
}


@pytest.fixture
def abstract():
    """Models of tens of millions of parameters whose weights are never made."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


@pytest.mark.parametrize("variant", PAPER)
def test_parameters_are_the_papers_but_for_those_without_effect(variant, abstract):
    widths, depths, decoder, encoder_millions, decoder_millions = PAPER[variant]
    encoder, inputs, without_effect = 0, 3, 0
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        reduction = (8, 4, 2, 1)[stage]
        patch = (49 if stage == 0 else 9) * inputs * width + width + 2 * width
        shrinking = reduction**2 * width**2 + 3 * width if reduction > 1 else 0
        attending = 4 * (width**2 + width) + shrinking
        feeding = 4 * width * (width + 1) + 10 * 4 * width + 4 * width * width + width
        encoder += patch + depth * (attending + feeding + 4 * width) + 2 * width
        without_effect += depth * width
        inputs = width
    head = sum(decoder * (width + 1) for width in widths) + 4 * decoder**2 + 4 * decoder
    without_effect += widths[-1] + 4 * decoder
    head += (decoder + 1) * 150
    assert round(encoder / 1e6, 1) == pytest.approx(encoder_millions, abs=0.11)
    assert round(head / 1e6, 1) == pytest.approx(decoder_millions, abs=0.11)
    model = registry.build("segformer", num_classes=150, variant=variant)
    assert model.count_params() == encoder + head - without_effect


def test_stages_and_their_keys_have_the_papers_sizes():
    model = registry.build(
        "segformer",
        num_classes=2,
        size=(64, 128),
        widths=(8, 8, 8, 8),
        depths=(1, 2, 1, 1),
        heads=(1, 2, 4, 8),
        decoder_width=8,
    )
    attentions = [x for x in model.layers if isinstance(x, attention.MapAttention)]
    sizes = [[x.shape[1:3] for x in layer.input] for layer in attentions]
    assert sizes == [
        [(16, 32), (2, 4)],
        [(8, 16), (2, 4)],
        [(8, 16), (2, 4)],
        [(4, 8), (2, 4)],
        [(2, 4), (2, 4)],
    ]
    assert [layer.heads for layer in attentions] == [1, 2, 2, 4, 8]


def test_stochastic_depth_grows_from_none_to_the_last_block():
    knobs = {"widths": (8,) * 4, "depths": (2, 1, 1, 1), "heads": (1, 1, 1, 1)}
    model = registry.build("segformer", num_classes=2, stochastic_depth=0.4, **knobs)
    rates = [x.rate for x in model.layers if x.name.endswith(("attention_drop", "mlp_drop"))]
    np.testing.assert_allclose(rates, np.repeat([0.1, 0.2, 0.3, 0.4], 2))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"variant": "b9"}, "known are b0, b1, b2"),
        ({"widths": (8, 8)}, "widths must have one value for each of the 4 stages; it has 2"),
        ({"heads": ()}, "heads must have one value for each of the 4 stages; it has 0"),
        ({"heads": (1, 2, 5, 7)}, "256 is no multiple of 7"),
        ({"reductions": (0, 1, 1, 1)}, "reductions must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("segformer", **knobs)


def test_the_divisor_follows_the_reductions():
    assert SegFormerConfig().size_divisor == 32
    assert SegFormerConfig(reductions=(8, 8, 2, 1)).size_divisor == 64
    assert SegFormerConfig(reductions=(3, 1, 1, 1)).size_divisor == 96
