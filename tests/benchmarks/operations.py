"""Where a training step of a network goes: products of matrices, or what only reads and writes.

Profiles two steps (forward, cross-entropy plus Dice, backward, AdamW; batch 2) and adds up the time
of the operations by kind. The floor is 3 x multiply-adds x batch over the rate of large float32
matrix products in the same process; beside it stands by how much the products alone exceed it.
Prints a table; asserts nothing.

    PYTHONPATH=. python tests/benchmarks/operations.py [--names=u2net,segformer] [--size=256]
"""

from __future__ import annotations

import argparse
import collections
import glob
import os
import re
import sys
import tempfile
import time

sys.path[0] = os.getcwd()  # not this folder, in which models.py would pass for the package

BATCH = 2
KINDS = (
    ("depthwise", re.compile("Depthwise")),
    ("products", re.compile("Conv2D|MatMul|Einsum")),
    ("sums", re.compile(r"^(Sum|Mean|AddN|BiasAddGrad|Max|Min|Prod)$")),
    ("copies", re.compile("Slice|Concat|Transpose|Tile|Pad|Resize|Gather|Reshape|Pack|Split|Cast")),
)


def profile(name: str, size: int) -> collections.Counter[str]:
    """Seconds of a step's operations, by kind; and the floor under "floor"."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    step, multiply_adds = _step(name, size)
    floor = 3 * BATCH * multiply_adds / _products_per_second()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(2):
            step().numpy()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        path = glob.glob(f"{folder}/plugins/profile/*/*.xplane.pb")[0]
        with open(path, "rb") as file:
            space.ParseFromString(file.read())
    seconds: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        names = {k: v.name for k, v in plane.event_metadata.items()}
        for event in (e for line in plane.lines for e in line.events):
            # An operation's event reads "name:Operation"; the executor's own have no name or no
            # colon, and some span many operations.
            text = names[event.metadata_id]
            owner, _, operation = text.rpartition(":")
            if "CPU" in plane.name and owner and not re.search("Run|Process|Execut|infer", text):
                kind = next((k for k, p in KINDS if p.search(operation)), "element by element")
                seconds[kind] += event.duration_ps / 2e12
    seconds["floor"] = floor
    return seconds


def _step(name: str, size: int):
    import keras
    import numpy as np
    import tensorflow as tf

    from export import network_text
    from models import registry
    from train import losses

    model = registry.build(name, num_classes=2, size=(size, size))
    loss, optimizer = losses.parse("ce+dice"), keras.optimizers.AdamW(1e-3)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (BATCH, size, size, 3), np.uint8))
    labels = tf.constant(rng.integers(0, 2, (BATCH, size, size)).astype(np.uint8))

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss.value(loss.sums(model(images, training=True), labels))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    for _ in range(2):
        step().numpy()
    return step, network_text.describe(name, num_classes=2, size=(size, size)).multiply_adds


def _products_per_second(side: int = 2048, runs: int = 5) -> float:
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", default="")
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from models import registry

    kinds = [kind for kind, _ in KINDS[::-1]] + ["element by element"]
    print(f"{'network':<22}{'operations':>11}" + "".join(f"{k:>20}" for k in kinds))
    for name in arguments.names.split(",") if arguments.names else registry.ARCHITECTURES:
        seconds = profile(name, arguments.size)
        floor = seconds.pop("floor")
        total = sum(seconds.values())
        row = f"{name:<22}{total:>9.2f} s" + "".join(f"{seconds[k] / total:>20.0%}" for k in kinds)
        products = seconds["products"] + seconds["depthwise"]
        print(f"{row}   products {products / floor:.1f}x the floor", flush=True)


if __name__ == "__main__":
    main()
