"""Proposes an experiment for a dataset, from what its manifest says; no image is read.

Crop, depth and batch follow from the records' sizes and the memory; oversampling and class weights
from how often classes occur; augmentation from the number of groups; steps from the number of
examples; precision from this machine. The result is a YAML file for flexseg train in which every
choice has its reason as a comment. It is a start for your own judgement: change what you know
better. Two calls on one machine give the same file.

Examples:
  flexseg plan records --memory_gb=8
  flexseg plan records --output=experiment.yaml
  flexseg train --experiment=experiment.yaml --data=records --run=runs/first
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from flexseg_console import detail, result
from flexseg_errors import FlexsegError, UsageError
from pipelines import folds
from pipelines import manifest as manifests
from pipelines.manifest import Manifest
from train import device as devices
from train.device import Device
from train.yaml_text import comment, flow

if TYPE_CHECKING:
    from train.planner import Plan

POSITIONAL = ("DATASET",)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "output", None, "YAML file to write; new. Default: print it.", flag_values=values
    )
    flags.DEFINE_float(
        "memory_gb",
        None,
        "Memory for training, in GB of 2^30 bytes, on each GPU if there are any. Default: half of "
        "this machine's, or nine tenths of a GPU's.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    if values.memory_gb is not None and not values.memory_gb > 0:
        raise UsageError(f"--memory_gb={values.memory_gb:g}: expected a number above 0.")
    if values.output and os.path.lexists(values.output):
        raise FlexsegError(
            f"--output={values.output} exists; nothing was touched. Give a new file."
        )
    device = devices.find()
    if values.memory_gb is not None:
        device = dataclasses.replace(device, memory=int(values.memory_gb * 2**30))
    detail(f"planning for {device.memory / 2**30:.1f} GB of memory")
    text, notes = propose(manifests.load(rest[0]), device)
    if not values.output:
        result(text, end="")
        return
    temporary = f"{values.output}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, values.output)
    except OSError as error:
        raise FlexsegError(
            f"--output={values.output} cannot be written: {error.strerror}."
        ) from error
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    print(
        f"{values.output}: read it, then\n"
        f"  flexseg train --experiment={values.output} --data={rest[0]} --run=RUN"
    )


def propose(manifest: Manifest, device: Device) -> tuple[str, tuple[str, ...]]:
    """The proposed experiment as YAML with comments, and notes for the person, also within it.

    Raises:
      FlexsegError: where the dataset cannot be trained on, or the memory is too small.
    """
    from train import planner

    fold = 0 if folds.count(manifest) else None
    view = folds.view(manifest, fold)
    plan = planner.plan(view, device, fold)
    return render(plan, view, device), plan.notes


def render(plan: Plan, manifest: Manifest, device: Device) -> str:
    """The YAML of a plan."""
    held = "; ".join(
        f"{name}: {split.examples} records of {split.sources} images in {split.groups} groups"
        for name, split in manifest.splits.items()
    )
    shares = ", ".join(
        f"{name} {100 * share:.2g}%"
        for name, share in zip(plan.facts.names, plan.facts.shares, strict=True)
    )
    head = [
        f"Proposed by flexseg plan for {os.path.basename(os.path.normpath(manifest.folder))}. "
        f"{held}.",
        f"Pixels of the train split: {shares}.",
        f"Planned for: {device.name}, {device.memory / 2**30:.3g} GB for training.",
        *(f"Note: {note}" for note in plan.notes),
    ]
    lines = [line for text in head for line in comment(text)]
    section = None
    for choice in plan.choices:
        parent, _, key = choice.key.partition(".")
        if parent != section:
            section = parent
            lines += ["", f"{section}:"]
        lines += comment(choice.reason, "  ")
        value = "none" if choice.value is None else flow(choice.value)
        lines.append(f"  {key}: {value}")
    return "\n".join(lines) + "\n"
