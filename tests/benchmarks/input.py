"""Training input alone: flexseg's pipeline against the least that tf.data must do.

The ceiling reads the same shards side by side, parses, decodes image and mask, and batches, with as
many threads, neither shuffled nor cropped nor augmented. Repetitions of all cases take turns within
one process; what counts are ratios of medians.

Example:
  PYTHONPATH=. python tests/benchmarks/input.py --sides=256,512 --repeat=7
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Python puts this file's folder first, and benchmarks are named as the rooms they measure.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import flexseg  # noqa: E402
from pipelines import batches, manifest, reading  # noqa: E402
from pipelines.batches import TrainInput  # noqa: E402
from pipelines.online_augment import Augmentation  # noqa: E402
from train.experiment import AugmentConfig  # noqa: E402

_BATCH = 8
_ENCODINGS = ("png", "raw", "jpeg:95")


def draw(folder: Path, side: int, count: int) -> None:
    """Smooth pictures with a little noise, and masks of blobs: about as compressible as photos."""
    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
        image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(int)
        image = np.clip(image + rng.integers(-4, 5, image.shape), 0, 255).astype(np.uint8)
        blobs = cv2.resize(rng.integers(0, 2, (8, 8), np.uint8) * 255, (side, side))
        for kind, pixels in (("images", image), ("masks", (blobs > 127).astype(np.uint8) * 255)):
            path = folder / "train" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)


def prepare(source: Path, output: Path, encoding: str) -> manifest.Manifest:
    """Records of these pictures."""
    flags = [f"--dataset={source}", f"--output={output}", f"--image_encoding={encoding}"]
    label_map = "--label_map={(0,0,0):0,(255,255,255):1}"
    if flexseg.main(["prepare", *flags, label_map, "--direct_num_workers=1"]):
        raise SystemExit("The dataset could not be prepared.")
    return manifest.load(str(output))


def ceiling(dataset: manifest.Manifest, threads: int) -> tf.data.Dataset:
    """Interleave, parse, decode and batch, and nothing else."""
    paths = dataset.paths("train")
    found = tf.data.Dataset.from_tensor_slices(paths).repeat()
    found = found.interleave(
        tf.data.TFRecordDataset, cycle_length=len(paths), num_parallel_calls=tf.data.AUTOTUNE
    )
    found = found.map(lambda s: reading.decode(s, dataset), num_parallel_calls=tf.data.AUTOTUNE)
    return reading.with_options(found.batch(_BATCH, drop_remainder=True).prefetch(2), threads)


def cases(dataset: manifest.Manifest, threads: int) -> dict[str, tf.data.Dataset]:
    """What is compared."""
    plain = {"batch_size": _BATCH, "threads": threads}
    default = Augmentation(**vars(AugmentConfig()))
    look = Augmentation(brightness=0.1, contrast=0.2)
    return {
        "ceiling": ceiling(dataset, threads),
        "plain": batches.train(dataset, TrainInput(**plain)),
        "brightness, contrast": batches.train(dataset, TrainInput(augmentation=look, **plain)),
        "default augmentation": batches.train(dataset, TrainInput(augmentation=default, **plain)),
        "cached in memory": batches.train(dataset, TrainInput(cache="memory", **plain)),
    }


def seconds(iterator: Iterator[Any], count: int) -> float:
    """Seconds for an example."""
    next(iterator)  # what was prefetched while others ran is not counted
    next(iterator)
    next(iterator)
    began = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return (time.perf_counter() - began) / count / _BATCH


def measure(dataset: manifest.Manifest, threads: int, repeat: int, count: int) -> dict[str, float]:
    """Seconds for an example in each case: medians of repetitions in turns."""
    iterators = {name: iter(case) for name, case in cases(dataset, threads).items()}
    found: dict[str, list[float]] = {name: [] for name in iterators}
    for iterator in iterators.values():
        seconds(iterator, count)  # autotuning
    for _ in range(repeat):
        for name, iterator in iterators.items():
            found[name].append(seconds(iterator, count))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", default="256,512")
    parser.add_argument("--encodings", default=",".join(_ENCODINGS))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: TensorFlow's own")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        for side in map(int, options.sides.split(",")):
            source = Path(name) / f"{side}"
            draw(source, side, options.images)
            for encoding in options.encodings.split(","):
                output = Path(name) / f"{side}-{encoding.replace(':', '-')}"
                dataset = prepare(source, output, encoding)
                # Several epochs, so that what was read ahead while others ran weighs little.
                count = max(6 * options.images // _BATCH, (1 << 21) // side**2)
                found = measure(dataset, options.threads, options.repeat, count)
                best = found["ceiling"]
                for case, value in found.items():
                    lines.append(
                        f"{side:4d} {encoding:8s} {case:22s} {1 / value:8.0f} examples/s "
                        f"{best / value:6.2f} of the ceiling"
                    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
