"""A training step of a network, and the rate that its floor is counted from; no measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

BATCH = 2
CLASSES = 2


def make_step(name: str, size: int, precision: str) -> Callable[[], Any]:
    """A step in one graph: forward, cross-entropy plus Dice, backward and AdamW, batch 2."""
    import keras
    import numpy as np
    import tensorflow as tf

    from models import registry
    from train import losses, runs

    with runs.precision(precision):
        model = registry.build(name, num_classes=CLASSES, size=(size, size))
    loss, optimizer = losses.parse("ce+dice"), keras.optimizers.AdamW(1e-3)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (BATCH, size, size, 3), np.uint8))
    labels = tf.constant(rng.integers(0, CLASSES, (BATCH, size, size)).astype(np.uint8))

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            value = loss.value(loss.sums(tf.cast(logits, tf.float32), labels))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    return step


def products_per_second(side: int = 2048, runs: int = 5) -> float:
    """Multiply-adds a second of a large float32 matrix product; the best of some."""
    import tensorflow as tf

    left, right = tf.random.stateless_normal([2, side, side], [1, 2])
    product = tf.function(tf.matmul)
    product(left, right).numpy()
    best = float("inf")
    for _ in range(runs):
        began = time.perf_counter()
        product(left, right).numpy()
        best = min(best, time.perf_counter() - began)
    return side**3 / best
