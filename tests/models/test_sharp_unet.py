"""The Sharp U-Net sharpens its skips by a kernel that nothing changes."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry
from models.sharpen import Sharpen


def old_parameters(filters, levels, classes, every_level, channels=3):
    def conv(inputs, outputs, kernel=3):
        return kernel**2 * inputs * outputs + outputs

    widths = [filters * 2**level for level in range(levels)]
    total, inputs = conv(widths[0], classes, 1), channels
    for width in widths:
        total += conv(inputs, width) + conv(width, width)
        inputs = width
    for level in reversed(range(levels - 1)):
        width = widths[level]
        total += conv(inputs, width, 2) + 9 * width  # enlarged, and the skip's Laplacian
        inputs = 2 * width
        if every_level or level == 0:
            total += conv(inputs, width) + conv(width, width)
            inputs = width
    return total


@pytest.mark.parametrize(
    ("decoder", "expected"), [("top_level", 5_613_154), ("every_level", 7_764_450)]
)
def test_parameters_are_those_of_the_original(decoder, expected, abstract):
    assert old_parameters(32, 5, 2, decoder == "every_level") == expected
    model = registry.build("sharp_unet", num_classes=2, decoder=decoder)
    assert model.count_params() == expected
    fixed = sum(np.prod(weight.shape) for weight in model.non_trainable_weights)
    assert fixed == 9 * (32 + 64 + 128 + 256)


def test_sharpening_is_the_laplacian_of_every_channel_by_itself():
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8
    sharpened = np.array(Sharpen(name="s")(x))
    for image, result in zip(x, sharpened, strict=True):
        for channel in range(3):
            expected = scipy.ndimage.correlate(image[..., channel], kernel, mode="constant")
            np.testing.assert_allclose(result[..., channel], expected, atol=1e-5)


def test_the_kernel_stays_fixed_even_where_everything_is_made_trainable():
    model = registry.build("sharp_unet", num_classes=2, base_filters=2, levels=2)
    model.trainable = False
    model.trainable = True
    for layer in model.layers:
        layer.trainable = True
    assert not [w.path for w in model.trainable_weights if "sharpen" in w.path]
    assert [w.path for w in model.non_trainable_weights] == ["skip0_sharpen/laplacian"]


@pytest.mark.parametrize("decoder", ["every_level", "top_level"])
def test_the_network_computes_the_recipe(decoder, recipe):
    model = registry.build(
        "sharp_unet", num_classes=3, base_filters=3, levels=3, dilation=2, decoder=decoder
    )
    r = recipe(model)
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 8, 3), dtype=np.uint8)

    def block(x, part):
        for number in (1, 2):
            x = tf.nn.relu(r.conv(x, f"{part}_{number}_conv", dilation=2))
        return x

    def sharpened(x):
        around = tf.nn.avg_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 1, "VALID")
        return 9 * x - 9 * around

    x = tf.cast(images, tf.float64) / 255
    skips = []
    for level in (0, 1):
        skips.append(block(x, f"enc{level}"))
        x = r.pool(skips[-1])
    x = block(x, "bridge")
    for level in (1, 0):
        x = tf.concat([r.up(x, f"dec{level}_up"), sharpened(skips[level])], -1)
        if decoder == "every_level" or level == 0:
            x = block(x, f"dec{level}")
    expected = np.array(r.conv(x, "logits"))
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * expected.std())


def test_the_layer_survives_its_file(tmp_path):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, Sharpen(name="s")(inputs))
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 2)).astype(np.float32)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"decoder": "none"}, 'decoder "none" is unknown'),
        ({"dilation": 0}, "dilation must be at least 1"),
        ({"levels": 2, "deep_supervision": True}, "levels of at least 3, not 2"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(knobs, message):
    with pytest.raises(FlexsegError, match=message):
        registry.configure("sharp_unet", **knobs)
