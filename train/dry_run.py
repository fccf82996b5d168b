"""`flexseg train --dry_run`: what a training would be, from two real steps; nothing is written."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flexseg_console import result
from pipelines import storage
from pipelines.manifest import Manifest, Split
from train import device as devices
from train import memory, runs
from train.plan_notes import counted
from train.runs import Run

if TYPE_CHECKING:
    from models.describe import Description
    from train.rehearsal import Rehearsal

_INPUT_SECONDS = 5.0  # that reading alone is looked at
_INPUT_BATCHES = 20
_FORWARD = 1 / 3  # of a training step's time: the way back is two thirds of its multiply-adds
_UNITS = ("", "k", "M", "G", "T", "P")


@dataclasses.dataclass(frozen=True)
class Timing:
    """What was measured.

    Attributes:
      first: seconds of the first step, most of which is building the graph.
      step: seconds of the second, without waiting for input.
      examples_per_second: of the input alone, while nothing else works.
      loss: of the first step.
    """

    first: float
    step: float
    examples_per_second: float
    loss: float

    def seconds_per_step(self, examples: int) -> float:
        """Of a long training: reading a step's examples and training go on side by side."""
        return max(self.step, examples / self.examples_per_second)


def report(run: Run, manifest: Manifest) -> None:
    """Prints the table.

    Args:
      run: see `runs.plan`.
      manifest: of its dataset, as the run sees it.

    Raises:
      FlexsegError: as the training's start would.
    """
    from train import rehearsal

    runs.claim(run, dry=True)
    rehearsed = rehearsal.rehearse(run, manifest)
    config = run.experiment
    described = memory.describe(
        config.model, config.train.precision, run.label_map.num_classes, run.channels, run.size
    )
    result(_table(_before(run, manifest, rehearsed, described)))
    timing = measure(rehearsed)
    result(_table(_after(run, manifest, rehearsed, described, timing)))


def measure(rehearsed: Rehearsal) -> Timing:
    """Times the input alone, and then two steps on its first batches."""
    batches = iter(rehearsed.dataset)
    next(batches)  # starts the readers
    read, began = 0, time.perf_counter()
    while read < _INPUT_BATCHES and time.perf_counter() - began < _INPUT_SECONDS:
        next(batches)
        read += 1
    speed = read * rehearsed.source.batch_size / (time.perf_counter() - began)
    del batches
    iterator = rehearsed.iterator()
    seconds: list[float] = []
    results = []
    for number in range(2):
        began = time.perf_counter()
        results.append(rehearsed.steps.train(iterator, number, 1))
        seconds.append(time.perf_counter() - began)
    step = max(seconds[1] - results[1].waited, 1e-6)
    return Timing(seconds[0], step, speed, float(results[0].losses[0]))


def _before(
    run: Run, manifest: Manifest, rehearsed: Rehearsal, described: Description
) -> Iterator[tuple[str, str]]:
    """What is known without a step."""
    config, batch = run.experiment, run.experiment.data.batch_size
    replicas = rehearsed.steps.strategy.num_replicas_in_sync
    height, width = run.size
    folder = storage.join(run.folder, runs.CHECKPOINTS)
    begun = runs.EXPERIMENT in storage.names(run.folder)
    yield "data", f"{run.data}: {_held(manifest)}"
    for name in ("train", "valid"):
        if name in manifest.splits:
            yield f"reads {name}", _files(manifest.splits[name])
    yield "run", f"{run.folder}, {'begun already' if begun else 'new'}; nothing is written now"
    kept = config.train.keep_checkpoints
    yield "checkpoints", f"{folder}, about {_bytes(described.parameters * 12)} each, {kept} kept"
    yield "network", f"{config.model.name}, {config.model.head}, {config.train.precision}"
    yield "parameters", f"{_short(described.parameters)}, {_short(described.trainable)} trainable"
    yield "multiply-adds", f"{_short(described.multiply_adds)} for an image, once forward"
    yield "input", f"images [{batch}, {height}, {width}, {run.channels}] uint8, of 0..255"
    yield "", f"masks [{batch}, {height}, {width}] uint8, class ids"
    for i, output in enumerate(rehearsed.steps.model.outputs):
        yield (
            "" if i else "output",
            f"logits [{batch}, {height}, {width}, {output.shape[-1]}] {output.dtype}",
        )
    names = ", ".join(run.label_map.names)
    yield "classes", names if len(names) < 80 else f"{run.label_map.num_classes}"
    yield "devices", f"{replicas}, each with {batch // replicas} of {batch} examples in a batch"
    estimate = memory.estimate(described, batch / replicas, config.train.precision)
    allowed = devices.find()
    yield (
        "memory",
        f"about {_bytes(estimate.total)} for a step: layers' outputs {_bytes(estimate.activations)}"
        f", weights, gradients and moments {_bytes(estimate.weights)}, the rest "
        f"{_bytes(estimate.base)}",
    )
    if estimate.total > allowed.memory:
        yield "", f"MORE than the {_bytes(allowed.memory)} that {allowed.name} has for it"
    yield "", f"and up to {config.data.shuffle_mb} MiB for shuffling, 1 GiB for reading ahead"
    yield "loss", config.train.loss
    averaged = config.optimizer.accumulate_steps
    several = f", gradients of {averaged} batches averaged" if averaged > 1 else ""
    yield "optimizer", f"{config.optimizer.name}, {config.optimizer.schedule}{several}"
    yield (
        "steps",
        f"{rehearsed.per_epoch} an epoch, {rehearsed.total} in {config.train.epochs} epochs",
    )


def _after(
    run: Run, manifest: Manifest, rehearsed: Rehearsal, described: Description, timing: Timing
) -> Iterator[tuple[str, str]]:
    """What two steps showed."""
    batch = run.experiment.data.batch_size
    examples = batch * run.experiment.optimizer.accumulate_steps
    step = timing.seconds_per_step(examples)
    work = 3 * described.multiply_adds * examples / timing.step
    yield (
        "step",
        f"{timing.step:.3g} s, {_short(work)} multiply-adds/s; the first {timing.first:.3g} s, "
        "with the building of its graph",
    )
    needed = examples / timing.step
    slower = timing.examples_per_second < needed
    yield (
        "input alone",
        f"{timing.examples_per_second:.3g} examples/s; steps take {needed:.3g}/s"
        + (": TRAINING WILL WAIT for it" if slower else ""),
    )
    yield "first loss", f"{timing.loss:.4g}"
    peak = _peak()
    if peak:
        yield "memory taken", f"{_bytes(peak)} by this process so far, reading included"
    training = rehearsed.total * step
    validating = 0.0
    if "valid" in manifest.splits:
        batches = _valid_batches(manifest.splits["valid"], run.size, batch)
        validating = run.experiment.train.epochs * batches * batch / examples * timing.step
        validating *= _FORWARD
        yield "validation", f"{counted(batches, 'batch')} after each epoch"
    yield (
        "time",
        f"about {_duration(timing.first + training + validating)}: training {_duration(training)}, "
        f"validation {_duration(validating)}; as this machine is now, and without early stops",
    )


def _valid_batches(split: Split, size: tuple[int, int], batch: int) -> int:
    """About how many batches a split makes; its records are cut into examples of `size`."""
    tiles = max(split.examples, math.ceil(split.pixels / math.prod(size)))
    return math.ceil(tiles / batch)


def _peak() -> int:
    """Bytes that this process has taken at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _held(manifest: Manifest) -> str:
    return ", ".join(f"{n} {s.examples} examples" for n, s in manifest.splits.items())


def _files(split: Split) -> str:
    size = _bytes(sum(shard.bytes for shard in split.shards))
    low, high = ("x".join(map(str, s)) for s in (split.min_size, split.max_size))
    records = f"of {low}" if low == high else f"from {low} to {high}"
    return f"{len(split.shards)} files, {size}: {split.examples} records {records}"


def _table(rows: Iterator[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<13}  {text}" for name, text in rows)


def _short(number: float) -> str:
    """1234567 as 1.23 M."""
    power = 0 if number < 1000 else min(len(_UNITS) - 1, int(math.log10(number) / 3))
    return f"{number / 1000**power:.3g} {_UNITS[power]}".rstrip()


def _bytes(number: float) -> str:
    """With the unit that leaves the fewest digits: KiB, MiB or GiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1024:.3g} KiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
