"""Scores a trained run on whole images, with figures that mean what their names say.

Every image of the split is segmented as `flexseg predict` does it: by a sliding window, with what
tune-postprocessing chose for the run (--nopostprocessing leaves that out), and by choice with
test-time augmentation. One confusion matrix sums up the split.
Dice and IoU of a class pool its pixels; a class in neither truth nor prediction has no figure. What
is found goes to evaluation/SPLIT.json in the run, each image's Dice, the worst first, to
evaluation/SPLIT_images.csv.

Examples:
  flexseg evaluate --run=runs/lung --data=records --split=test
  flexseg evaluate --run=runs/lung --tta=d4 --scales=0.75,1,1.25
  flexseg evaluate --run=runs/vessels --boundary --spacing=0.01,0.01 --nsd_tolerance=0.03
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from flexseg_console import detail, progress
from flexseg_errors import FlexsegError, UsageError
from pipelines import folds, group_files, sources, storage
from pipelines import manifest as manifests
from train import postprocessing, runs, test_time
from train.postprocessing import Postprocessing
from train.runs import Run
from train.test_time import Variants

if TYPE_CHECKING:
    from train.segment import Segmenter
    from train.surface import BoundaryOptions


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "run", None, "Run directory of flexseg train. Required.", flag_values=values
    )
    flags.DEFINE_string(
        "data",
        None,
        "Dataset made by flexseg prepare. Default: the one that the run was trained on.",
        flag_values=values,
    )
    flags.DEFINE_string("split", "test", "Split to score on.", flag_values=values)
    flags.DEFINE_bool(
        "postprocessing",
        True,
        "Clean class ids as tune-postprocessing chose for the run, if it did.",
        flag_values=values,
    )
    test_time.define_flags(values)
    flags.DEFINE_bool(
        "boundary",
        False,
        "Compare outlines as well: HD95, average surface distance, NSD and clDice of every class "
        "but the background.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "nsd_tolerance",
        2.0,
        "With --boundary: largest distance between outlines that NSD takes for none, in pixels, or "
        "in the unit of --spacing.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "spacing",
        "1,1",
        "With --boundary: height and width of a pixel of the images that are scored, such as in "
        "millimetres.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    if not values.run:
        raise UsageError("evaluate needs --run. See flexseg evaluate --help.")
    boundary = _boundary_options(values)
    trained = runs.load(values.run)
    variants = Variants(values.tta, test_time.parse_scales(values.scales))
    cleans = values.postprocessing
    evaluation, images = score(
        trained,
        dataset_of(trained, values.data),
        values.split,
        boundary=boundary,
        variants=variants,
        cleaning=postprocessing.of_run(trained) if cleans else postprocessing.IDENTITY,
    )
    detail("all images are segmented and scored")
    write(trained, evaluation, images)
    print(table(evaluation))


def dataset_of(run: Run, data: str | None) -> manifests.Manifest:
    """The dataset in a folder, or the one that a run was trained on, in the run's fold."""
    manifest = manifests.load(data or run.data)
    fold, number = run.experiment.data.fold, folds.count(manifest)
    if fold is None or not number:
        return manifest
    if fold >= number:
        raise FlexsegError(
            f"The run {run.folder} has fold {fold} for its valid split, but {manifest.folder} has "
            f"the folds 0 to {number - 1}. Give the dataset that it was trained on ({run.data}), "
            "or one without folds."
        )
    return folds.view(manifest, fold)


def evaluate(
    run: Run, manifest: manifests.Manifest, split: str, segmenter: Segmenter | None = None
) -> dict[str, Any]:
    """Segments every image of a split and sums up.

    Returns:
      The content of `evaluation/<split>.json`; see `score`.
    """
    return score(run, manifest, split, segmenter)[0]


def score(
    run: Run,
    manifest: manifests.Manifest,
    split: str,
    segmenter: Segmenter | None = None,
    boundary: BoundaryOptions | None = None,
    variants: Variants = test_time.PLAIN,
    cleaning: Postprocessing = postprocessing.IDENTITY,
) -> tuple[dict[str, Any], list[list[Any]]]:
    """Segments every image of a split and sums up.

    Args:
      run: a trained run.
      manifest: a dataset prepared as the run's was, or not resized at all: its images are then
        brought to what the network knows and its probabilities back to their size.
      split: the split.
      segmenter: what to score; None for the run's best weights.
      boundary: how to compare boundaries; None leaves that out.
      variants: test-time augmentation.
      cleaning: what is done to class ids; probabilities, and figures of them, it leaves alone.

    Returns:
      The content of `evaluation/<split>.json`, and that of `evaluation/<split>_images.csv`.

    Raises:
      FlexsegError: where the dataset's classes, channels or preparation do not fit the run.
    """
    from train.scoring import Scoring

    scoring = Scoring(run.label_map, one_logit=run.outputs == 1, boundary=boundary)
    for image in segmented(run, manifest, split, segmenter, variants):
        ids = cleaning.apply(image.class_ids, image.area)
        scoring.add(image.source_id, image.probabilities, image.truth, ids)
    summary = {
        "split": split,
        "dataset_fingerprint": manifest.fingerprint,
        "size": "as prepared" if manifest.preparation == run.preparation else "original",
        "prediction": {
            "tta": variants.tta,
            "scales": list(variants.scales),
            "postprocessing": None if cleaning.is_identity else cleaning.to_dict()["classes"],
        },
        **scoring.summary(groups_of(manifest, scoring.source_ids)),
    }
    return summary, scoring.image_table()


@dataclasses.dataclass(frozen=True)
class Segmented:
    """An image of a split, segmented.

    Attributes:
      source_id: which it is.
      probabilities: float32 [H, W, K].
      truth: class ids, uint8 [H, W]; ids outside the classes are ignored.
      area: of a pixel of the prepared image, in pixels of this one.
    """

    source_id: str
    probabilities: np.ndarray
    truth: np.ndarray
    area: float

    @property
    def class_ids(self) -> np.ndarray:
        """The most probable class, uint8 [H, W]."""
        return self.probabilities.argmax(-1).astype(np.uint8)


def segmented(
    run: Run,
    manifest: manifests.Manifest,
    split: str,
    segmenter: Segmenter | None = None,
    variants: Variants = test_time.PLAIN,
) -> Iterator[Segmented]:
    """Segments every image of a split, one after the other; see `score`.

    Raises:
      FlexsegError: where the dataset's classes, channels or preparation do not fit the run.
    """
    from pipelines import batches

    examples = manifest.split(split).sources
    _refuse_misfit(run, manifest)
    slide = (segmenter or run.segmenter()).prepared_probabilities
    same = manifest.preparation == run.preparation
    whole = batches.whole_images(manifest, split)
    for source_id, image, truth in progress(whole, total=examples, unit="image"):
        prepared = image if same else test_time.prepare(image, run.preparation)
        probabilities = test_time.mean(lambda x: slide(x).numpy(), prepared, variants)
        area = truth.size / (prepared.shape[0] * prepared.shape[1])
        yield Segmented(source_id, test_time.resize(probabilities, truth.shape), truth, area)


def groups_of(manifest: manifests.Manifest, source_ids: Sequence[str]) -> list[str] | None:
    """Which group each source belongs to, as far as the dataset tells.

    Its `groups.csv` names the groups, not the sources; but a group is a source's id, or that of the
    volume it is a slice of, or what --group_regex finds in its path. What comes out must be a group
    of the dataset.

    Returns:
      The groups in the order of the sources, or None where one is not known: a file named the
      groups, or the expression needs the suffix of the path.
    """
    options = manifest.options
    path = storage.join(manifest.folder, group_files.FILE)
    if options.get("groups_from_file") or not storage.is_file(path):
        return None
    known = group_files.read_splits(manifest.folder)
    expression = sources.compile_group_regex(options.get("group_regex"))
    groups = []
    for source_id in source_ids:
        candidates = [source_id, source_id.rpartition("/")[0]]
        if expression:
            # Sources that came with splits have theirs before their path.
            name = source_id if options.get("split") else source_id.partition("/")[2]
            match = expression.search(name)
            candidates = [match.group(min(1, expression.groups)) or ""] if match else []
        found = [c for c in candidates if c in known]
        if not found:
            return None
        groups.append(found[0])
    return groups


def write(
    run: Run, evaluation: dict[str, Any], images: Sequence[Sequence[Any]] | None = None
) -> str:
    """Writes `evaluation/<split>.json` and `.csv` into the run directory; returns the former.

    Args:
      run: the run.
      evaluation: the content of the JSON.
      images: that of `evaluation/<split>_images.csv`; None writes none.
    """
    classes = evaluation["classes"]
    storage.make_folder(run.path("evaluation"))
    stem = run.path("evaluation", evaluation["split"])
    storage.write_whole(stem + ".csv", _csv([list(classes[0]), *(c.values() for c in classes)]))
    if images is not None:
        storage.write_whole(stem + "_images.csv", _csv(images))
    storage.write_whole(stem + ".json", json.dumps(evaluation, indent=1).encode())
    return stem + ".json"


def table(evaluation: dict[str, Any]) -> str:
    """The evaluation as a table for a person. Of an older one, what it has."""
    classes, fore = evaluation["classes"], evaluation["foreground"]
    width = max(10, *(len(c["name"]) for c in classes))
    intervals = evaluation.get("intervals")
    ranges = [_range(c["dice"]) for c in intervals["classes"]] if intervals else [""] * len(classes)
    macro = _range(intervals["foreground_dice_macro"]) if intervals else ""
    title = f"{'95% interval':>15} " if intervals else ""
    names = " ".join(f"{name:>7}" for name in ("IoU", "prec.", "recall", "images"))
    head = f"{'class':<{width}}  {'Dice':>7} {title}{names}"
    lines = [f"{evaluation['split']}: {evaluation['images']} images", head, "-" * len(head)]
    for entry, interval in zip(classes, ranges, strict=True):
        rest = [_figure(entry[k]) for k in ("iou", "precision", "recall")]
        lines.append(
            f"{entry['name']:<{width}}  {_figure(entry['dice'])} {interval}{' '.join(rest)} "
            f"{entry['images']:>7}"
        )
    lines += [
        "-" * len(head),
        f"{'foreground':<{width}}  {_figure(fore['dice_macro'])} {macro}"
        f"{_figure(fore['iou_macro'])}  mean over the classes but background",
        f"{'':<{width}}  {_figure(fore['dice_pooled'])} {' ' * len(macro)}"
        f"{'':>7}  all foreground pixels in one pool",
    ]
    if intervals:
        lines += [
            "Pixels of all images in one pool; - where a class is in neither truth nor prediction.",
            f"Intervals: {intervals['resamples']} draws of {intervals['units']} "
            f"{intervals['drawn']}.",
        ]
    lines += _prediction_lines(evaluation)
    for part in (_image_lines, _boundary_lines, _calibration_lines):
        lines += part(evaluation, width)
    return "\n".join(lines)


def _prediction_lines(evaluation: dict[str, Any]) -> list[str]:
    how = evaluation.get("prediction")
    lines = []
    if how and (how["tta"] != "none" or how["scales"] != [1.0]):
        scales = ", ".join(f"{s:g}" for s in how["scales"])
        lines.append(f"Test-time augmentation: {how['tta']}, scales {scales}.")
    if how and how["postprocessing"]:
        names = ", ".join(evaluation["classes"][r["id"]]["name"] for r in how["postprocessing"])
        lines.append(f"Post-processed: {names}. Figures of probabilities are of those before.")
    return lines


def _image_lines(evaluation: dict[str, Any], width: int) -> list[str]:
    if "per_image" not in evaluation:
        return []
    lines = [
        "",
        f"{'per image':<{width}}  {'mean':>7} {'median':>7} {'images':>7}  {'missed':>13}  "
        f"{'false alarms':>13}",
    ]
    own, found = evaluation["per_image"], evaluation["detection"]["classes"]
    for entry, seen in zip(own["classes"], found, strict=True):
        missed = f"{seen['missed_images']} of {seen['images_with']}"
        alarms = f"{seen['false_alarm_images']} of {seen['images_without']}"
        lines.append(
            f"{entry['name']:<{width}}  {_figure(entry['dice_mean'])} "
            f"{_figure(entry['dice_median'])} {entry['images']:>7}  {missed:>13}  {alarms:>13}"
        )
    return [
        *lines,
        f"{'foreground':<{width}}  {_figure(own['foreground']['dice_mean'])}"
        "  mean of the classes' means",
        "Images that have the class in truth or prediction; missed, where it is there and not "
        "found at all.",
    ]


def _boundary_lines(evaluation: dict[str, Any], width: int) -> list[str]:
    if "boundary" not in evaluation:
        return []
    found = evaluation["boundary"]
    height, breadth = found["spacing"]
    unit = "pixels" if height == breadth == 1 else f"the unit of pixels of {height:g} x {breadth:g}"
    lines_only = "" if all(e["thin"] for e in found["classes"]) else " clDice is for thin lines."
    lines = [
        "",
        f"{'boundary':<{width}}  {'HD95':>9} {'surface':>9} {'NSD':>7} {'clDice':>7} {'images':>7} "
        f"{'one-sided':>9}",
    ]
    for entry in found["classes"]:
        lines.append(
            f"{entry['name']:<{width}}  {_length(entry['hd95'])} "
            f"{_length(entry['average_surface_distance'])} {_figure(entry['nsd'])} "
            f"{_figure(entry['cl_dice'])} {entry['images']:>7} {entry['one_sided']:>9}"
        )
    return [
        *lines,
        f"Distances in {unit}; one-sided images have none. NSD within "
        f"{found['nsd_tolerance']:g}.{lines_only}",
    ]


def _calibration_lines(evaluation: dict[str, Any], width: int) -> list[str]:
    if "calibration" not in evaluation:
        return []
    found, overall = evaluation["calibration"], evaluation["overall"]
    return [
        "",
        f"{'overall':<{width}}  calibration error {_figure(found['ece']).strip()}, Brier score "
        f"{_figure(found['brier']).strip()}, pixel accuracy "
        f"{_figure(overall['pixel_accuracy']).strip()}, Matthews "
        f"{_figure(overall['matthews']).strip()}",
    ]


def _figure(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.4f}"


def _length(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.3f}"


def _range(interval: Sequence[float] | None) -> str:
    return f"{'-':>15} " if interval is None else f"{interval[0]:7.4f}-{interval[1]:<7.4f} "


def _csv(lines: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _boundary_options(values: flags.FlagValues) -> BoundaryOptions | None:
    """What --boundary, --nsd_tolerance and --spacing say together."""
    from train.surface import BoundaryOptions

    if not values.boundary:
        for name in ("nsd_tolerance", "spacing"):
            if values[name].present:
                raise UsageError(f"--{name} is for boundaries; give --boundary too.")
        return None
    if not 0 <= values.nsd_tolerance < math.inf:
        raise FlexsegError(
            f"--nsd_tolerance={values.nsd_tolerance}: expected a distance, 0 or more."
        )
    try:
        spacing = [float(part) for part in values.spacing.split(",")]
    except ValueError:
        spacing = []
    if len(spacing) != 2 or not all(0 < side < math.inf for side in spacing):
        raise FlexsegError(
            f'--spacing="{values.spacing}": expected the height and width of a pixel, such as '
            "0.5,0.5."
        )
    return BoundaryOptions(values.nsd_tolerance, (spacing[0], spacing[1]))


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
