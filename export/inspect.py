"""Describes a dataset, a run or a bundle for a person; of a folder of masks, what classes it shows.

With --model it describes a network instead, level by level.

Examples:
  flexseg inspect records
  flexseg inspect records --figure=records.png
  flexseg inspect runs/lung
  flexseg inspect bundles/lung
  flexseg inspect masks
  flexseg inspect --model=attention_unet --figure=network.png
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from export import bundle
from export.inspection import audit_text, figure, inspect_bundle, network_figure, network_text
from flexseg_console import result
from flexseg_errors import FlexsegError
from pipelines import manifest as manifests
from pipelines import propose, storage
from pipelines.shards import Options
from train import evaluate, runs
from train import experiment as experiments

POSITIONAL = ("DATASET|RUN|BUNDLE|MASKS_DIR",)
INSTEAD = "model"  # the flag that stands for the folder


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "figure",
        None,
        "PNG to draw: of a dataset images per split, pixels per class, some images and masks; of a "
        "network its levels. Default: none.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "model",
        None,
        "Network to describe instead of a folder; see flexseg models. Default: none.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    if values.model:
        network = network_text.describe(values.model)
        result(network_text.text(network))
        if values.figure:
            network_figure.draw(network, values.figure)
        return
    folder = rest[0]
    kinds = {
        manifests.FILENAME: dataset,
        runs.EXPERIMENT: trained_run,
        bundle.MODEL: inspect_bundle.describe,
    }
    inside = [name for name in kinds if storage.is_file(storage.join(folder, name))]
    describe = kinds[inside[0]] if inside else masks
    if values.figure and describe is not dataset:
        raise FlexsegError(f"--figure draws a dataset, and {folder} is none.")
    result(describe(folder))
    if values.figure:
        figure.draw(manifests.load(folder), values.figure)


def dataset(folder: str) -> str:
    """A dataset's description."""
    manifest = manifests.load(folder)
    lines = [
        f"Dataset {folder}",
        f"  channels {manifest.channels}, rejected sources {manifest.rejected}",
        f"  preparation: {', '.join(manifest.preparation.in_words()) or 'none'}",
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
        total = sum(split.class_pixels) or 1  # all may be ignored
        for label, pixels, count, sources in zip(
            names, split.class_pixels, split.class_examples, split.class_sources, strict=True
        ):
            share = pixels / total
            of = f" of {sources} sources" if sources != count else ""
            lines.append(f"  {label:<{width}} {share:9.4%} of pixels, in {count} examples{of}")
    if manifest.audit:
        lines += audit_text.lines(manifest.audit, manifest.label_map)
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
        f"  preparation: {', '.join(run.preparation.in_words()) or 'none'}",
        f"  classes: {', '.join(run.label_map.names)}",
        "  differs from the defaults in:",
        *(f"    {c}" for c in changed or ["nothing"]),
    ]
    if storage.is_file(run.path(runs.BEST)):
        figures = _read(
            run.path(runs.BEST),
            lambda best: ", ".join(f"{k} {v:.4g}" for k, v in best.items() if v is not None),
            "remove it: the weights do not need it.",
        )
        lines += textwrap.wrap(f"  best: {figures}", 100, subsequent_indent=" " * 4)
    for name in storage.names(run.path("evaluation")):
        if name.endswith(".json"):
            path = run.path("evaluation", name)
            lines += ["", _read(path, evaluate.table, "run flexseg evaluate again, or remove it.")]
    return "\n".join(lines)


def _read(path: str, told: Callable[[Any], str], what_to_do: str) -> str:
    """What is told of a JSON file's content.

    Raises:
      FlexsegError: where it is damaged.
    """
    try:
        return told(json.loads(storage.read_bytes(path)))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FlexsegError(f"{path} is damaged ({error!r}); {what_to_do}") from error


def masks(folder: str) -> str:
    """The label map that a folder of masks suggests."""
    if not storage.is_folder(folder):
        raise FlexsegError(f"{folder}: there is no such folder.")
    if storage.is_remote(folder):
        raise FlexsegError(
            f"{folder} is neither a dataset, nor a run, nor a bundle. Masks are looked at only "
            "where they are local."
        )
    try:
        return propose.describe(propose.propose(folder))
    except FlexsegError as error:
        raise FlexsegError(
            f"{folder} is neither a dataset, nor a run, nor a bundle; nor masks: {error}"
        ) from error


def _options(manifest: manifests.Manifest) -> str:
    """The options that differ from the defaults, and the split, in a line."""
    default = Options(manifest.label_map, manifest.preparation).to_dict()
    options = dict(manifest.options)
    plan = options.pop("augment", None)
    for group in ("masks", "volumes"):
        options.update(options.pop(group, {}))
        default.update(default.pop(group))
    parts = [f"{key}={value}" for key, value in options.items() if value != default.get(key)]
    if plan:
        copies = len(plan["variants"]) + plan["keep_source"]
        parts.append(f"augment={copies} examples of each training source")
    return ", ".join(parts)
