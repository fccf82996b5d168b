"""U2-Net is the paper's two networks, and that of the projects before this one."""

import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry
from models.u2net import U2NetConfig


def parameters(encoder, decoder, classes, norm, channels=3):
    """From rows of (convolutions with their dilation 1 pairs, middle, out) by the paper's figure.

    Args:
      encoder: (height, middle, out) of every block from the top, RSU-L as L, RSU-4F as 4.
      decoder: the same, without the deepest.
      classes: logits of each side.
      norm: parameters of a normalization for each channel; a convolution has a bias besides.
      channels: of the images.
    """

    def conv(inputs, outputs):
        return 9 * inputs * outputs + outputs + norm * outputs

    def block(inputs, height, middle, out):
        # In; down to `middle`; height - 2 more down; the bottom; height - 2 up; the last to `out`.
        total = conv(inputs, out) + conv(out, middle) + conv(2 * middle, out)
        total += (height - 2) * (conv(middle, middle) + conv(2 * middle, middle))
        return total + conv(middle, middle)

    total, inputs, sides = 0, channels, []
    for height, middle, out in encoder:
        total += block(inputs, height, middle, out)
        inputs = out
    sides.append(inputs)
    skips = [out for *_, out in encoder[:-1]]
    for (height, middle, out), skip in reversed(list(zip(decoder, skips, strict=True))):
        total += block(inputs + skip, height, middle, out)
        inputs = out
        sides.append(out)
    total += sum(9 * out * classes + classes for out in sides)
    return total + len(sides) * classes * classes + classes


PAPER = (
    [(7, 32, 64), (6, 32, 128), (5, 64, 256), (4, 128, 512), (4, 256, 512), (4, 256, 512)],
    [(7, 16, 64), (6, 32, 64), (5, 64, 128), (4, 128, 256), (4, 256, 512)],
)
LITE = tuple([(height, 16, 64) for height, *_ in part] for part in PAPER)
OLD = (
    [(9 - i, 4 * 2**i, 16 * 2**i) for i in range(6)] + [(4, 256, 512)] * 2,
    [(9 - i, 4 * 2**i, 16 * 2**i) for i in range(6)] + [(4, 256, 512)],
)


def test_parameters_are_those_of_the_older_projects(abstract):
    assert parameters(*OLD, classes=2, norm=0) == 49_000_610
    model = registry.build("u2net", num_classes=2, normalization="none")
    assert model.count_params() == 49_000_610


@pytest.mark.parametrize(
    ("plan", "table", "published"), [("u2net", PAPER, 44_009_869), ("u2netp", LITE, 1_131_181)]
)
def test_parameters_are_those_of_the_paper_without_its_idle_biases(
    plan, table, published, abstract
):
    assert parameters(*table, classes=1, norm=2) == published
    trained = parameters(*table, classes=1, norm=1)  # two vectors of the norm less the bias
    model = registry.build("u2net", num_classes=1, plan=plan)
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == trained


def test_the_network_computes_the_recipe(recipe):
    model = registry.build("u2net", num_classes=3, base_filters=4, levels=2, deep_supervision=True)
    r = recipe(model)
    images = np.random.default_rng(1).integers(0, 256, (2, 24, 16, 3), dtype=np.uint8)

    def unit(x, part, dilation=1):
        x = r.norm(r.conv(x, f"{part}_conv", dilation), f"{part}_norm")
        return tf.nn.relu(x)

    def nested(x, part, depth, halvings):
        """What lies at and below `depth` of a residual U-block, from its input there."""
        down = unit(x, f"{part}_down{depth}")
        if depth == halvings:
            below = unit(down, f"{part}_bottom", 2)
        else:
            below = r.enlarge(nested(r.pool(down), part, depth + 1, halvings))
        return unit(tf.concat([below, down], -1), f"{part}_up{depth}")

    def dilated(x, part):
        a = unit(x, f"{part}_down0")
        b = unit(a, f"{part}_down1", 2)
        c = unit(b, f"{part}_down2", 4)
        x = unit(c, f"{part}_bottom", 8)
        x = unit(tf.concat([x, c], -1), f"{part}_up2", 4)
        x = unit(tf.concat([x, b], -1), f"{part}_up1", 2)
        return unit(tf.concat([x, a], -1), f"{part}_up0")

    def block(x, part):
        level = int(part[3:])
        x = unit(x, f"{part}_in")
        return x + (nested(x, part, 0, 3 - level) if level < 2 else dilated(x, part))

    x = tf.cast(images, tf.float64) / 255
    encoder = []
    for level in range(4):
        x = block(r.pool(x) if level else x, f"enc{level}")
        encoder.append(x)
    maps = {3: x}
    for level in (2, 1, 0):
        maps[level] = block(
            tf.concat([r.enlarge(maps[level + 1]), encoder[level]], -1), f"dec{level}"
        )
    sides = [r.enlarge(r.conv(maps[level], f"side{level}_logits"), 2**level) for level in range(4)]
    expected = [r.conv(tf.concat(sides, -1), "logits"), *sides]
    outputs = model(images)
    assert len(outputs) == 5
    for logits, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(logits, wanted, atol=1e-4 * np.std(wanted))


def test_without_deep_supervision_the_fused_logits_are_left():
    knobs = {"num_classes": 2, "base_filters": 4, "levels": 1}
    images = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    outputs = registry.build("u2net", **knobs, deep_supervision=True)(images)
    np.testing.assert_array_equal(outputs[0], registry.build("u2net", **knobs)(images))


def test_the_network_and_its_blocks_reach_one_resolution():
    assert U2NetConfig().size_divisor == 128
    assert U2NetConfig(levels=4).size_divisor == 32
    assert U2NetConfig(plan="u2net").size_divisor == 32
    assert U2NetConfig(plan="u2netp", normalization="instance").size_minimum == 64


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"plan": "u2"}, 'plan "u2" is unknown'),
        ({"plan": "u2net", "levels": 4}, 'levels has no say under plan "u2net"'),
        ({"plan": "u2netp", "base_filters": 8}, "base_filters has no say"),
        ({"base_filters": 3}, "base_filters must be at least 4"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("u2net", **knobs)
