"""What several runs say of one another: where they differ, and whether figures may be compared.

Figures of two runs mean the same only where the same images were scored in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from export.reports import run_settings
from export.reports.evaluation_facts import Evaluation, Figure
from export.reports.run_facts import RunFacts

MISSING = "–"  # where a run has no such key


@dataclasses.dataclass(frozen=True)
class Pairing:
    """How the images of a run compare with the same images of another.

    Attributes:
      images: that have foreground Dice in both.
      better: of them, those where the run has more.
      worse: those where it has less.
      difference: mean of its Dice less the other's; None without images.
    """

    images: int
    better: int
    worse: int
    difference: Figure


def splits(runs: Sequence[RunFacts]) -> list[str]:
    """The splits that any of the runs was scored on, in the order of `RunFacts.evaluations`."""
    return list(dict.fromkeys(e.split for run in runs for e in run.evaluations))


def class_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """The classes of the foreground that any evaluation has, in the order of their ids."""
    return list(dict.fromkeys(c.name for e in evaluations for c in e.classes[1:]))


def differing_settings(runs: Sequence[RunFacts]) -> list[tuple[str, ...]]:
    """The keys in which the runs differ: key, then the value of each run."""
    values = [{s.key: s.value for s in run.settings} | _given(run) for run in runs]
    keys = dict.fromkeys(key for own in values for key in own)
    rows = [(key, *(own.get(key, MISSING) for own in values)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def warnings(names: Sequence[str], runs: Sequence[RunFacts]) -> list[str]:
    """Why figures of these runs may not be compared, in sentences; empty where they may."""
    found = []
    for split in splits(runs):
        scored = [
            (name, e)
            for name, run in zip(names, runs, strict=True)
            if (e := run.evaluation(split)) is not None
        ]
        found += _of_split(split, scored)
    if len({run.run.dataset_fingerprint for run in runs}) > 1:
        found.append(
            "The runs were trained on different data or folds: the curves are of different "
            "images, and cannot be compared."
        )
    if len({run.run.experiment.train.loss for run in runs}) > 1:
        found.append("The runs have different losses, whose values cannot be compared.")
    return found


def paired(own: Evaluation, other: Evaluation) -> Pairing | None:
    """Compares two evaluations image by image; None where they are not of the same images."""
    if not _same_images(own, other):
        return None
    there = {i.source_id: i.foreground for i in other.per_image}
    differences = [
        image.foreground - value
        for image in own.per_image
        if image.foreground is not None and (value := there.get(image.source_id)) is not None
    ]
    if not differences:
        return None
    return Pairing(
        images=len(differences),
        better=sum(d > 0 for d in differences),
        worse=sum(d < 0 for d in differences),
        difference=sum(differences) / len(differences),
    )


def _same_images(own: Evaluation, other: Evaluation) -> bool:
    return own.fingerprint == other.fingerprint != "" and own.size == other.size


def _of_split(split: str, scored: Sequence[tuple[str, Evaluation]]) -> list[str]:
    """Why figures on a split may not be compared."""
    found = []
    if len({e.fingerprint for _, e in scored}) > 1:
        found.append(
            f"The split {split} is not the same in all runs: they were scored on different data "
            f"or folds ({_by(scored, lambda e: e.fingerprint[:12] or 'unknown')}). Their figures "
            "cannot be compared."
        )
    if any(not e.fingerprint for _, e in scored) and len(scored) > 1:
        found.append(
            f"Not all evaluations on {split} say which dataset they are of; flexseg evaluate "
            "writes it now."
        )
    if len({e.size for _, e in scored}) > 1:
        found.append(
            f"On {split}, images were compared at different sizes "
            f"({_by(scored, lambda e: e.size)}): figures differ for that alone."
        )
    if len({tuple(c.name for c in e.classes) for _, e in scored}) > 1:
        found.append(
            f"On {split}, the runs tell different classes apart, so that means over classes are "
            "of different things."
        )
    if len({(e.tta, e.scales, e.postprocessing) for _, e in scored}) > 1:
        found.append(
            f"On {split}, not all runs were scored with the same test-time augmentation and "
            "post-processing; the tables say how."
        )
    return found


def _by(scored: Sequence[tuple[str, Evaluation]], what: Callable[[Evaluation], str]) -> str:
    return "; ".join(f"{name}: {what(e)}" for name, e in scored)


def _given(run: RunFacts) -> dict[str, str]:
    """What decides a run beside its experiment."""
    own = run.run
    return {
        "dataset": own.dataset_fingerprint[:12],
        "examples": "{} x {}".format(*own.size),
        "preparation": run_settings.preparation(own),
        "init_from": own.init_from.run if own.init_from else "none",
    }
