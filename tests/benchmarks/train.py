"""What the training input and several replicas cost a training step.

pipeline: our step fed by the real input (records on disk, PNG, default online augmentation and
random order) over the same step fed by one batch that lies in memory, by turns, in blocks of
steps; the first steps of a block, for which batches were waiting, are left out. The network is
flex_unet with 16 filters and 5 levels.

replicas: the step of the same global batch on one device, on two logical devices, and in two worker
processes on this machine. All share its cores, so that what stands above 1 is the cost of dividing.

memory: peak memory of a whole training with ten times the data, and what the arrays alone would
take if all images (uint8) and one-hot masks (int8) were loaded.

Prints tables; asserts nothing. With --all, what belongs to the same picture follows in this run:
input.py (input alone), train_step.py (against Keras' fit).

    PYTHONPATH=. python tests/benchmarks/train.py [--cases=pipeline,replicas,memory]
        [--sides=256,512] [--all]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np

sys.path[0] = os.getcwd()  # not this folder, in which this file would pass for a package

LITERAL = "{(0,0,0):0,(255,255,255):1}"
PRECISIONS = ("float32", "mixed_bfloat16")
BATCHES = {256: 8, 512: 2}
BLOCK, SKIPPED = 14, 4
REPLICAS = ("one device", "two devices", "two workers")


def draw(folder: str, count: int, side: int) -> None:
    """Smooth images with some noise, and a disc each."""
    for kind in ("images", "masks"):
        os.makedirs(os.path.join(folder, kind))
    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = rng.uniform(0, 255, (16, 16, 3)).astype(np.float32)
        image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        image += rng.normal(0, 4, image.shape)
        mask = np.zeros((side, side), np.uint8)
        cv2.circle(mask, rng.integers(0, side, 2).tolist(), side // 6, 255, -1)
        cv2.imwrite(f"{folder}/images/{i:05d}.png", np.clip(image, 0, 255).astype(np.uint8))
        cv2.imwrite(f"{folder}/masks/{i:05d}.png", mask)


def prepared(root: str, count: int, side: int) -> str:
    """A dataset of drawn images, all in the split train."""
    sources, records = f"{root}/s{count}_{side}", f"{root}/r{count}_{side}"
    draw(sources, count, side)
    flags = [f"--dataset={sources}", f"--output={records}", f"--label_map={LITERAL}"]
    subprocess.run(
        [sys.executable, "flexseg.py", "prepare", *flags, "--split=train:1"],
        env=_environment(),
        check=True,
        capture_output=True,
    )
    return records


def make_steps(side: int, precision: str, distribute: dict[str, object]):
    """Our steps on flex_unet, and their strategy's part of the input."""
    from models import registry
    from train import distribution, loop, losses, runs
    from train.experiment import DistributeConfig, OptimizerConfig

    strategy = distribution.make_strategy(DistributeConfig(**distribute))
    with strategy.scope(), runs.precision(precision):
        model = registry.build("flex_unet", num_classes=2, size=(side, side))
    return loop.Steps(
        strategy,
        model,
        losses.parse("ce+dice"),
        OptimizerConfig(),
        num_classes=2,
        total_steps=10_000,
    )


def pipeline(records: str, side: int, precision: str, blocks: int) -> dict[str, float]:
    """Median seconds of a step, fed by the real input and from memory, and their ratio."""
    import tensorflow as tf

    from pipelines import batches, manifest
    from pipelines.online_augment import Augmentation
    from train.experiment import AugmentConfig

    steps = make_steps(side, precision, {"strategy": "one"})
    augmentation = Augmentation(**dataclasses.asdict(AugmentConfig()))
    options = batches.TrainInput(batch_size=BATCHES[side], augmentation=augmentation)
    real = batches.train(manifest.load(records), options)
    batch = next(iter(real.as_numpy_iterator()))
    iterators = {
        "real": steps.distribute(real),
        "memory": steps.distribute(tf.data.Dataset.from_tensors(batch).repeat()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in iterators}
    for _ in range(1 + blocks):  # the first traces, and makes the memory its own
        for name, iterator in iterators.items():
            times = []
            for _ in range(BLOCK):
                began = time.perf_counter()
                steps.train(iterator, 0, 1)
                times.append(time.perf_counter() - began)
            seconds[name].append(statistics.median(times[SKIPPED:]))
    ratios = [a / b for a, b in zip(seconds["real"][1:], seconds["memory"][1:], strict=True)]
    return {name: statistics.median(values[1:]) for name, values in seconds.items()} | {
        "ratio": statistics.median(ratios)
    }


def replica(side: int, kind: str, count: int) -> dict[str, float]:
    """Median seconds of a step of the whole batch from memory; in each worker, of its part."""
    import tensorflow as tf

    distribute: dict[str, object] = {"strategy": "one"}
    if kind == "two devices":
        distribute = {"strategy": "mirrored", "cpu_devices": 2}
    if kind == "two workers":
        distribute = {"strategy": "multi_worker"}
    steps = make_steps(side, "float32", distribute)
    size = BATCHES[side] // (2 if kind == "two workers" else 1)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
        "mask": rng.integers(0, 2, (size, side, side)).astype(np.uint8),
    }
    data = tf.data.Dataset.from_tensors(batch).repeat()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    iterator = steps.distribute(data.with_options(options))
    steps.train(iterator, 0, 2)
    times = []
    for _ in range(count):
        began = time.perf_counter()
        steps.train(iterator, 0, 1)
        times.append(time.perf_counter() - began)
    return {"seconds": statistics.median(times)}


def whole_training(records: str) -> dict[str, float]:
    """Peak MiB of `flexseg train` over 150 steps of four."""
    import flexseg

    with tempfile.TemporaryDirectory() as folder:
        keys = ["data.batch_size=4", "data.shuffle_mb=16", "model.base_filters=4", "model.levels=3"]
        keys += ["train.epochs=1", "train.steps_per_epoch=150", "train.previews=0"]
        flags = [f"--config.{key}" for key in keys]
        if flexseg.main(["train", f"--data={records}", f"--run={folder}/run", *flags]):
            sys.exit("the training failed")
    return {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.getcwd(), **more}


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Starts a case in a process of its own."""
    command = [sys.executable, __file__, "--case", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, float]:
    """What a case found."""
    text, complaints = process.communicate()
    if process.returncode:
        sys.exit(f"a case ended with {process.returncode}\n{complaints}")
    return json.loads(text.splitlines()[-1])


def workers(*arguments: object) -> dict[str, float]:
    """A case in two worker processes; what the first found."""
    with socket.socket() as one, socket.socket() as two:
        for it in (one, two):
            it.bind(("localhost", 0))
        addresses = [f"localhost:{it.getsockname()[1]}" for it in (one, two)]
    cluster = {"worker": addresses}
    both = [
        start(
            *arguments,
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
        )
        for i in range(2)
    ]
    found = result(both[0])
    both[1].communicate()  # it may complain that the first has gone
    return found


def show_pipeline(root: str, blocks: int, sides: list[int]) -> None:
    print(f"{'side':<6}{'batch':>6}  {'precision':<16}{'real input':>12}{'memory':>10}{'ratio':>7}")
    for side in sides:
        batch = BATCHES[side]
        records = prepared(root, 64, side)
        for precision in PRECISIONS:
            found = result(start("pipeline", records, side, precision, blocks))
            print(
                f"{side:<6}{batch:>6}  {precision:<16}{found['real']:>10.3f} s"
                f"{found['memory']:>8.3f} s{found['ratio']:>7.3f}",
                flush=True,
            )


def show_replicas(rounds: int = 3) -> None:
    times: dict[str, list[float]] = {kind: [] for kind in REPLICAS}
    for _ in range(rounds):
        for kind in REPLICAS:
            run = workers if kind == "two workers" else lambda *a: result(start(*a))
            times[kind].append(run("replica", 256, kind, 8)["seconds"])
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    for kind, seconds in medians.items():
        print(f"{kind:<14}{seconds:>8.3f} s{seconds / medians['one device']:>7.2f}", flush=True)


def show_memory(root: str, count: int = 150, side: int = 512) -> None:
    print(f"{'images':>7}{'training':>13}{'arrays alone':>15}")
    peaks = []
    for number in (count, 10 * count):
        peaks.append(result(start("memory", prepared(root, number, side)))["mib"])
        arrays = number * side * side * (3 + 2) / 2**20
        print(f"{number:>7}{peaks[-1]:>9.0f} MiB{arrays:>11.0f} MiB", flush=True)
    print(f"{'ratio':>7}{peaks[1] / peaks[0]:>9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="pipeline,replicas,memory")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--sides", default="256,512", help="of pipeline")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--case", nargs="+")
    arguments = parser.parse_args()
    if arguments.case:
        name, *rest = arguments.case
        if name == "pipeline":
            found = pipeline(rest[0], int(rest[1]), rest[2], int(rest[3]))
        elif name == "replica":
            found = replica(int(rest[0]), rest[1], int(rest[2]))
        else:
            found = whole_training(rest[0])
        print(json.dumps(found), flush=True)
        os._exit(0)  # workers need not wait for one another
    with tempfile.TemporaryDirectory() as root:
        for name in arguments.cases.split(","):
            print(f"\n{name}")
            if name == "pipeline":
                show_pipeline(root, arguments.blocks, list(map(int, arguments.sides.split(","))))
            elif name == "replicas":
                show_replicas()
            else:
                show_memory(root)
    for name in ("input", "train_step") if arguments.all else ():
        print(f"\n{name}.py", flush=True)
        script = os.path.join("tests", "benchmarks", f"{name}.py")
        subprocess.run([sys.executable, script], env=_environment(), check=True)


if __name__ == "__main__":
    main()
