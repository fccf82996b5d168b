"""Every optimizer's update is its formula's, and the right weights decay."""

import dataclasses
import importlib.util
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from models import registry
from train import clipping, optimizers
from train.experiment import OptimizerConfig

STEPS = 5
SHAPES = {"kernel": (3, 4), "bias": (4,)}


def config_of(name, **keys):
    given = {"learning_rate": 0.05, "weight_decay": 0.2, "beta_1": 0.8, "epsilon": 1e-3}
    return OptimizerConfig(name=name, **{**given, **keys})


def gradients(scale=1.0):
    """Of each step, by variable; a step of exact zeros among them."""
    rng = np.random.default_rng(1)
    drawn = [{k: rng.normal(0, scale, s) for k, s in SHAPES.items()} for _ in range(STEPS)]
    drawn[3] = {k: np.zeros(s) for k, s in SHAPES.items()}
    return drawn


def clipped(found, kind, limit):
    """The formulas of clipping, in float64."""
    if kind == "value":
        return {k: np.clip(g, -limit, limit) for k, g in found.items()}
    if kind == "none":
        return found
    norms = {k: np.sqrt((g**2).sum()) for k, g in found.items()}
    if kind == "global_norm":
        norms = dict.fromkeys(found, np.sqrt(sum(n**2 for n in norms.values())))
    return {k: g * limit / max(norms[k], limit) for k, g in found.items()}


def by_hand(config, start, all_gradients, rates):
    """The papers' formulas, in float64, with decoupled decay of the kernel."""
    b1, e = config.beta_1, config.epsilon
    b2 = config.beta_2 or (0.99 if config.name == "lion" else 0.999)
    weights = {k: v.astype(np.float64) for k, v in start.items()}
    first = {k: np.zeros(v.shape) for k, v in start.items()}
    second = {k: np.zeros(v.shape) for k, v in start.items()}
    for t, (found, rate) in enumerate(zip(all_gradients, rates, strict=True), start=1):
        for k, g in clipped(found, config.clip, config.clip_threshold).items():
            if k == "kernel" and config.name != "adam":
                weights[k] = weights[k] - rate * config.weight_decay * weights[k]
            if config.name == "sgd":
                first[k] = b1 * first[k] - rate * g
                weights[k] = weights[k] + b1 * first[k] - rate * g
            elif config.name == "lion":
                weights[k] = weights[k] - rate * np.sign(b1 * first[k] + (1 - b1) * g)
                first[k] = b2 * first[k] + (1 - b2) * g
            else:
                first[k] = b1 * first[k] + (1 - b1) * g
                second[k] = b2 * second[k] + (1 - b2) * g**2
                # Kingma & Ba 2015, section 2: epsilon beside the uncorrected second moment.
                step = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
                weights[k] = weights[k] - step * first[k] / (np.sqrt(second[k]) + e)
    return weights


def variables(start):
    import keras

    return [keras.Variable(v, name=k, dtype="float32") for k, v in start.items()]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion"])
@pytest.mark.parametrize("clip", ["none", "value", "norm", "global_norm"])
def test_five_updates_are_those_of_the_formula(name, clip):
    """The rate changes from step to step, as under a schedule; limits lie amid the gradients."""
    config = config_of(name, clip=clip, clip_threshold={"value": 0.5}.get(clip, 2.5))
    rng = np.random.default_rng(0)
    start = {k: rng.normal(0, 1, s).astype(np.float32) for k, s in SHAPES.items()}
    rates = [0.05, 0.1, 0.02, 0.04, 0.03]
    expected = by_hand(config, start, gradients(), rates)
    for key, value, matters in (  # or the test would not see it
        ("clip", "none", clip != "none" and name != "lion"),  # of which lion takes the sign
        ("weight_decay", 0.0, name != "adam"),
        ("beta_2", 0.9, name != "sgd"),
    ):
        other = by_hand(dataclasses.replace(config, **{key: value}), start, gradients(), rates)
        differs = max(abs(expected[k] - other[k]).max() for k in SHAPES) > 1e-3
        assert differs == matters or name == "lion", key

    kept = variables(start)
    optimizer = optimizers.make_optimizer(config, kept)

    @tf.function
    def update(values):
        optimizer.apply(clipping.clip(values, config.clip, config.clip_threshold), kept)

    for found, rate in zip(gradients(), rates, strict=True):
        optimizer.learning_rate.assign(rate)
        update([tf.constant(found[v.name], tf.float32) for v in kept])
    for variable in kept:
        np.testing.assert_allclose(
            variable.numpy(), expected[variable.name], rtol=2e-5, atol=2e-6, err_msg=variable.name
        )
    assert optimizer.iterations == STEPS


@pytest.mark.parametrize("clip", ["value", "norm", "global_norm"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 0.0])
def test_clipping_is_its_formula(clip, scale):
    found = {k: g * scale for k, g in gradients()[0].items()}
    expected = clipped(found, clip, 0.7)
    values = [tf.constant(g, tf.float32) for g in found.values()]
    for value, wanted in zip(clipping.clip(values, clip, 0.7), expected.values(), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5)


def test_a_momentum_of_zero_is_plain_descent():
    kept = variables({"kernel": np.ones((2, 2), np.float32)})
    optimizer = optimizers.make_optimizer(config_of("sgd", beta_1=0.0, weight_decay=0.0), kept)
    optimizer.apply([tf.fill([2, 2], 2.0)], kept)
    np.testing.assert_allclose(kept[0].numpy(), 0.9, rtol=1e-6)


# ---- What decays ---------------------------------------------------------------------------------


def cases_of_the_contract():
    """The tiny network of each architecture that the tests of models/ build."""
    path = pathlib.Path(__file__).parents[1] / "models" / "test_contract.py"
    spec = importlib.util.spec_from_file_location("contract_of_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


def kernels_of_layers(model):
    """What layers have as their attribute `kernel`, frozen ones left out, by path."""
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "kernel")]
    assert layers
    return {layer.kernel.path for layer in layers if layer.kernel.trainable}


@pytest.mark.parametrize("name", sorted(registry.ARCHITECTURES))
def test_exactly_the_kernels_of_every_network_decay(name):
    """With gradients of zero, nothing but decay moves a weight."""
    case = cases_of_the_contract()[name]
    size = case.size if case.fixed else (None, None)
    model = registry.build(name, num_classes=2, size=size, **case.knobs)
    for variable in model.trainable_variables:
        variable.assign(tf.ones(variable.shape))
    config = OptimizerConfig(name="adamw", learning_rate=0.5, weight_decay=0.5)
    optimizer = optimizers.make_optimizer(config, model.trainable_variables)
    zeros = [tf.zeros(v.shape) for v in model.trainable_variables]
    tf.function(lambda: optimizer.apply(zeros, model.trainable_variables))()
    moved = {v.path for v in model.trainable_variables if (v.numpy() != 1).any()}
    whole = {v.path for v in model.trainable_variables if np.allclose(v.numpy(), 0.75)}
    assert moved == whole == kernels_of_layers(model)
    still = {v.path.rsplit("/", 1)[-1] for v in model.trainable_variables} - {"kernel"}
    assert still <= {"bias", "gamma", "beta", "position_biases", "positions"}
