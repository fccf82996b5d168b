"""Not a test: runs `flexseg` in a process of its own and writes down what its steps returned.

Usage: recorded_run.py RECORD.npz FLEXSEG_ARGUMENTS...
"""

import sys

import numpy as np

import flexseg
from train import loop


def main(record, arguments):
    """Runs the command with `loop.Steps` watched."""
    taught, evaluated = loop.Steps.train, loop.Steps.evaluate
    losses, confusion, val_losses, val_confusion, weights = [], [], [], [], {}
    replicas = []

    def train(self, *args):
        result = taught(self, *args)
        losses.extend(result.losses)
        confusion.append(result.confusion)
        replicas.append(self.strategy.num_replicas_in_sync)
        weights.update({f"weights/{v.path}": v.numpy() for v in self.model.weights})
        return result

    def evaluate(self, dataset):
        value, matrix = evaluated(self, dataset)
        val_losses.append(value)
        val_confusion.append(matrix)
        return value, matrix

    loop.Steps.train, loop.Steps.evaluate = train, evaluate
    status = flexseg.main(arguments)
    if not status:
        np.savez(
            record,
            losses=losses,
            confusion=confusion,
            val_losses=val_losses,
            val_confusion=val_confusion,
            replicas=replicas,
            **weights,
        )
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
