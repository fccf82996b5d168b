"""The contract of every architecture: what `registry.build` promises, held for all of them.

One network per architecture is built and shared; a test that changes its weights gets it through
`network`, which puts them back as they were first. To add an architecture, add its line to `CASES`.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from models import registry

ROOT = pathlib.Path(registry.__file__).parents[1]
SIDE = 64  # of the images that a network must learn by heart, in pixels
SEED = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """How an architecture is tested.

    Attributes:
      knobs: what makes it small enough to build in a second or two, with dropout in it where it
        can have some.
      size: (height, width) in pixels of the images that go through it; sizes that fit, unequal.
      fixed: whether it can only be built for one size.
      steps: within how many steps it must have learned two images by heart.
      rate: the learning rate of Adam with which it does.
      mixed: largest mean difference of the logits under mixed_bfloat16, in their deviations.
    """

    knobs: dict[str, Any]
    size: tuple[int, int] = (32, 48)
    fixed: bool = False
    steps: int = 100
    rate: float = 0.01
    mixed: float = 0.02


CASES = {
    "attention_unet": Case({"base_filters": 4, "levels": 3, "dropout_rate": 0.2}, size=(16, 24)),
    "flex_unet": Case({"base_filters": 4, "levels": 3, "dropout_rate": 0.2}, size=(16, 24)),
    "efficient_unet": Case({"width": 0.25, "depth": 0.2, "dropout_rate": 0.1}, size=(32, 64)),
    "efficientnet_b7_unet": Case(
        {
            "width": 0.12,
            "depth": 0.1,
            "frozen_stages": 6,
            "decoder_filters": (16, 16, 8, 8, 8),
            "dropout_rate": 0.1,
        },
        size=(32, 64),
    ),
    "deeplab_v3_plus": Case(
        {
            "width": 0.125,
            "depth": 0.3,
            "aspp_filters": 16,
            "aspp_rates": (1, 2),
            "low_filters": 8,
            "dropout_rate": 0.1,
        },
    ),
    "segformer": Case(
        {
            "widths": (8, 8, 16, 16),
            "depths": (1, 1, 1, 1),
            "heads": (1, 2, 2, 4),
            "decoder_width": 16,
        },
        size=(32, 64),
    ),
    "swin_unet": Case(
        {
            "width": 12,
            "patch": 2,
            "depths": (2, 1),
            "heads": (2, 2),
            "windows": (4, 4),
            "stochastic_depth": 0.0,
            "dropout_rate": 0.01,
        },
        size=(20, 28),
        rate=0.003,
    ),
    "trans_unet": Case(
        {
            "blocks": (1, 1, 1),
            "backbone_width": 0.125,
            "embed_width": 16,
            "layers": 1,
            "heads": 2,
            "mlp_width": 32,
            "position_grid": 3,
            "bridge_filters": 16,
            "decoder_filters": (16, 16, 8, 8),
        },
        rate=0.003,
    ),
    "residual_unet": Case(
        {"base_filters": 8, "levels": 3, "blocks": (1, 2, 1), "dropout_rate": 0.1}, size=(16, 24)
    ),
    "multires_unet": Case({"base_filters": 4, "levels": 3, "paths": [1, 0]}, size=(16, 24)),
    "sharp_unet": Case({"base_filters": 8, "levels": 3, "dropout_rate": 0.1}, size=(16, 24)),
    "u2net": Case({"base_filters": 4, "levels": 1}, size=(16, 24)),
    "unet3_plus": Case({"base_filters": 4, "levels": 3, "dropout_rate": 0.1}, size=(16, 24)),
}

every_architecture = pytest.mark.parametrize("name", sorted(registry.ARCHITECTURES))


def build(name, **keywords):
    case = CASES[name]
    if case.fixed:
        keywords = {"size": case.size, **keywords}
    return registry.build(name, **{"num_classes": 2, "seed": SEED, **case.knobs, **keywords})


def values_of(model):
    return {variable.path: np.array(variable) for variable in model.weights}


class Network(NamedTuple):
    """A network, and the values it started from by the paths of its variables."""

    model: keras.Model
    start: dict[str, np.ndarray]


@functools.cache
def shared(name):
    model = build(name)
    return Network(model, values_of(model))


@pytest.fixture
def network(name):
    """The architecture's shared network with the weights that it started from."""
    model, start = shared(name)
    for variable in model.weights:
        variable.assign(start[variable.path])
    return model


@pytest.fixture
def images(name):
    return images_of(CASES[name].size)


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def images_of(size, channels=3, count=2):
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (count, *size, channels), dtype=np.uint8)


def has(name, knob):
    return knob in {field.name for field in dataclasses.fields(registry.find(name).config)}


def main_head(outputs):
    return outputs[0] if isinstance(outputs, list) else outputs


def test_every_architecture_is_held_to_the_contract():
    assert set(CASES) == set(registry.ARCHITECTURES)


@every_architecture
def test_every_knob_is_documented_and_every_summary_is_one_line(name):
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
    first = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, first, getattr(config, first))


@every_architecture
def test_importing_and_configuring_loads_no_framework(name):
    # One process for all would be quicker, and would not say who is to blame.
    assert "keras" not in top_level_imports(registry.find(name).config.__module__)


def top_level_imports(module):
    path = ROOT / (module.replace(".", "/") + ".py")
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
            found |= {alias.name for alias in node.names if node.module == "models"}
    return found - {"models"} | ({"keras"} if "layers" in found else set())


@every_architecture
def test_images_become_float32_logits_of_their_size(name, network, images):
    logits = network(images)
    assert logits.shape == (*images.shape[:3], 2)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.isfinite(logits).all()
    assert np.std(logits) > 0


@every_architecture
@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (5, 6)])
def test_any_number_of_channels_and_classes(name, channels, classes):
    # Six classes with every head that the network has, one class with the main one alone.
    deep = {"deep_supervision": classes > 1} if has(name, "deep_supervision") else {}
    case = CASES[name]
    model = build(name, channels=channels, num_classes=classes, seed=SEED + 1, **deep)
    outputs = model(images_of(case.size, channels))
    if deep.get("deep_supervision"):
        assert isinstance(outputs, list)
        assert len(outputs) > 1
    heads = outputs if isinstance(outputs, list) else [outputs]
    for logits in heads:
        assert logits.shape == (2, *case.size, classes)
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert isinstance(model.output, list) == isinstance(outputs, list)

    # Another seed, so every kernel is another; those of one shape can be compared.
    start = shared(name).start
    kernels = {p: v for p, v in values_of(model).items() if p.endswith("/kernel")}
    alike = {p: v for p, v in kernels.items() if p in start and start[p].shape == v.shape}
    assert len(alike) > len(kernels) / 3
    for path, value in alike.items():
        assert not np.array_equal(value, start[path]), path


@every_architecture
def test_layers_have_names_of_their_own_and_speak(name):
    model = shared(name).model
    paths = [variable.path for variable in model.weights]
    assert len(set(paths)) == len(paths)
    # Keras names what was left without a name after its class: conv2d, conv2d_1, conv2d_2.
    for operation in model.operations:
        if type(operation).__module__.startswith("keras."):
            name = re.sub(r"_\d+$", "", operation.name).replace("_", "")
            assert name != type(operation).__name__.lower(), operation.name


@every_architecture
def test_a_fixed_size_is_the_models_own(name):
    size = CASES[name].size
    model = shared(name).model if CASES[name].fixed else build(name, size=size)
    assert model.input_shape == (None, *size, 3)
    assert model.output_shape == (None, *size, 2)


@every_architecture
def test_a_size_that_does_not_fit_is_told_plainly(name, network):
    case = CASES[name]
    config = registry.configure(name, **case.knobs)
    if config.size_divisor == 1:
        wrong = config.size_minimum - 1
        if wrong < 1:
            return  # every size fits
    else:
        wrong = 5 * config.size_divisor + 1
    with pytest.raises(FlexsegError, match=f"width {wrong}"):
        build(name, size=(case.size[0], wrong))
    if case.fixed:
        return
    with pytest.raises(FlexsegError, match=f"width {wrong}") as error:
        network(images_of((case.size[0], wrong)))
    assert "Arguments received" not in str(error.value)


@every_architecture
def test_the_least_size_goes_through(name):
    case = CASES[name]
    config = registry.configure(name, **case.knobs)
    least = -(-config.size_minimum // config.size_divisor) * config.size_divisor
    if case.fixed or least >= min(case.size):
        return  # built for a size; or seen already
    assert shared(name).model(images_of((least, least))).shape == (2, least, least, 2)


@every_architecture
def test_uint8_and_float_images_agree(name, network, images):
    expected = network(images)
    for dtype in (np.float32, np.int32):
        np.testing.assert_allclose(network(images.astype(dtype)), expected, atol=1e-6)


@every_architecture
def test_no_two_layers_start_alike(name):
    start = shared(name).start
    kernels = [value.ravel() for path, value in start.items() if path.endswith("/kernel")]
    # Layers of one shape and one seed would be equal; of two shapes, equal up to scale.
    starts = [tuple(np.sign(kernel[:24])) for kernel in kernels if kernel.size >= 24]
    assert len(set(starts)) == len(starts) > 1


@every_architecture
def test_the_gradient_reaches_every_weight(name, network):
    images = images_of(CASES[name].size, count=4)
    shape = (*images.shape[:3], 2)
    targets = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((network(images, training=True) - targets) ** 2)
    gradients = tape.gradient(loss, [w.value for w in network.trainable_weights])
    for weight, gradient in zip(network.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.abs(gradient).max() > 1e-7, weight.path


@every_architecture
def test_batch_normalization_does_not_depend_on_the_number_of_replicas(name):
    norms = [
        layer
        for layer in shared(name).model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert all(layer.synchronized for layer in norms)


@every_architecture
def test_a_keras_file_gives_the_same_logits_back(name, network, images, tmp_path):
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")  # in safe mode: no Lambda passes
    np.testing.assert_array_equal(loaded(images), network(images))


@pytest.mark.slow
@every_architecture
def test_a_saved_model_gives_the_same_logits_back(name, network, images, tmp_path):
    """Also that sizes may be unknown while a graph is traced."""
    size = network.input_shape[1:3]
    signature = [tf.TensorSpec([None, *size, 3], tf.uint8)]
    serve = tf.function(network, input_signature=signature, autograph=False)
    module = tf.Module()
    module.serve = serve
    module.values = [weight.value for weight in network.weights]  # quicker than all of its layers
    tf.saved_model.save(module, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    expected = np.array(network(images))
    np.testing.assert_allclose(loaded.serve(images), expected, atol=1e-4 * expected.std())


@every_architecture
def test_a_checkpoint_brings_weights_and_dropout_back(name, network, images, tmp_path):
    checkpoint = tf.train.Checkpoint(model=network)
    path = checkpoint.write(tmp_path / "checkpoint")
    expected = [np.array(network(images, training=True)) for _ in range(2)]
    random = any(getattr(layer, "rate", 0) for layer in network._flatten_layers())
    assert np.allclose(*expected) != random, "dropout draws anew at every call"

    for variable in network.weights:
        variable.assign(np.zeros(variable.shape))
    checkpoint.read(path).assert_existing_objects_matched()
    for logits in expected:
        scale = np.std(logits)
        np.testing.assert_allclose(network(images, training=True), logits, atol=1e-3 * scale)


@every_architecture
def test_the_seed_decides_and_mixed_precision_is_close(name, network, images, mixed_precision):
    mixed = build(name)
    for path, value in values_of(mixed).items():
        assert value.dtype == np.float32, path
        np.testing.assert_array_equal(value, shared(name).start[path], err_msg=path)
    logits, expected = mixed(images), np.array(network(images))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.abs(logits - expected).mean() < CASES[name].mixed * expected.std()
    assert not np.array_equal(logits, expected), "the policy took hold"


def discs():
    """Two images of noise [2, SIDE, SIDE, 3] with a disc of other noise, and where it is."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:SIDE, :SIDE]
    centres = np.array([[24, 22], [38, 45]])[:, :, None, None]
    masks = np.hypot(y - centres[:, 0], x - centres[:, 1]) < 15
    noise = rng.normal(100, 30, (2, SIDE, SIDE, 3))
    noise[masks] += (60, -30, 20)
    return np.clip(noise, 0, 255).astype(np.uint8), masks


class Adam:
    """Kingma and Ba 2015, by TensorFlow's kernel: tracing Keras' optimizer takes seconds."""

    def __init__(self, variables, rate):
        self.variables, self.rate, self.count = variables, rate, 0
        self.means = [tf.Variable(tf.zeros_like(v)) for v in variables]
        self.squares = [tf.Variable(tf.zeros_like(v)) for v in variables]

    def apply(self, gradients):
        self.count += 1
        state = zip(self.variables, self.means, self.squares, gradients, strict=True)
        for variable, mean, square, gradient in state:
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=mean.handle,
                v=square.handle,
                beta1_power=0.9**self.count,
                beta2_power=0.999**self.count,
                lr=self.rate,
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-7,
                grad=gradient,
            )


@pytest.mark.slow
@every_architecture
def test_two_images_are_learned_by_heart(name, request):
    case = CASES[name]
    if case.fixed:
        model = build(name, size=(SIDE, SIDE))
    else:
        model = request.getfixturevalue("network")
    images, masks = discs()
    labels = tf.constant(masks.astype(np.int32))
    variables = [weight.value for weight in model.trainable_weights]
    optimizer = Adam(variables, case.rate)

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            logits = main_head(model(images, training=True))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        return tape.gradient(loss, variables)

    dice = 0.0
    with quick_moments(model):
        for count in range(1, case.steps + 1):
            optimizer.apply(gradients())
            if count % 10 == 0 or count == case.steps:
                predicted = np.argmax(model(images), -1) == 1
                dice = 2 * (predicted & masks).sum() / (predicted.sum() + masks.sum())
                if dice > 0.95:
                    return
    pytest.fail(f"Dice {dice:.3f} after {case.steps} steps")


@contextlib.contextmanager
def quick_moments(model):
    """Lets moving moments follow within a few steps, as a test that trains for few needs."""
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.5
    yield
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum


UNDER_JAX = ("flex_unet", "segformer")  # always; the others in `make test-all`
JAX = """
import json, sys, keras, numpy as np
from models import registry
assert keras.backend.backend() == "jax"
plan = json.load(open(sys.argv[1] + "/plan.json"))
for name, case in plan.items():
    try:
        folder = sys.argv[1] + "/" + name
        model = registry.build(name, **case)
        model.load_weights(folder + ".weights.h5")
        np.save(folder + ".npy", np.array(model(np.load(folder + ".images.npy"))))
    except Exception as error:
        open(folder + ".error", "w").write(repr(error))
"""


@pytest.fixture(scope="module")
def under_jax(request, tmp_path_factory):
    """What the networks asked for compute under JAX from the weights that they have here."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    folder = tmp_path_factory.mktemp("jax")
    plan = {}
    asked = [i for i in request.session.items if "under_jax" in getattr(i, "fixturenames", ())]
    for name in {item.callspec.params["name"] for item in asked}:
        case = CASES[name]
        size = case.size if case.fixed else (None, None)
        plan[name] = {"num_classes": 2, "seed": SEED + 2, "size": size, **case.knobs}
        model = shared(name).model
        model.save_weights(folder / f"{name}.weights.h5")
        np.save(folder / f"{name}.images.npy", images_of(case.size))
        np.save(folder / f"{name}.expected.npy", model(images_of(case.size)))
    (folder / "plan.json").write_text(json.dumps(plan))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", JAX, str(folder)], env=environment, check=True)
    return folder


@pytest.mark.parametrize(
    "name",
    [n if n in UNDER_JAX else pytest.param(n, marks=pytest.mark.long) for n in CASES],
)
def test_the_network_computes_the_same_under_jax(name, under_jax):
    error = under_jax / f"{name}.error"
    assert not error.exists(), error.read_text()
    expected = np.load(under_jax / f"{name}.expected.npy")
    logits = np.load(under_jax / f"{name}.npy")
    np.testing.assert_allclose(logits, expected, atol=1e-3 * expected.std())
