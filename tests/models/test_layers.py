"""What networks share: names, seeds, the way in."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import knobs, layers


def test_every_activation_that_a_config_may_name_exists_and_no_other():
    assert set(layers._ACTIVATIONS) == set(knobs.ACTIVATIONS)
    assert set(layers._INPUT_SCALES) == set(knobs.INPUT_NORMALIZATIONS)


X = np.linspace(-3, 3, 13).astype(np.float32)
SIGMOID, SOFTPLUS = 1 / (1 + np.exp(-X)), np.log1p(np.exp(X))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", np.maximum(X, 0)),
        ("leaky_relu", np.where(X > 0, X, 0.2 * X)),
        ("mish", X * np.tanh(SOFTPLUS)),
        ("silu", X * SIGMOID),
        ("swish", X * SIGMOID),
    ],
)
def test_activations_are_their_formulas(name, expected):
    np.testing.assert_allclose(layers.activation(name, name="a")(X), expected, atol=1e-6)


def test_no_normalization_is_no_layer():
    assert layers.normalization("none", 8, name="n") is None


# Axes over which each kind's output has mean 0 and variance 1, for [B, H, W, groups, channels].
@pytest.mark.parametrize(
    ("kind", "axes"), [("batch", (0, 1, 2)), ("group", (1, 2, 4)), ("instance", (1, 2))]
)
def test_normalizations_normalize_over_their_axes(kind, axes):
    x = np.random.default_rng(0).normal(3, 5, (4, 6, 7, 8)).astype(np.float32)
    y = np.array(layers.normalization(kind, 8, name="n")(x, training=True))
    grouped = y.reshape(4, 6, 7, layers.group_count(8), -1)
    np.testing.assert_allclose(grouped.mean(axes), 0, atol=1e-3)
    np.testing.assert_allclose(grouped.std(axes), 1, atol=1e-2)


def test_batch_normalization_is_synchronized():
    assert layers.normalization("batch", 8, name="n").synchronized


@pytest.mark.parametrize("filters", [1, 2, 3, 7, 12, 16, 48, 100, 2048])
def test_group_counts_divide_the_filters(filters):
    groups = layers.group_count(filters)
    assert filters % groups == 0
    assert 1 <= groups <= 32
    assert groups == 1 or filters // groups >= 4


def test_group_counts_are_as_many_as_the_rule_allows():
    assert [layers.group_count(n) for n in (4, 16, 32, 128, 1024)] == [1, 4, 8, 32, 32]


def test_layer_seeds_differ_by_seed_and_name_and_stay_the_same():
    seeds = {layers.layer_seed(seed, name) for seed in range(20) for name in ("a", "b", "a1")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**31 for seed in seeds)
    # A change here would change every network that a seed has ever named.
    assert layers.layer_seed(0, "enc0_conv1") == 1339831955


def test_no_dropout_is_no_layer():
    assert layers.dropout(0.0, seed=0, name="d") is None


def test_dropouts_state_is_in_the_checkpoint_but_not_among_the_weights(tmp_path):
    drop = layers.dropout(0.5, seed=0, name="d")
    model = keras.Sequential([keras.Input((8,)), drop])
    assert model.count_params() == 0
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    drop(np.ones(3, np.float32), training=True)
    moved = np.array(drop.seed_generator.state)
    tf.train.Checkpoint(model=model).restore(path).assert_consumed()
    restored = np.array(drop.seed_generator.state)
    assert restored[1] == moved[1] - 1


@pytest.mark.parametrize(("scaling", "divisor"), [("unit", 255), ("none", 1)])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_scaled_in_float32_under_any_policy(scaling, divisor, policy, dtype):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Model(*layers.image_input((None, None), 1, scaling=scaling, divisor=1))
    finally:
        keras.config.set_dtype_policy(before)
    images = np.linspace(0, 255, 1000).reshape(1, 10, 100, 1).astype(dtype)
    scaled = model(images)
    assert keras.backend.standardize_dtype(scaled.dtype) == "float32"
    np.testing.assert_allclose(scaled, images.astype(np.float64) / divisor, rtol=1e-6)


def test_the_size_check_speaks_plainly_also_from_within_a_model():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, layers.SizeCheck(8)(inputs))
    assert model(np.zeros((1, 8, 24, 1))).shape == (1, 8, 24, 1)
    with pytest.raises(FlexsegError, match=r"^This network takes images.*height 9.*8 or 16"):
        model(np.zeros((1, 9, 24, 1)))


def test_the_size_check_survives_its_config():
    check = layers.SizeCheck(8, 16, name="c")
    again = layers.SizeCheck.from_config(check.get_config())
    assert (again.divisor, again.minimum, again.name) == (8, 16, "c")
