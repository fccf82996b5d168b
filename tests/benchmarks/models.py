"""What a training step of every network costs: time, memory, and for flex_unet how near its floor.

A step is forward, cross-entropy plus Dice, backward and AdamW, batch 2, in one graph. Each case
runs in a process of its own. The floor of a step is 3 x multiply-adds x batch over the rate at
which this machine multiplies large float32 matrices, measured in the same process. Prints a table;
asserts nothing.

    PYTHONPATH=. python tests/benchmarks/models.py [--sizes=256,512] [--names=flex_unet,u2net]
        [--steps=3] [--limit=120]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

sys.path[0] = os.getcwd()  # not this folder, in which this file would pass for the package

from tests.benchmarks.network_step import BATCH, CLASSES, make_step, products_per_second  # noqa: E402


def case(name: str, size: int, precision: str, steps: int) -> dict[str, float]:
    step = make_step(name, size, precision)
    step().numpy()  # traces, and makes the memory its own
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step().numpy()
        seconds.append(time.perf_counter() - began)
    return {
        "seconds": statistics.median(seconds),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rate": products_per_second(),
    }


def in_process(limit: float, *arguments: str) -> dict[str, float] | None:
    """Runs a case; None where it takes longer than `limit` seconds."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, __file__, "--case", *arguments]
    try:
        done = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--names", default="")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120, help="seconds for a case")
    parser.add_argument("--case", nargs=4)
    arguments = parser.parse_args()
    if arguments.case:
        name, size, precision, steps = arguments.case
        print(json.dumps(case(name, int(size), precision, int(steps))))
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from export.inspection import network_text
    from models import registry

    names = arguments.names.split(",") if arguments.names else list(registry.ARCHITECTURES)
    print(f"{'network':<22}{'side':>5}{'params':>9}{'products':>10}{'float32':>10}{'bfloat16':>10}")
    for size in map(int, arguments.sizes.split(",")):
        for name in names:
            network = network_text.describe(name, num_classes=CLASSES, size=(size, size))
            row = f"{name:<22}{size:>5}{network_text.short(network.parameters):>9}"
            row += f"{network_text.short(network.multiply_adds):>10}"
            floor = ""
            for precision in ("float32", "mixed_bfloat16"):
                found = in_process(
                    arguments.limit, name, str(size), precision, str(arguments.steps)
                )
                row += f"{found['seconds']:>8.2f} s" if found else f"{'> limit':>10}"
                if found and precision == "float32":
                    least = 3 * BATCH * network.multiply_adds / found["rate"]
                    floor = f"  {found['mib']:>6.0f} MiB, {found['seconds'] / least:.1f}x its floor"
            print(row + floor, flush=True)


if __name__ == "__main__":
    main()
