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

sys.path[0] = os.getcwd()  # not this folder, in which models.py would pass for the package

from export.inspection import network_text  # noqa: E402
from tests.benchmarks.network_step import (  # noqa: E402
    BATCH,
    CLASSES,
    make_step,
    products_per_second,
)

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

    step = make_step(name, size, "float32")
    for _ in range(2):  # traces, and makes the memory its own
        step().numpy()
    network = network_text.describe(name, num_classes=CLASSES, size=(size, size))
    floor = 3 * BATCH * network.multiply_adds / products_per_second()
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
