"""The page of several runs, side by side: what they reach, how they learned, how they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from export.reports import comparison, curve_figures, run_facts, run_figures, run_tables
from export.reports import page as pages
from export.reports.comparison import Pairing
from export.reports.evaluation_facts import ClassFigures, Evaluation
from export.reports.options import Options
from export.reports.run_facts import RunFacts
from export.reports.run_page import state
from export.reports.run_plots import Plot
from export.reports.run_tables import NONE, Table
from train import monitor

_TEMPLATE = "comparison.html.j2"
_LONGEST = 24  # characters of a name
_CURVES = (("dice", "Foreground Dice", "Dice", True), ("loss", "Loss", "loss", False))


@dataclasses.dataclass(frozen=True)
class Named:
    """A run under the name that tells it from the others."""

    name: str
    facts: RunFacts


def page(paths: Sequence[str], options: Options) -> str:
    """The page of several runs as HTML; `options` change nothing.

    Raises:
      FlexsegError: where a path is no run.
    """
    whole_names = run_facts.distinct_names(paths)
    names = short_names(whole_names)
    found = [run_facts.read(path) for path in paths]
    runs = [Named(name, facts) for name, facts in zip(names, found, strict=True)]
    differing = comparison.differing_settings(found)
    return pages.render(
        _TEMPLATE,
        summary=[("Runs", str(len(runs))), *_best(runs, found)],
        warnings=comparison.warnings(names, found),
        notes=[f"{run.name}: {note}" for run in runs for note in run.facts.notes],
        runs=_table_of_runs(runs, whole_names),
        splits=[_split(split, runs) for split in comparison.splits(found)],
        curves=[plot for what in _CURVES if (plot := _curve(runs, *what))],
        differing=Table(
            "Settings in which the runs differ", ("Setting", *names), tuple(differing), numbers=-1
        )
        if differing
        else None,
        nothing=NONE,
    )


def _best(runs: Sequence[Named], found: Sequence[RunFacts]) -> list[tuple[str, str]]:
    """On each split that all runs were scored on alike: which has the most foreground Dice."""
    pairs = []
    for split in comparison.splits(found):
        scored = [(r.name, e) for r in runs if (e := r.facts.evaluation(split)) is not None]
        known = [(value, n) for n, e in scored if (value := e.foreground.get("dice_macro"))]
        if len({e.fingerprint for _, e in scored}) == 1 and len(known) > 1:
            value, name = max(known)
            pairs.append((f"Most foreground Dice, {split}", f"{name}, {run_tables.figure(value)}"))
    return pairs


def short_names(names: Sequence[str]) -> list[str]:
    """Names that fit into figures: as they are, or numbers where one of them is long."""
    if max(map(len, names)) <= _LONGEST:
        return list(names)
    return [f"run {place}" for place in range(1, len(names) + 1)]


def _table_of_runs(runs: Sequence[Named], names: Sequence[str]) -> Table:
    """What each run is; with its name, where the page calls it by a number."""
    numbered = [run.name for run in runs] != list(names)
    header = ("Run", *["Name"] * numbered, "Network", "Training", "Best epoch", "Monitored")
    rows = tuple(
        (
            run.name,
            *[name] * numbered,
            run.facts.run.experiment.model.name,
            state(run.facts),
            NONE if course.best_epoch is None else str(course.best_epoch),
            course.monitored,
            run_tables.short(course.best),
            f"{run_facts.name_of(run.facts.run.data)} ({run.facts.run.dataset_fingerprint[:12]})",
            run.facts.run.folder,
        )
        for run, name in zip(runs, names, strict=True)
        for course in (run.facts.course,)
    )
    return Table("What the runs are", (*header, "Its best", "Dataset", "Path"), rows, numbers=-1)


def _split(split: str, runs: Sequence[Named]) -> dict[str, Any]:
    """What the template shows of a split."""
    scored = [(run.name, e) for run in runs if (e := run.facts.evaluation(split)) is not None]
    names = [name for name, _ in scored]
    of_class = [
        (label, [_named(e, label) for _, e in scored])
        for label in comparison.class_names([e for _, e in scored])
    ]
    rows = [
        ("foreground", [(n, e.foreground.get("dice_macro"), e.interval) for n, e in scored]),
        *(
            (label, [(n, c["dice"] if c else None, c.interval if c else None)
                     for n, c in zip(names, found, strict=True)])
            for label, found in of_class
        ),
    ]  # fmt: skip
    table = tuple(
        (label, *(f"{run_tables.figure(value)} ({run_tables.interval(interval)})"
                  if interval else run_tables.figure(value) for _, value, interval in marks))
        for label, marks in rows
    )  # fmt: skip
    left = [run.name for run in runs if run.name not in names]
    return {
        "name": split,
        "left": left,
        "foreground": _foreground(split, scored),
        "plot": Plot(
            run_figures.intervals(f"Dice on the split {split}, by run", rows),
            "Dice over all pixels of the split; lines are intervals."
            + run_figures.left_out(len(rows)),
            Table(f"Dice of each class ({split})", ("Class", *names), table),
        ),
        "paired": _paired(split, scored),
    }


def _named(evaluation: Evaluation, name: str) -> ClassFigures | None:
    return next((c for c in evaluation.classes[1:] if c.name == name), None)


def _foreground(split: str, scored: Sequence[tuple[str, Evaluation]]) -> Table:
    header = ("Run", "Dice", "Interval", "IoU", "Precision", "Recall", "Pooled", "Images", "How")
    rows = tuple(
        (
            name,
            run_tables.figure(e.foreground.get("dice_macro")),
            run_tables.interval(e.interval),
            *(
                run_tables.figure(e.foreground.get(key))
                for key in ("iou_macro", "precision_macro", "recall_macro", "dice_pooled")
            ),
            str(e.images),
            _how(e),
        )
        for name, e in scored
    )
    return Table(f"Foreground, mean over its classes ({split})", header, rows)


def _how(evaluation: Evaluation) -> str:
    parts = []
    if evaluation.tta != "none":
        parts.append(evaluation.tta)
    if evaluation.scales != (1.0,):
        parts.append("scales " + ", ".join(f"{s:g}" for s in evaluation.scales))
    if not evaluation.postprocessing.is_identity:
        parts.append("post-processed")
    return "; ".join(parts) or "plain"


def _paired(split: str, scored: Sequence[tuple[str, Evaluation]]) -> Table | None:
    """Each run's images beside the same images of the first; None where there are none."""
    if len(scored) < 2:
        return None
    first, reference = scored[0]
    found = [(name, comparison.paired(e, reference)) for name, e in scored[1:]]
    rows = tuple(_pairing(name, pairing) for name, pairing in found if pairing)
    if not rows:
        return None
    header = ("Run", "Mean difference", "Better images", "Worse", "Images")
    return Table(f"Foreground Dice of each image, less that of {first} ({split})", header, rows)


def _pairing(name: str, pairing: Pairing) -> tuple[str, ...]:
    difference = NONE if pairing.difference is None else f"{pairing.difference:+.4f}"
    return name, difference, str(pairing.better), str(pairing.worse), str(pairing.images)


def _curve(runs: Sequence[Named], key: str, title: str, unit: str, share: bool) -> Plot | None:
    """A figure of all runs over the epochs: of the valid split, or of the train split."""
    histories = [(run.name, run.facts.history) for run in runs]
    valid = any(monitor.VALID + key in history for _, history in histories)
    figure, split = (monitor.VALID + key, "valid") if valid else (key, "train")
    known = {name: history[figure] for name, history in histories if figure in history}
    drawn = dict(list(known.items())[: curve_figures.MOST_LINES])
    full = f"{title}, {split} split, by run"
    svg = curve_figures.curves(full, unit, drawn, share=share) if drawn else None
    if not svg:
        return None
    left = f" The first {len(drawn)} of {len(known)} runs." if len(drawn) < len(known) else ""
    epochs = max(map(len, known.values()))
    columns = [tuple(values) + (None,) * (epochs - len(values)) for values in known.values()]
    rows = tuple(
        (str(epoch), *map(run_tables.short, values))
        for epoch, values in enumerate(zip(*columns, strict=True))
    )
    table = Table(f"{title} of each epoch, {split} split", ("Epoch", *known), rows)
    return Plot(svg, f"{title} of the {split} split, by epoch.{left}", table)
