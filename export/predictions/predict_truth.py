"""Masks that predictions are held against: found, read, and summed up."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from export.predictions.items import VOLUME, Item
from export.predictions.outputs import Outputs
from export.predictions.report import Report, confusion_of
from flexseg_errors import FlexsegError
from pipelines import masks, readers, storage, volumes
from pipelines.label_map import LabelMap
from pipelines.masks import MaskReading

_SEED = 137  # of the intervals' draws, as in an evaluation


def pair(items: Sequence[Item], truth: str) -> list[Item]:
    """Gives each item its mask, the one with the same path below its folder, without suffix.

    Args:
      items: what is segmented.
      truth: a folder with all below it; or, of one item, its mask.

    Raises:
      FlexsegError: where there is no such folder, several masks share the stem of an item, or none
        of the items has one.
    """
    if storage.is_file(truth):
        if len(items) > 1:
            raise FlexsegError(
                f"--truth={truth} is one mask, but there are {len(items)} images; give a folder."
            )
        return [dataclasses.replace(items[0], truth=truth)]
    if not storage.is_folder(truth):
        raise FlexsegError(f"--truth={truth}: there is no such folder or file.")
    found = _find(truth)
    for item in items:
        if len(found.get(item.stem, ())) > 1:
            raise FlexsegError(
                f"--truth: {', '.join(found[item.stem])} could all be the mask of {item.path}. "
                "Remove or rename all but one."
            )
    paired = [dataclasses.replace(i, truth=found.get(i.stem, [""])[0]) for i in items]
    if not any(item.truth for item in paired):
        there = ", ".join(sorted(found)[:3]) or "no mask"
        raise FlexsegError(
            f"--truth={truth} holds no mask of any image: masks are paired by their path without "
            f"suffix; expected {items[0].stem}, for example, and found {there}."
        )
    return paired


def read(item: Item, size: tuple[int, int], label_map: LabelMap, kind: str) -> np.ndarray:
    """The mask of an image.

    Args:
      item: an image with a truth.
      size: (H, W) that it must have.
      label_map: the classes.
      kind: what it holds; see `masks.parse_kind`.

    Returns:
      class ids uint8 [H, W]; 255 is ignored.

    Raises:
      FlexsegError: where it cannot be read or has another size.
    """
    reading = reading_of(label_map, kind)
    with storage.local_copy(item.truth) as local:
        try:
            values = readers.read_index(local) if kind == "index" else readers.read_mask(local)
        except FlexsegError as error:
            raise FlexsegError(str(error).replace(local, item.truth)) from error
    if values.shape[:2] != size:
        raise FlexsegError(
            f"{item.truth} is {values.shape[0]}x{values.shape[1]}, but {item.path} is "
            f"{size[0]}x{size[1]}; a mask must have its image's size."
        )
    if readers.is_one_hot(item.truth):
        reading = MaskReading("index")
    try:
        return masks.to_ids(values, label_map, reading).ids
    except FlexsegError as error:
        raise FlexsegError(f"{item.truth}: {error}") from error


def reading_of(label_map: LabelMap, kind: str) -> MaskReading:
    """How masks of a kind are read; colours up to half the largest distance of two of the map."""
    reading = MaskReading(*masks.parse_kind(kind), color_tolerance=label_map.blend_tolerance)
    masks.check(label_map, reading)
    return reading


def state(item: Item) -> tuple[int, int | str]:
    """The state of an item's truth; see `Item.state`."""
    if not item.truth:
        return -1, -1
    found = volumes.state(item.truth) if item.kind == VOLUME else storage.state(item.truth)
    return found[0], found[1]


def score(report: Report, item: Item, ids: np.ndarray, label_map: LabelMap, kind: str) -> Report:
    """Holds an image against its truth.

    Args:
      report: what is known of the image.
      item: the image.
      ids: what was found, class ids uint8 [H, W].
      label_map: the classes.
      kind: what the truth holds; see `masks.parse_kind`.

    Returns:
      The report with the confusion matrix, or with the error that prevented it.
    """
    if not item.truth or report.row is None:
        return report
    size = ids.shape[0], ids.shape[1]
    try:
        truth = read(item, size, label_map, kind)
    except FlexsegError as error:
        return dataclasses.replace(report, error=str(error))
    matrix = confusion_of(truth, ids, label_map.num_classes).tolist()
    row = dataclasses.replace(report.row, confusion=tuple(map(tuple, matrix)))
    return dataclasses.replace(
        report, row=row, truth=item.truth, truth_state=state(item), truth_kind=kind
    )


def rescored(report: Report, item: Item, label_map: LabelMap, outputs: Outputs) -> Report | None:
    """The report of a finished item as if it had been held against the truth of now.

    Where it was held against another or none, its mask is read again.

    Returns:
      None where that takes segmenting it again, as it does for volumes.
    """
    if report.row is None:
        return None
    if not item.truth:
        row = dataclasses.replace(report.row, confusion=())
        return dataclasses.replace(
            report, row=row, truth="", truth_state=(-1, -1), truth_kind="", error=""
        )
    known = report.truth, report.truth_state, report.truth_kind
    if known == (item.truth, state(item), outputs.truth_kind):
        return report
    if item.kind == VOLUME:
        return None
    try:
        ids = read_back(report, label_map, outputs)
    except FlexsegError:
        return None
    return score(report, item, ids, label_map, outputs.truth_kind)


def read_back(report: Report, label_map: LabelMap, outputs: Outputs) -> np.ndarray:
    """The mask of an image that was written, class ids uint8 [H, W].

    Raises:
      FlexsegError: where it cannot be read.
    """
    name = next(name for name, kind in report.files.items() if kind == "mask")
    with storage.local_copy(storage.join(outputs.folder, *name.split("/"))) as local:
        if outputs.mask_format != "rgb":
            return readers.read_index(local).astype(np.uint8)
        return masks.to_ids(readers.read_mask(local), label_map, MaskReading()).ids


def evaluation(reports: Sequence[Report], label_map: LabelMap) -> dict[str, Any]:
    """Sums up the items that have a truth, in the form that `train.evaluate.table` shows.

    Pixels of all items are pooled; see `scoring.CLASS_RULE`. Calibration is no part of it: what is
    scored are the class ids that were written.
    """
    from train import intervals, metrics

    matrices = [np.array(r.row.confusion) for r in reports if r.row and r.row.confusion]
    count = label_map.num_classes
    matrix = sum(matrices, np.zeros((count, count), np.int64))
    counts = np.stack([metrics.tallies(m) for m in matrices])
    found = intervals.bootstrap(counts, None, seed=_SEED)
    images, seen = metrics.per_image(counts), metrics.detection(counts)

    def each(scores: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {"id": label.id, "name": label.name, **dataclasses.asdict(score)}
            for label, score in zip(label_map.classes, scores, strict=True)
        ]

    occurs = np.sum([m.sum(1) > 0 for m in matrices], 0)
    classes = each(metrics.per_class(matrix))
    return {
        "split": "truth",
        "images": len(matrices),
        "classes": [{**entry, "images": int(occurs[entry["id"]])} for entry in classes],
        "foreground": dataclasses.asdict(metrics.foreground(matrix)),
        "confusion": matrix.tolist(),
        "intervals": {
            "level": intervals.LEVEL,
            "resamples": intervals.RESAMPLES,
            "drawn": "images",
            "units": found.units,
            "foreground_dice_macro": _plain(found.dice_macro),
            "classes": [
                {"id": label.id, "name": label.name, "dice": _plain(interval)}
                for label, interval in zip(label_map.classes, found.dice, strict=True)
            ],
        },
        "per_image": {
            "classes": each(images),
            "foreground": {"dice_mean": metrics.mean(s.dice_mean for s in images[1:])},
        },
        "detection": {"classes": each(seen)},
    }


def _plain(interval: Sequence[float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _find(folder: str) -> dict[str, list[str]]:
    files = list(storage.walk(folder))
    stacks, consumed = volumes.find_volumes(folder, files)
    found = defaultdict(list, {stem: [path] for stem, path in stacks.items()})
    for file in files:
        if file.name not in consumed and readers.is_mask(file.name):
            found[readers.stem(file.name)].append(file.path)
    return found
