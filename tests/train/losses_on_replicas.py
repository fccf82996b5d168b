"""Not a test: every loss and its gradient on one device and on two, as the training steps do it.

Usage: losses_on_replicas.py RECORD.npz LOSS...
"""

import sys

import numpy as np
import tensorflow as tf

from train import distribution, loop, losses
from train.experiment import DistributeConfig


def drawn():
    """Logits [4, 12, 13, 3] and labels; the second half has another share that counts."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4, 12, 13, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (4, 4, 13)).repeat(3, 1).astype(np.uint8)
    labels[2, :7] = 255
    labels[3] = 255
    labels[1][labels[1] == 2] = 0
    return logits, labels


def main(record, texts):
    """Writes value and gradient of each loss, on one device and on two."""
    strategy = distribution.make_strategy(DistributeConfig(cpu_devices=2))
    assert strategy.num_replicas_in_sync == 2
    logits, labels = drawn()
    parsed = [losses.parse(text) for text in texts]

    def both(inputs, targets, gather):
        results = []
        for loss in parsed:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                value = loss.value(gather(loss.sums(inputs, targets)))
            results += [value, tape.gradient(value, inputs)]
        return results

    def replica():
        first = 2 * tf.distribute.get_replica_context().replica_id_in_sync_group
        mine = (tf.constant(x[first : first + 2]) for x in (logits, labels))
        return both(*mine, loop.over_replicas)

    whole = both(tf.constant(logits), tf.constant(labels), lambda sums: sums)
    parts = [strategy.experimental_local_results(x) for x in strategy.run(replica)]
    found = {}
    for i, text in enumerate(texts):
        found[f"{text}/one/value"] = whole[2 * i]
        found[f"{text}/one/gradient"] = whole[2 * i + 1]
        found[f"{text}/two/value"] = np.stack(parts[2 * i])
        found[f"{text}/two/gradient"] = np.concatenate(parts[2 * i + 1])
    np.savez(record, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
