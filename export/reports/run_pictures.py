"""The best and the worst images of an evaluation, segmented anew: image, truth, prediction, error.

An evaluation keeps figures alone, so the pictures need the run's weights and the dataset. Without
them a page says why it has none.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from export.reports import pictures, run_tables
from export.reports.evaluation_facts import Evaluation, Figure, ImageDice
from export.reports.pictures import Picture
from flexseg_errors import FlexsegError
from pipelines import whole_images
from pipelines.label_map import LabelMap
from pipelines.preparation import resize_image, resize_mask
from train import evaluate, previews, test_time
from train.test_time import Variants

if TYPE_CHECKING:
    from export.reports.run_facts import RunFacts
    from pipelines.manifest import Manifest

COUNT = 6  # of the best and of the worst images, unless told otherwise
_ALIKE = 1e-4  # difference of Dice up to which the table and the pictures say the same
_STEP = 8  # of gray values behind errors; fewer of them make a smaller file


@dataclasses.dataclass(frozen=True)
class Case:
    """An image as a page shows it.

    Attributes:
      dice: what the evaluation said of it.
      foreground: its foreground Dice as text.
      classes: name and Dice, as text, of each class that has one; empty where there is only one.
      seen: foreground Dice of what is shown; None where it has none.
      image: what was segmented.
      truth: its mask in the colours of the label map.
      found: the prediction in the same.
      error: what of it is wrong, see `previews.errors`.
    """

    dice: ImageDice
    foreground: str
    classes: tuple[tuple[str, str], ...]
    seen: Figure
    image: Picture
    truth: Picture
    found: Picture
    error: Picture

    @property
    def bytes(self) -> int:
        """What its pictures add to a page."""
        return sum(p.bytes for p in (self.image, self.truth, self.found, self.error))


@dataclasses.dataclass(frozen=True)
class Cases:
    """The worst images and the best, each from the outside in; why, where there are none."""

    worst: tuple[Case, ...] = ()
    best: tuple[Case, ...] = ()
    note: str = ""


def choose(
    images: Sequence[ImageDice], count: int
) -> tuple[tuple[ImageDice, ...], tuple[ImageDice, ...]]:
    """At most so many of the worst and of the best images; none is both, none without a figure."""
    ranked = sorted(
        (i for i in images if i.foreground is not None),
        key=lambda i: (i.foreground, i.source_id),
    )
    worst = ranked[: min(count, (len(ranked) + 1) // 2)]
    rest = ranked[len(worst) :]
    return tuple(worst), tuple(rest[::-1][:count])


def gather(facts: RunFacts, evaluation: Evaluation, count: int, data: str) -> Cases:
    """Segments the best and the worst images of an evaluation in the way that it was made in.

    Args:
      facts: of the run.
      evaluation: of one of its splits.
      count: how many of the worst, and of the best; 0 needs neither data nor TensorFlow.
      data: where the dataset lies; "" for where the run says.
    """
    if not count:
        return Cases(note="Left out, as --pictures=0 asks.")
    if not evaluation.per_image:
        return Cases(
            note="The evaluation has no table of its images; flexseg evaluate writes one now."
        )
    worst, best = choose(evaluation.per_image, count)
    if not worst:
        return Cases(note="No image has foreground in its truth or in its prediction.")
    if not facts.has_weights:
        return Cases(note="The run has no weights that could segment them.")
    if not evaluation.fingerprint:
        return Cases(
            note="The evaluation does not say which dataset it is of; flexseg evaluate does now."
        )
    try:
        manifest = evaluate.dataset_of(facts.run, data or None)
        if manifest.fingerprint != evaluation.fingerprint:
            return Cases(
                note=f"The split {evaluation.split} was scored on another dataset than the one in "
                f"{manifest.folder}; --data=DIR tells where it lies."
            )
        drawn = dict(_drawn(facts, manifest, evaluation, (*worst, *best)))
    except FlexsegError as error:
        return Cases(note=f"The images are not at hand: {error}")
    missing = len(worst) + len(best) - len(drawn)
    kept = _fitting(drawn, worst, best)
    note = _note(list(drawn.values()), missing, len(drawn) - sum(map(len, kept)))
    return Cases(*kept, note)


def _fitting(
    drawn: Mapping[str, Case], worst: Sequence[ImageDice], best: Sequence[ImageDice]
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """The cases that fit into a page, taken in turn from the worst and the best."""
    kept: tuple[list[Case], list[Case]] = ([], [])
    room = pictures.MOST_BYTES
    for pair in itertools.zip_longest(worst, best):
        for part, image in zip(kept, pair, strict=True):
            case = drawn.get(image.source_id) if image else None
            if case is None:
                continue
            room -= case.bytes
            if room < 0:
                return tuple(kept[0]), tuple(kept[1])
            part.append(case)
    return tuple(kept[0]), tuple(kept[1])


def _drawn(
    facts: RunFacts, manifest: Manifest, evaluation: Evaluation, wanted: Sequence[ImageDice]
) -> Iterator[tuple[str, Case]]:
    """Segments images as `evaluate` does, which goes through all of a split."""
    run = facts.run
    open_cases = {image.source_id: image for image in wanted}
    variants = Variants(evaluation.tta, evaluation.scales)
    same = manifest.preparation == run.preparation
    slide = run.segmenter().prepared_probabilities
    for source_id, image, truth in whole_images.whole_images(manifest, evaluation.split):
        if source_id not in open_cases:
            continue
        prepared = image if same else test_time.prepare(image, run.preparation)
        found = test_time.mean(lambda x: slide(x).numpy(), prepared, variants)
        ids = test_time.resize(found, truth.shape).argmax(-1).astype(np.uint8)
        area = truth.size / (prepared.shape[0] * prepared.shape[1])
        ids = evaluation.postprocessing.apply(ids, area)
        yield source_id, _case(open_cases.pop(source_id), image, truth, ids, run.label_map)
        if not open_cases:
            return


def _case(
    dice: ImageDice, image: np.ndarray, truth: np.ndarray, ids: np.ndarray, label_map: LabelMap
) -> Case:
    height, width = truth.shape
    scale = min(1.0, pictures.SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small, small_truth, small_ids = (
        resize_image(image, size),
        resize_mask(truth, size),
        resize_mask(ids, size),
    )
    coarse = small // _STEP * _STEP
    return Case(
        dice=dice,
        foreground=run_tables.figure(dice.foreground),
        classes=_of_classes(dice, label_map),
        seen=_foreground_dice(truth, ids, label_map.num_classes),
        image=pictures.photo(small),
        truth=pictures.mask(small_truth, label_map),
        found=pictures.mask(small_ids, label_map),
        error=pictures.drawing(previews.errors(coarse, small_truth, small_ids)),
    )


def _of_classes(dice: ImageDice, label_map: LabelMap) -> tuple[tuple[str, str], ...]:
    pairs = zip(label_map.names[1:], dice.classes[1:], strict=True)
    found = tuple((name, run_tables.figure(v)) for name, v in pairs if v is not None)
    return found if label_map.num_classes > 2 else ()


def _foreground_dice(truth: np.ndarray, ids: np.ndarray, num_classes: int) -> Figure:
    """Mean Dice of the classes from 1 that are in truth or prediction, as the table has it."""
    from train import metrics

    matrix = metrics.confusion(truth, ids, num_classes).numpy()
    known = [float(d) for d in metrics.dice_of(metrics.tallies(matrix))[1:] if not np.isnan(d)]
    return metrics.mean(known)


def _note(cases: Sequence[Case], missing: int, left_out: int) -> str:
    notes = []
    if missing:
        are = "is" if missing == 1 else "are"
        notes.append(f"{missing} of them {are} not in the dataset any more.")
    if left_out:
        notes.append(f"{left_out} more are left out, as the page would be too large.")
    changed = [
        c.dice.source_id
        for c in cases
        if c.seen is None or abs(c.seen - (c.dice.foreground or 0.0)) > _ALIKE
    ]
    if changed:
        notes.append(
            "What is drawn is not what was scored: the run's weights have changed since (Dice of "
            f"{changed[0]} is other than the table says). flexseg evaluate brings the figures up "
            "to date."
        )
    return " ".join(notes)
