"""Scores a trained run on whole images, with figures that mean what their names say.

Every image of the split is segmented by a sliding window; one confusion matrix sums up the split.
Dice and IoU of a class pool its pixels; a class in neither truth nor prediction has no figure.

Example:
  flexseg evaluate --run=runs/lung --data=records --split=test
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from flexseg_errors import FlexsegError, UsageError
from pipelines import folds, storage
from pipelines import manifest as manifests
from train import runs
from train.runs import Run

if TYPE_CHECKING:
    from train.segment import Segmenter


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("run", None, "Run directory of flexseg train.", flag_values=values)
    flags.DEFINE_string(
        "data", None, "Dataset; default: the one that the run was trained on.", flag_values=values
    )
    flags.DEFINE_string("split", "test", "Split to score on.", flag_values=values)


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    if not values.run:
        raise UsageError("evaluate needs --run. See flexseg evaluate --help.")
    trained = runs.load(values.run)
    data = values.data or trained.data
    manifest = manifests.load(data)
    if trained.experiment.data.fold is not None and folds.count(manifest):
        manifest = folds.view(manifest, trained.experiment.data.fold)
    evaluation = evaluate(trained, manifest, values.split)
    write(trained, evaluation)
    print(table(evaluation))


def evaluate(
    run: Run, manifest: manifests.Manifest, split: str, segmenter: Segmenter | None = None
) -> dict[str, Any]:
    """Segments every image of a split and sums up.

    Args:
      run: a trained run.
      manifest: a dataset prepared as the run's was, or not resized at all: its images are then
        brought to what the network knows and its probabilities back to their size.
      split: the split.
      segmenter: what to score; None for the run's best weights.

    Returns:
      The content of `evaluation/<split>.json`.

    Raises:
      FlexsegError: where the dataset's classes, channels or preparation do not fit the run.
    """
    from tqdm import tqdm

    from pipelines import batches
    from train import metrics

    examples = manifest.split(split).sources
    _refuse_misfit(run, manifest)
    segmenter = segmenter or run.segmenter()
    same = manifest.preparation == run.preparation
    segment = segmenter.prepared_probabilities if same else segmenter.probabilities
    num_classes = run.label_map.num_classes
    matrix = np.zeros([num_classes, num_classes], np.int64)
    occurs = np.zeros(num_classes, np.int64)
    legacy, surprise, pixels = [], 0.0, 0
    whole = batches.whole_images(manifest, split)
    for _, image, truth in tqdm(whole, total=examples, unit="image", disable=None):
        probability = segment(image).numpy()
        predicted = probability.argmax(-1)
        matrix += metrics.confusion(truth, predicted, num_classes).numpy()
        occurs += np.bincount(truth.ravel(), minlength=256)[:num_classes] > 0
        legacy.append(metrics.legacy_dice_coef_multiclass(probability, truth))
        valid = truth < num_classes
        own = np.take_along_axis(probability[valid], truth[valid].astype(int)[:, None], -1)
        surprise -= float(np.log(np.maximum(own.astype(np.float64), 1e-7)).sum())
        pixels += int(valid.sum())
    scores = metrics.per_class(matrix)
    classes = [
        {
            "id": label.id,
            "name": label.name,
            **dataclasses.asdict(score),
            "images": int(occurs[label.id]),
        }
        for label, score in zip(run.label_map.classes, scores, strict=True)
    ]
    return {
        "split": split,
        "images": len(legacy),
        "dataset_fingerprint": manifest.fingerprint,
        "size": "as prepared" if same else "original",
        "classes": classes,
        "foreground": dataclasses.asdict(metrics.foreground(matrix)),
        "background": dataclasses.asdict(scores[0]),
        "confusion": matrix.tolist(),
        "legacy": {
            "dice_coef_multiclass": float(np.mean(legacy)),
            "categorical_crossentropy": surprise / max(1, pixels),
        },
    }


def write(run: Run, evaluation: dict[str, Any]) -> str:
    """Writes `evaluation/<split>.json` and `.csv` into the run directory; returns the former."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(evaluation["classes"][0]))
    writer.writeheader()
    writer.writerows(evaluation["classes"])
    storage.make_folder(run.path("evaluation"))
    stem = run.path("evaluation", evaluation["split"])
    storage.write_whole(stem + ".csv", text.getvalue().encode())
    storage.write_whole(stem + ".json", json.dumps(evaluation, indent=1).encode())
    return stem + ".json"


def table(evaluation: dict[str, Any]) -> str:
    """The evaluation as a table for a person."""
    names = [c["name"] for c in evaluation["classes"]]
    width = max(10, *map(len, names))
    head = f"{'class':<{width}}  {'Dice':>7} {'IoU':>7} {'prec.':>7} {'recall':>7} {'images':>7}"
    lines = [f"{evaluation['split']}: {evaluation['images']} images", head, "-" * len(head)]
    for entry in evaluation["classes"]:
        figures = [_figure(entry[k]) for k in ("dice", "iou", "precision", "recall")]
        lines.append(f"{entry['name']:<{width}}  {' '.join(figures)} {entry['images']:>7}")
    fore = evaluation["foreground"]
    lines += [
        "-" * len(head),
        f"{'foreground':<{width}}  {_figure(fore['dice_macro'])} {_figure(fore['iou_macro'])}"
        "  mean over the classes but background",
        f"{'':<{width}}  {_figure(fore['dice_pooled'])}          all foreground pixels in one pool",
    ]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.4f}"


def _refuse_misfit(run: Run, manifest: manifests.Manifest) -> None:
    def refuse(what: str) -> None:
        raise FlexsegError(f"The dataset {manifest.folder} does not fit {run.folder}: {what}.")

    if manifest.label_map != run.label_map:
        refuse(f"its classes are {manifest.label_map.names}, the run's {run.label_map.names}")
    if manifest.channels != run.channels:
        refuse(f"its images have {manifest.channels} channels, the run's {run.channels}")
    if manifest.preparation not in (run.preparation, run.preparation.unresized()):
        refuse(
            f"it was prepared by {manifest.preparation}, the run's data by {run.preparation}; "
            "prepare it in the same way, or without --image_size and --scale"
        )
