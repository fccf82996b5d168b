"""Our training step against Keras' `fit`: same network, loss, optimizer, clipping and batch.

Both work on one batch in memory, by turns, a step each, so that what else the machine does falls on
both. Ours does more: confusion matrix, loss from sums, a learning rate for every step. Of `fit`
only the step is timed, from the beginning of a batch to its end. Two cases: the network of the
published lung experiment (8 levels, 16 filters, kernels from 9 x 9, 512 x 512, batch 2), and a
small one (5 levels, 16 filters, 256 x 256, batch 8). Each runs in float32 and in bfloat16, in
processes of their own that take turns, too. Ratios are medians of the ratios of one turn. Prints a
table; asserts nothing.

    PYTHONPATH=. python tests/benchmarks/train_step.py [--cases=small,lung] [--repeats=9]
        [--precisions=float32,mixed_bfloat16]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

sys.path[0] = os.getcwd()  # not this folder, in which a file would pass for a package

CLASSES = 2
# Knobs, side, batch. Without normalization, as published.
CASES = {
    "small": ({"base_filters": 16, "levels": 5}, 256, 8),
    "lung": (
        {
            "base_filters": 16,
            "levels": 8,
            "base_kernel": 9,
            "dropout_rate": 0.04,
            "normalization": "none",
        },
        512,
        2,
    ),
}
CLIP = 0.4  # by value, as published
READY = "ready"


def serve(name: str, precision: str) -> None:
    """Takes one step of ours and one of `fit` for each line read; prints their seconds."""
    import keras
    import numpy as np
    import tensorflow as tf

    from models import registry
    from train import distribution, loop, losses, runs
    from train.experiment import DistributeConfig, OptimizerConfig

    knobs, side, batch = CASES[name]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
    masks = rng.integers(0, CLASSES, (batch, side, side)).astype(np.uint8)
    strategy = distribution.make_strategy(DistributeConfig(strategy="one"))

    def network() -> keras.Model:
        with runs.precision(precision):
            return registry.build("flex_unet", num_classes=CLASSES, size=(side, side), **knobs)

    with strategy.scope():
        model = network()
    config = OptimizerConfig(name="adamw", clip="value", clip_threshold=CLIP, learning_rate=1e-4)
    steps = loop.Steps(
        strategy,
        model,
        losses.parse("ce+dice"),
        config,
        num_classes=CLASSES,
        total_steps=1000,
    )
    data = tf.data.Dataset.from_tensors({"image": images, "mask": masks}).repeat()
    iterator = steps.distribute(data)

    plain = network()

    def ce_and_dice(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        ids = tf.cast(labels, tf.int32)
        ce = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids, logits=logits)
        p, g = tf.nn.softmax(logits)[..., 1], tf.cast(ids, tf.float32)
        dice = (2 * tf.reduce_sum(p * g) + 1) / (tf.reduce_sum(p) + tf.reduce_sum(g) + 1)
        return tf.reduce_mean(ce) + 1 - dice

    plain.compile(keras.optimizers.AdamW(1e-4, weight_decay=1e-4, clipvalue=CLIP), loss=ce_and_dice)

    class Clock(keras.callbacks.Callback):
        began = seconds = 0.0

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.seconds = time.perf_counter() - self.began

    clock = Clock()

    def theirs() -> float:
        plain.fit(
            images, masks, batch_size=batch, epochs=1, verbose=0, shuffle=False, callbacks=[clock]
        )
        return clock.seconds

    def ours() -> float:
        began = time.perf_counter()
        steps.train(iterator, 0, 1)
        return time.perf_counter() - began

    for _ in range(2):  # traces, and makes the memory its own
        ours()
        theirs()
    print(READY, flush=True)
    for _ in sys.stdin:
        print(json.dumps([ours(), theirs()]), flush=True)


class Served:
    """A case in a process of its own."""

    def __init__(self, name: str, precision: str) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.getcwd()}
        command = [sys.executable, __file__, "--serve", name, precision]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, text=True, bufsize=1
        )
        while self.line() != READY:
            pass

    def line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"A case ended early, with status {self.process.wait()}.")
        return line.strip()

    def step(self) -> tuple[float, float]:
        """Seconds of a step of ours, and of one of theirs."""
        assert self.process.stdin
        self.process.stdin.write("step\n")
        ours, theirs = json.loads(self.line())
        return ours, theirs

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="small,lung")
    parser.add_argument("--precisions", default="float32,mixed_bfloat16")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--serve", nargs=2)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    print(f"{'case':<8}{'precision':<16}{'ours':>9}{'fit':>9}{'ratio':>7}")
    precisions = arguments.precisions.split(",")
    for name in arguments.cases.split(","):
        served = [Served(name, precision) for precision in precisions]
        turns = [[each.step() for each in served] for _ in range(arguments.repeats)]
        for each in served:
            each.stop()
        for index, precision in enumerate(precisions):
            ours = statistics.median(turn[index][0] for turn in turns)
            theirs = statistics.median(turn[index][1] for turn in turns)
            ratio = statistics.median(turn[index][0] / turn[index][1] for turn in turns)
            print(
                f"{name:<8}{precision:<16}{ours:>7.3f} s{theirs:>7.3f} s{ratio:>7.2f}", flush=True
            )
        if len(precisions) == 2:
            ratio = statistics.median(second[0] / first[0] for first, second in turns)
            print(f"{name:<8}{'the second over the first':<34}{ratio:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
