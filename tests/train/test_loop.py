"""The steps are what Keras and a GradientTape do by hand, in every precision."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines import batches
from pipelines import manifest as manifests
from tests.train.tiny_steps import VISIBLE, iterator_of, network, some_batches, steps_of, weights_of
from train import distribution, losses, metrics
from train.experiment import DistributeConfig

CLIPPING = {
    "none": {},
    "value": {"clipvalue": 0.003},
    "norm": {"clipnorm": 0.05},
    "global_norm": {"global_clipnorm": 0.03},
}


def expected_rate(step):
    """Two steps of warm-up, then half a cosine; halved by the plateau."""
    warm = 0.05 * (step + 1) / 3
    return (warm if step < 2 else 0.05 * (1 + np.cos(np.pi * (step - 2) / 6)) / 2) * 0.5


def by_hand(name, clipping, data, decay):
    """Keras' own optimizer and loss, clipping included, on the same network."""
    model = network()
    kind = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[name]
    kwargs = {"weight_decay": decay} if name == "adamw" else {}
    optimizer = kind(epsilon=VISIBLE.epsilon, **kwargs, **clipping)
    if name == "adamw":
        biases = [v for v in model.trainable_variables if v.name in ("bias", "beta", "gamma")]
        optimizer.exclude_from_weight_decay(var_list=biases)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    values, logits = [], []
    for step, batch in enumerate(data):
        counts = batch["mask"] != 255
        with tf.GradientTape() as tape:
            logits.append(model(batch["image"], training=True))
            surprise = entropy(np.where(counts, batch["mask"], 0), logits[-1])
            value = tf.reduce_sum(surprise * counts) / counts.sum()
        optimizer.learning_rate = expected_rate(step)
        variables = model.trainable_variables
        gradients = tape.gradient(value, [v.value for v in variables])
        optimizer.apply(gradients, variables)
        values.append(float(value))
    return model, values, logits


@pytest.mark.parametrize(
    ("name", "clip"), [("adamw", "none"), *(("adam", clip) for clip in CLIPPING)]
)
def test_steps_equal_those_of_keras_by_hand(name, clip):
    data, clipping = some_batches(), CLIPPING[clip]
    model, values, logits = by_hand(name, clipping, data, decay=0.1)
    config = dataclasses.replace(
        VISIBLE,
        name=name,
        clip=clip,
        clip_threshold=next(iter(clipping.values()), 1.0),
        weight_decay=0.1,
    )
    steps = steps_of(config)
    steps.plateau.assign(0.5)
    result = steps.train(iterator_of(steps, data), 0, len(data))
    np.testing.assert_allclose(result.losses, values, rtol=1e-5)
    assert result.learning_rate == pytest.approx(expected_rate(2), rel=1e-5)
    found, before = weights_of(steps.model), weights_of(network())
    for path, value in weights_of(model).items():
        np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=2e-6, err_msg=path)
        assert (found[path] != before[path]).any(), path
    truth = np.concatenate([b["mask"].ravel() for b in data])
    guess = np.concatenate([metrics.predicted_ids(z).numpy().ravel() for z in logits])
    np.testing.assert_array_equal(result.confusion, metrics.confusion(truth, guess, 3))


def test_the_kinds_of_clipping_differ_here():
    """Or the test above would not tell them apart."""
    ends = [by_hand("adam", c, some_batches(), 0.0)[0].get_weights() for c in CLIPPING.values()]
    for i, one in enumerate(ends):
        for other in ends[:i]:
            assert max(abs(a - b).max() for a, b in zip(one, other, strict=True)) > 3e-4


def test_steps_in_one_call_are_steps_in_several():
    data = some_batches(4)
    together, apart = (steps_of() for _ in range(2))
    result = together.train(iterator_of(together, data), 0, 4)
    iterator = iterator_of(apart, data)
    parts = [apart.train(iterator, first, n) for first, n in ((0, 1), (1, 2), (3, 1))]
    np.testing.assert_array_equal(result.losses, np.concatenate([p.losses for p in parts]))
    np.testing.assert_array_equal(result.confusion, sum(p.confusion for p in parts))
    for path, value in weights_of(together.model).items():
        np.testing.assert_array_equal(value, weights_of(apart.model)[path], path)


def test_the_share_of_waiting_is_measured():
    steps = steps_of()
    result = steps.train(iterator_of(steps, some_batches()), 0, 3)
    assert 0 < result.waited < 60


def test_the_loss_of_a_split_does_not_depend_on_how_it_is_cut_into_batches(dataset):
    manifest = manifests.load(str(dataset))
    steps = steps_of(loss="ce+dice", normalization="batch")
    found = [
        steps.evaluate(batches.evaluation(manifest, "valid", size, crop))
        for size, crop in ((1, None), (2, None), (3, None), (5, None), (2, (24, 20)))
    ]
    whole = list(batches.evaluation(manifest, "valid", 3).as_numpy_iterator())
    assert len(whole) == 1
    logits = steps.model(whole[0]["image"], training=False)
    loss_of = losses.parse("ce+dice")
    expected = float(loss_of.value(loss_of.sums(logits, whole[0]["mask"])))
    for value, matrix in found[:4]:
        assert value == pytest.approx(expected, rel=1e-5)
        np.testing.assert_array_equal(matrix, found[0][1])
        assert matrix.sum() == 3 * 32 * 32
    assert found[4][1].sum() == 3 * 32 * 32, "every pixel counts once in tiles, too"


def test_mixed_bfloat16_trains_with_float32_weights_and_logits():
    steps = steps_of(policy="mixed_bfloat16")
    model = steps.model
    before = weights_of(model)
    result = steps.train(iterator_of(steps, some_batches()), 0, 3)
    assert np.isfinite(result.losses).all()
    assert model.get_layer("bridge_conv1").compute_dtype == "bfloat16"
    assert model(some_batches(1)[0]["image"]).dtype == tf.float32
    assert {str(v.dtype) for v in model.trainable_variables} == {"float32"}
    assert any((before[p] != v).any() for p, v in weights_of(model).items())
    full = steps_of()
    expected = full.train(iterator_of(full, some_batches()), 0, 3)
    np.testing.assert_allclose(result.losses, expected.losses, rtol=0.05)


def trainable_of(model):
    return [v.numpy() for v in model.trainable_variables]


@pytest.mark.parametrize(
    ("clip", "scale"), [("none", 1e30), ("value", 2.0**19), ("global_norm", 2.0**19)]
)
def test_float16_skips_what_overflows_and_goes_on_with_half_the_scale(clip, scale):
    """Few filters and pixels: float16 is slow on a CPU.

    At 1e30 most gradients are not numbers; at 2**19 some are infinite, and clipping them by value
    would make them look sound.
    """
    config = dataclasses.replace(VISIBLE, clip=clip)
    data = some_batches(3, batch_size=1, size=2)
    how = {"policy": "mixed_float16", "base_filters": 1, "normalization": "none"}
    steps = steps_of(config, options={"loss_scaling": True}, **how)
    model = steps.model
    assert steps.loss_scale == 32768
    iterator = iterator_of(steps, data)
    before = trainable_of(model)
    steps.loss_scale.assign(scale)
    steps.good_steps.assign(7)
    assert np.isfinite(steps.train(iterator, 0, 1).losses).all()
    for old, new in zip(before, trainable_of(model), strict=True):
        np.testing.assert_array_equal(old, new)
    assert steps.loss_scale.numpy() == np.float32(scale / 2)
    assert steps.good_steps == 0
    assert steps.optimizer.iterations == 0

    steps.loss_scale.assign(64.0)
    steps.train(iterator, 1, 1)
    assert any((o != n).any() for o, n in zip(before, trainable_of(model), strict=True))
    assert steps.optimizer.iterations == 1
    assert (steps.loss_scale.numpy(), steps.good_steps.numpy()) == (64.0, 1)

    steps.good_steps.assign(1999)
    steps.train(iterator, 2, 1)
    assert (steps.loss_scale.numpy(), steps.good_steps.numpy()) == (128.0, 0)


def test_the_loss_scale_changes_no_update():
    """float32 all through, so that the scale alone is seen: a power of two is exact."""
    data = some_batches(2)
    plain, scaled = steps_of(), steps_of(options={"loss_scaling": True})
    for steps in (plain, scaled):
        steps.train(iterator_of(steps, data), 0, 2)
    for one, other in zip(trainable_of(plain.model), trainable_of(scaled.model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_several_devices_after_tensorflow_began_are_refused():
    tf.constant(0)
    with pytest.raises(ValueError, match=r"distribute\.cpu_devices comes too late"):
        distribution.make_strategy(DistributeConfig(cpu_devices=2))


@pytest.mark.parametrize(("wanted", "replicas"), [("auto", 1), ("one", 1), ("mirrored", 1)])
def test_one_device_serves_every_strategy(wanted, replicas):
    strategy = distribution.make_strategy(DistributeConfig(strategy=wanted))
    assert strategy.num_replicas_in_sync == replicas
