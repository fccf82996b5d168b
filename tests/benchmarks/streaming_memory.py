"""Peak memory of the dataset job and of the training input, with ten times the data.

Each case runs in a process of its own; the figure is that of its whole process tree (prepare) or of
the process (input). Prints a table; asserts nothing.

    python tests/benchmarks/streaming_memory.py [--sources=60] [--side=512]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

import cv2
import numpy as np

LITERAL = "{(0,0,0):0,(255,255,255):1}"


def draw(folder: str, count: int, side: int) -> None:
    """Noise with a disc each; noise, because it is what compresses worst."""
    for kind in ("images", "masks"):
        os.makedirs(os.path.join(folder, kind))
    for i in range(count):
        rng = np.random.default_rng(i)
        image = rng.integers(0, 256, (side, side, 3), np.uint8)
        mask = np.zeros((side, side), np.uint8)
        cv2.circle(mask, rng.integers(0, side, 2).tolist(), side // 6, 255, -1)
        cv2.imwrite(os.path.join(folder, "images", f"{i:05d}.png"), image)
        cv2.imwrite(os.path.join(folder, "masks", f"{i:05d}.png"), mask)


def prepare(sources: str, records: str) -> None:
    import flexseg

    flexseg.main(
        [
            "prepare",
            f"--dataset={sources}",
            f"--output={records}",
            f"--label_map={LITERAL}",
            "--direct_num_workers=1",
        ]
    )


def stream(records: str, steps: int) -> None:
    from pipelines import batches, manifest

    options = batches.TrainInput(batch_size=4, shuffle_bytes=16 << 20)
    for _ in batches.train(manifest.load(records), options).take(steps):
        pass


def in_process(*arguments: str) -> float:
    """Runs this file in a process of its own; peak resident memory in MiB."""
    code = f"import sys; sys.argv = {[__file__, *arguments]!r}; exec(open({__file__!r}).read())"
    wrapper = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], "
        "check=True, stdout=sys.stderr); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", wrapper, code],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return int(done.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sources", type=int, default=60)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--case", nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.case:
        name, *rest = arguments.case
        prepare(*rest) if name == "prepare" else stream(rest[0], int(rest[1]))
        return
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for factor in (1, 10):
            sources, records = os.path.join(root, f"s{factor}"), os.path.join(root, f"r{factor}")
            draw(sources, arguments.sources * factor, arguments.side)
            made = in_process("--case", "prepare", sources, records)
            streamed = in_process("--case", "stream", records, "150")
            rows.append((arguments.sources * factor, made, streamed))
    print(f"{'sources':>8} {'prepare MiB':>12} {'input MiB':>10}")
    for row in rows:
        print("{:>8} {:>12.0f} {:>10.0f}".format(*row))
    (_, made, streamed), (_, made_10, streamed_10) = rows
    print(f"{'ratio':>8} {made_10 / made:>12.2f} {streamed_10 / streamed:>10.2f}")


if __name__ == "__main__":
    main()
