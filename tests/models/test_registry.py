"""The contract of every architecture: what `build` promises, held for all of them."""

import dataclasses
import inspect
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry

# What makes each architecture small enough to build in a moment, with dropout in it.
SMALL = {"flex_unet": {"base_filters": 4, "levels": 3, "dropout_rate": 0.2}}

every_architecture = pytest.mark.parametrize("name", sorted(registry.ARCHITECTURES))


def small(name, **keywords):
    return registry.build(name, **{"num_classes": 2, **SMALL[name], **keywords})


def images_of(size=(16, 24), channels=3, count=2):
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (count, *size, channels), dtype=np.uint8)


def values_of(model):
    return {variable.path: np.array(variable) for variable in model.weights}


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_importing_the_registry_loads_no_framework():
    program = (
        "import sys, models.registry as r; r.configure('flex_unet', levels=3);"
        "sys.exit(' '.join({'keras', 'tensorflow', 'numpy'} & set(sys.modules)) or None)"
    )
    root = pathlib.Path(inspect.getfile(registry)).parents[1]
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=root, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


@every_architecture
def test_every_knob_is_documented_and_every_line_is_one_line(name):
    architecture = registry.ARCHITECTURES[name]
    assert architecture.name == name
    assert architecture.summary
    assert "\n" not in architecture.summary
    for field in dataclasses.fields(architecture.config):
        doc = field.metadata.get("doc", "")
        assert len(doc) > 10, field.name
        assert doc.endswith("."), field.name
        assert field.default is not dataclasses.MISSING, field.name


@every_architecture
def test_configs_are_frozen_and_hashable(name):
    config = registry.configure(name)
    assert config == registry.configure(name)
    assert hash(config) == hash(registry.configure(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.levels = 3


def test_an_unknown_architecture_is_refused_with_the_nearest():
    with pytest.raises(FlexsegError, match=r'"flexunet" is unknown.*Did you mean "flex_unet"'):
        registry.build("flexunet", num_classes=2)


def test_an_unknown_knob_is_refused_with_the_nearest():
    with pytest.raises(FlexsegError, match=r'no knob "base_filter".*Did you mean "base_filters"'):
        registry.build("flex_unet", num_classes=2, base_filter=8)


def test_a_config_of_another_kind_is_refused():
    with pytest.raises(FlexsegError, match=r"FlexUNetConfig, not by dict"):
        registry.configure("flex_unet", {"levels": 3})


def test_knobs_go_over_the_config_and_lists_become_tuples():
    config = registry.configure("flex_unet", levels=2, base_filters=8)
    config = registry.configure("flex_unet", config, kernels=[5, 3])
    assert (config.levels, config.base_filters, config.kernels) == (2, 8, (5, 3))


@pytest.mark.parametrize("wrong", [{"num_classes": 0}, {"channels": 0}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(FlexsegError, match=f"{next(iter(wrong))} must be at least 1"):
        small("flex_unet", **wrong)


@every_architecture
@pytest.mark.parametrize("num_classes", [1, 2, 6])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_become_float32_logits_of_their_size(name, num_classes, channels):
    model = small(name, num_classes=num_classes, channels=channels)
    divisor = registry.size_divisor(name, registry.configure(name, **SMALL[name]))
    size = (3 * divisor, 5 * divisor)
    logits = model(images_of(size, channels))
    assert logits.shape == (2, *size, num_classes)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


@every_architecture
def test_a_fixed_size_is_the_models_own(name):
    model = small(name, size=(16, 24))
    assert model.input_shape == (None, 16, 24, 3)
    assert model.output_shape == (None, 16, 24, 2)


@every_architecture
def test_a_size_that_does_not_fit_is_told_plainly(name):
    config = registry.configure(name, **SMALL[name])
    wrong = 5 * registry.size_divisor(name, config) + 1
    with pytest.raises(FlexsegError, match=f"width {wrong}"):
        small(name, size=(None, wrong))
    with pytest.raises(FlexsegError, match=f"width {wrong}") as error:
        small(name)(images_of((16, wrong)))
    assert "Arguments received" not in str(error.value)


@every_architecture
def test_unknown_sizes_pass_inside_a_graph(name):
    model = small(name)
    graph = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    np.testing.assert_allclose(graph(images_of()), model(images_of()), atol=1e-5)


@every_architecture
def test_uint8_and_float_images_agree(name):
    model, images = small(name), images_of()
    expected = model(images)
    for dtype in (np.float32, np.float64, np.int32):
        np.testing.assert_allclose(model(images.astype(dtype)), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)


@every_architecture
def test_the_seed_alone_decides_the_weights(name):
    keras.utils.set_random_seed(1)
    first = values_of(small(name, seed=3))
    keras.utils.set_random_seed(2)
    again, other = values_of(small(name, seed=3)), values_of(small(name, seed=4))
    kernels = [path for path in first if path.endswith("/kernel")]
    assert kernels
    for path, value in first.items():
        np.testing.assert_array_equal(value, again[path])
    for path in kernels:
        assert not np.array_equal(first[path], other[path]), path


@every_architecture
def test_no_two_layers_start_alike(name):
    kernels = [v.ravel() for path, v in values_of(small(name)).items() if path.endswith("/kernel")]
    # Layers of one shape and one seed would be equal; of two shapes, equal up to scale.
    starts = [tuple(np.sign(kernel[:24])) for kernel in kernels]
    assert len(set(starts)) == len(starts)


@every_architecture
def test_the_gradient_reaches_every_weight(name):
    model, images = small(name), images_of(count=4)
    targets = np.random.default_rng(0).normal(size=(4, 16, 24, 2)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(images, training=True) - targets) ** 2)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.abs(gradient).max() > 1e-6, weight.path


@every_architecture
def test_a_keras_file_gives_the_same_logits_back(name, tmp_path):
    model, images = small(name), images_of()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    with pytest.raises(FlexsegError, match="multiples of"):
        loaded(images_of((16, 17)))


@every_architecture
def test_a_checkpoint_brings_weights_and_dropout_back(name, tmp_path):
    model, images = small(name, seed=1), images_of()
    model(images, training=True)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    expected = [np.array(model(images, training=True)) for _ in range(2)]
    assert not np.allclose(*expected), "dropout draws anew at every call"

    other = small(name, seed=2)
    tf.train.Checkpoint(model=other).restore(path).assert_existing_objects_matched()
    for logits in expected:
        np.testing.assert_allclose(other(images, training=True), logits, atol=1e-5)


@every_architecture
def test_dropout_is_reproducible_and_differs_between_layers(name):
    one, two = small(name, seed=1), small(name, seed=1)
    images = images_of()
    np.testing.assert_array_equal(one(images, training=True), two(images, training=True))
    drops = [layer for layer in one.layers if isinstance(layer, keras.layers.Dropout)]
    masks = {tuple(np.array(drop(np.ones(64, np.float32), training=True))) for drop in drops}
    assert len(masks) == len(drops) > 1


@every_architecture
def test_mixed_precision_is_close_and_ends_in_float32(name, mixed_precision):
    mixed = small(name, num_classes=4, dropout_rate=0.0)
    keras.config.set_dtype_policy("float32")
    full = small(name, num_classes=4, dropout_rate=0.0)
    images = images_of()
    logits, expected = mixed(images), np.array(full(images))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.abs(logits - expected).mean() < 0.02 * expected.std()
    assert not np.array_equal(logits, expected), "the policy took hold"
