"""The MultiRes U-Net is the recipe of the projects it replaces, to the last parameter."""

import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry
from models.multires_unet import MultiResUNetConfig


def test_parameters_are_those_of_the_original(abstract):
    model = registry.build("multires_unet", num_classes=2)
    assert model.count_params() == 8_174_775


def test_the_network_computes_the_recipe(recipe):
    model = registry.build(
        "multires_unet", num_classes=3, base_filters=5, levels=3, alpha=2.4, paths=(2, 0)
    )
    r = recipe(model)
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 8, 3), dtype=np.uint8)

    def unit(x, part):
        return r.norm(r.conv(x, f"{part}_conv"), f"{part}_norm")

    def block(x, part):
        shortcut, parts = unit(x, f"{part}_shortcut"), []
        for number in (1, 2, 3):
            x = tf.nn.relu(unit(x, f"{part}_{number}"))
            parts.append(x)
        x = r.norm(tf.concat(parts, -1), f"{part}_widths_norm") + shortcut
        return r.norm(tf.nn.relu(x), f"{part}_norm")

    x = tf.cast(images, tf.float64) / 255
    x = block(x, "enc0")
    skip0 = x
    for number in (1, 2):
        skip0 = unit(skip0, f"path0_{number}_main") + unit(skip0, f"path0_{number}_shortcut")
        skip0 = r.norm(tf.nn.relu(skip0), f"path0_{number}_norm")
    skip1 = x = block(r.pool(x), "enc1")  # whose path is empty
    x = block(r.pool(x), "bridge")
    x = block(tf.concat([r.up(x, "dec1_up"), skip1], -1), "dec1")
    x = block(tf.concat([r.up(x, "dec0_up"), skip0], -1), "dec0")
    expected = np.array(r.conv(x, "logits"))
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * expected.std())


def test_widths_and_paths_follow_the_paper():
    config = MultiResUNetConfig(base_filters=32, levels=5)
    # The paper's table: 8, 17, 26 filters for a U-Net's 32, and 51 in its shortcut.
    assert config.widths(0) == (8, 17, 26)
    assert config.widths(4) == (142, 284, 427)
    assert [config.path(level) for level in range(4)] == [5, 4, 3, 2]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"base_filters": 3}, "base_filters 3 and alpha 1.67 leave a block's first convolution"),
        ({"alpha": 0.1}, "base_filters 16 and alpha 0.1"),
        ({"paths": (4, 3)}, "paths must have one value for each of the 5 levels.*it has 2"),
        ({"paths": (1, 1, 1, 1, -1)}, "paths must be at least 0"),
        ({"levels": 2, "deep_supervision": True}, "levels of at least 3, not 2"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("multires_unet", **knobs)
