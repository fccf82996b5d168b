"""Not a test: steps on a network so small that many of them take no time."""

import numpy as np
import tensorflow as tf

from models import registry
from train import distribution, loop, losses, runs
from train.experiment import DistributeConfig, OptimizerConfig

# Adam divides by the root of the second moment, and so hides how gradients were clipped unless
# epsilon is of their size.
VISIBLE = OptimizerConfig(
    epsilon=0.03, learning_rate=0.05, clip="none", schedule="cosine", warmup_steps=2
)
TOTAL = 8


def network(policy="float32", **knobs):
    with runs.precision(policy):
        return registry.build(
            "flex_unet",
            num_classes=3,
            seed=4,
            **{"base_filters": 2, "levels": 1, "dropout_rate": 0.0, **knobs},
        )


def some_batches(count=3, batch_size=4, size=8, ids=(0, 1, 2, 255)):
    rng = np.random.default_rng(0)
    return [
        {
            "image": rng.integers(0, 256, (batch_size, size, size, 3)).astype(np.uint8),
            "mask": rng.choice(ids, (batch_size, size, size)).astype(np.uint8),
        }
        for _ in range(count)
    ]


def steps_of(config=VISIBLE, loss="ce", cpu_devices=1, options=None, **how):
    """Steps on a network of `how`, with `options` for the steps."""
    strategy = distribution.make_strategy(DistributeConfig(cpu_devices=cpu_devices))
    with strategy.scope():
        model = network(**how)
    return loop.Steps(
        strategy,
        model,
        losses.parse(loss),
        config,
        num_classes=3,
        total_steps=TOTAL,
        **(options or {}),
    )


def iterator_of(steps, data):
    spec = {
        "image": tf.TensorSpec([*data[0]["image"].shape], tf.uint8),
        "mask": tf.TensorSpec([*data[0]["mask"].shape], tf.uint8),
    }
    dataset = tf.data.Dataset.from_generator(lambda: iter(data), output_signature=spec)
    return steps.distribute(dataset)


def weights_of(model):
    return {v.path: v.numpy() for v in model.weights}


def joined(data, count):
    """Batches of `count` batches each."""
    groups = [data[i : i + count] for i in range(0, len(data), count)]
    return [{k: np.concatenate([b[k] for b in group]) for k in data[0]} for group in groups]
