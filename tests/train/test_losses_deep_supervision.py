"""A network with several outputs learns from all, and is judged by the first."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines.label_map import IGNORE_ID
from train import deep_supervision, distribution, loop, losses, metrics
from train.deep_supervision import DeepSupervision
from train.experiment import DistributeConfig, OptimizerConfig


def value_of(loss, logits, labels):
    return float(loss.value(loss.sums(logits, labels)))


def drawn(count=3):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, IGNORE_ID], (2, 8, 8)).astype(np.uint8)
    return list(rng.normal(0, 2, (count, 2, 8, 8, 3)).astype(np.float32)), labels


@pytest.mark.parametrize("text", ["ce", "0.5*ce+dice", "lovasz+cldice(iterations=1)"])
def test_the_loss_is_the_weighted_mean_of_those_of_the_outputs(text):
    outputs, labels = drawn()
    loss = losses.parse(text)
    one, two, three = (value_of(loss, z, labels) for z in outputs)
    deep = DeepSupervision(loss, deep_supervision.weights_of_outputs(3))
    assert value_of(deep, outputs, labels) == pytest.approx(
        (one + two / 2 + three / 4) / 1.75, rel=1e-6
    )
    deep = DeepSupervision(loss, deep_supervision.weights_of_outputs(3, (2.0, 0.0, 1.0)))
    assert value_of(deep, outputs, labels) == pytest.approx((2 * one + three) / 3, rel=1e-6)


def test_more_than_ten_outputs_are_told_apart():
    outputs, labels = drawn(12)
    weights = tuple(range(1, 13))
    values = [value_of(losses.parse("ce"), z, labels) for z in outputs]
    found = value_of(DeepSupervision(losses.parse("ce"), weights), outputs, labels)
    assert found == pytest.approx(np.average(values, weights=weights), rel=1e-6)


def test_outputs_and_weights_must_be_as_many():
    with pytest.raises(FlexsegError, match="has 2 values, but the network has 3 outputs"):
        deep_supervision.weights_of_outputs(3, (1.0, 0.5))
    with pytest.raises(FlexsegError, match="has 2 values, but the network has 1 output;"):
        deep_supervision.weights_of_outputs(1, (1.0, 0.5))
    with pytest.raises(FlexsegError, match="must have a value above 0"):
        deep_supervision.weights_of_outputs(2, (0.0, 0.0))
    outputs, labels = drawn(2)
    with pytest.raises(ValueError, match="2 outputs for 3 weights"):
        DeepSupervision(losses.parse("ce"), (1.0, 1.0, 1.0)).sums(outputs, labels)


def test_the_main_logits_are_the_first_of_several():
    outputs, _ = drawn()
    assert deep_supervision.main_logits(outputs) is outputs[0]
    assert deep_supervision.main_logits(tuple(outputs)) is outputs[0]
    assert deep_supervision.main_logits(outputs[1]) is outputs[1]


def steps_of(**options):
    """A network of one pixel's view with three outputs."""
    strategy = distribution.make_strategy(DistributeConfig())
    with strategy.scope():
        image = keras.Input([8, 8, 3])
        seeds = [keras.initializers.RandomNormal(0.02, seed=i) for i in range(3)]
        heads = [keras.layers.Conv2D(3, 1, kernel_initializer=s)(image) for s in seeds]
        model = keras.Model(image, heads)
    config = OptimizerConfig(clip="none", schedule="constant", warmup_steps=0)
    loss = losses.parse("ce+dice")
    return loop.Steps(strategy, model, loss, config, num_classes=3, total_steps=1, **options)


def test_steps_learn_from_all_outputs_and_judge_by_the_first():
    rng = np.random.default_rng(1)
    batch = {
        "image": rng.integers(0, 256, (2, 8, 8, 3)).astype(np.float32),
        "mask": drawn()[1],
    }
    dataset = tf.data.Dataset.from_tensors(batch)
    steps = steps_of(output_weights=(1.0, 0.25, 0.5))
    outputs = steps.model(batch["image"])
    loss = losses.parse("ce+dice")
    values = [value_of(loss, z, batch["mask"]) for z in outputs]
    confusion = metrics.confusion(batch["mask"], metrics.predicted_ids(outputs[0]), 3)
    others = [
        metrics.confusion(batch["mask"], metrics.predicted_ids(z), 3).numpy() for z in outputs[1:]
    ]
    assert all((other != confusion.numpy()).any() for other in others)

    value, matrix = steps.evaluate(dataset)
    assert value == pytest.approx(values[0], rel=1e-5)
    np.testing.assert_array_equal(matrix, confusion)

    before = [w.numpy() for w in steps.model.trainable_variables]
    result = steps.train(steps.distribute(dataset), 0, 1)
    assert result.losses[0] == pytest.approx(np.average(values, weights=[1, 0.25, 0.5]), rel=1e-5)
    np.testing.assert_array_equal(result.confusion, confusion)
    for old, new in zip(before, steps.model.trainable_variables, strict=True):
        assert (old != new.numpy()).any(), new.path


def test_steps_refuse_weights_that_do_not_fit_the_network():
    with pytest.raises(FlexsegError, match="deep_supervision_weights has 2 values"):
        steps_of(output_weights=(1.0, 0.5))
