"""Describes a dataset, a run or a bundle for a person; of a folder of masks, what classes it shows.

Examples:
  flexseg inspect records
  flexseg inspect records --figure=records.png
  flexseg inspect runs/lung
  flexseg inspect bundles/lung
  flexseg inspect masks
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from absl import flags

from export import bundle, figure
from flexseg_errors import FlexsegError
from pipelines import manifest as manifests
from pipelines import propose
from train import evaluate, runs
from train import experiment as experiments

POSITIONAL = ("DATASET|RUN|BUNDLE|MASKS_DIR",)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "figure",
        None,
        "PNG to draw of a dataset: images per split, pixels per class, some images and masks.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    folder = rest[0]
    kinds = {
        manifests.FILENAME: dataset,
        runs.EXPERIMENT: trained_run,
        "saved_model.pb": exported_bundle,
    }
    inside = [name for name in kinds if os.path.isfile(os.path.join(folder, name))]
    describe = kinds[inside[0]] if inside else masks
    if values.figure and describe is not dataset:
        raise FlexsegError(f"--figure draws a dataset, and {folder} is none.")
    print(describe(folder))
    if values.figure:
        figure.draw(manifests.load(folder), values.figure)


def dataset(folder: str) -> str:
    """A dataset's description."""
    manifest = manifests.load(folder)
    lines = [
        f"Dataset {folder}",
        f"  channels {manifest.channels}, rejected sources {manifest.rejected}",
        f"  preparation: {_preparation(manifest.preparation)}",
        f"  options: {_options(manifest)}",
    ]
    names = manifest.label_map.names
    width = max(map(len, names))
    for name, split in manifest.splits.items():
        low, high = split.min_size, split.max_size
        size = f"{low[0]}x{low[1]}" + (f" to {high[0]}x{high[1]}" if low != high else "")
        lines += [
            "",
            f"{name}: {split.examples} examples of {split.sources} sources in {split.groups} "
            "groups",
            f"  {len(split.shards)} shards, {sum(s.bytes for s in split.shards) / 1e6:.1f} MB; "
            f"sizes {size}",
            "  channel mean "
            + ", ".join(f"{v:.1f}" for v in split.channel_mean)
            + "; std "
            + ", ".join(f"{v:.1f}" for v in split.channel_std),
        ]
        if split.unmatched_pixels:
            lines.append(f"  {split.unmatched_pixels} mask pixels matched no color")
        total = sum(split.class_pixels)
        for label, pixels, count in zip(
            names, split.class_pixels, split.class_examples, strict=True
        ):
            share = pixels / total
            lines.append(f"  {label:<{width}} {share:9.4%} of pixels, in {count} examples")
    return "\n".join(lines)


def trained_run(folder: str) -> str:
    """A run's description."""
    run = runs.load(folder)
    changed = experiments.differences(experiments.Experiment(), run.experiment)
    lines = [
        f"Run {folder}",
        f"  network {run.experiment.model.name}, {run.outputs} logits, tile "
        f"{run.size[0]}x{run.size[1]}x{run.channels}",
        f"  dataset {run.data}",
        f"  preparation: {_preparation(run.preparation)}",
        f"  classes: {', '.join(run.label_map.names)}",
        "  differs from the defaults in:",
        *(f"    {c}" for c in changed or ["nothing"]),
    ]
    if os.path.isfile(run.path(runs.BEST)):
        with open(run.path(runs.BEST), encoding="utf-8") as file:
            best = json.load(file)
        figures = ", ".join(f"{k} {v:.4g}" for k, v in best.items() if v is not None)
        lines.append(f"  best: {figures}")
    folder = run.path("evaluation")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.endswith(".json"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                lines += ["", evaluate.table(json.load(file))]
    return "\n".join(lines)


def exported_bundle(folder: str) -> str:
    """A bundle's description."""
    path = os.path.join(folder, "assets", bundle.CARD)
    if not os.path.isfile(path):
        raise FlexsegError(f"{folder} is a SavedModel, but no bundle of `flexseg export`.")
    with open(path, encoding="utf-8") as file:
        card = json.load(file)
    lines = [
        f"Bundle {folder}",
        f"  classes: {', '.join(card['classes'])}",
        f"  images: uint8, {card['channels']} channels, any size; tile {card['tile']}",
        "  signatures:",
        "    serving_default: images uint8 [B,H,W,C] -> probabilities float32 [B,H,W,K], "
        "class_ids uint8 [B,H,W]",
        "    encoded: encoded string [B] -> mask_png string [B]",
        "    tiled: image uint8 [H,W,C] -> class_ids uint8 [H,W]",
        f"  made with TensorFlow {card['versions']['tensorflow']}",
    ]
    for split, figures in card["metrics"].items():
        dice = figures["foreground"]["dice_macro"]
        lines.append(
            f"  {split}: foreground macro Dice {dice:.4f} on {figures['images']} images"
            if dice is not None
            else f"  {split}: no foreground in {figures['images']} images"
        )
    return "\n".join(lines)


def masks(folder: str) -> str:
    """The label map that a folder of masks suggests."""
    if not os.path.isdir(folder):
        raise FlexsegError(f"{folder}: there is no such folder.")
    try:
        return propose.describe(propose.propose(folder))
    except FlexsegError as error:
        raise FlexsegError(
            f"{folder} is neither a dataset, nor a run, nor a bundle; nor masks: {error}"
        ) from error


def _options(manifest: manifests.Manifest) -> str:
    """The options that say something, in a line."""
    options = dict(manifest.options)
    reading, plan = options.pop("masks", {}), options.pop("augment", None)
    parts = [f"{key}={value}" for key, value in options.items() if value]
    parts += [f"{key}={value}" for key, value in reading.items() if value]
    if plan:
        copies = len(plan["variants"]) + plan["keep_source"]
        parts.append(f"augment={copies} examples of each training source")
    return ", ".join(parts)


def _preparation(preparation: manifests.Preparation) -> str:
    if preparation.image_size:
        return "resized to {}x{}".format(*preparation.image_size)
    return f"scaled by {preparation.scale:g}" if preparation.scale != 1 else "none"
