"""The figures and tables of a run's page, with what is said below them."""

from __future__ import annotations

import dataclasses
from typing import Any

from markupsafe import Markup

from export.reports import curve_figures, evaluation_facts, run_figures, run_tables, step_log
from export.reports.evaluation_facts import Evaluation
from export.reports.run_facts import RunFacts
from export.reports.run_tables import Table
from train import monitor

_CURVES = (  # title, unit, figures of the history, whether they are between 0 and 1
    ("Loss", "loss", ("loss", "val_loss"), False),
    ("Foreground Dice", "Dice", ("dice", "val_dice"), True),
    ("Learning rate", "learning rate", ("learning_rate",), False),
)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure with what it says, and the numbers behind it."""

    svg: Markup
    caption: str
    table: Table | None


def curves(facts: RunFacts) -> list[Plot]:
    """The figures over the epochs and steps, as far as the run has them."""
    loss, dice, rate = (_curve(facts, *what) for what in _CURVES)
    every = (loss, dice, _class_curves(facts), rate, _waiting(facts))
    return [plot for plot in every if plot]


def _curve(
    facts: RunFacts, title: str, unit: str, names: tuple[str, ...], share: bool
) -> Plot | None:
    history, best = facts.history, facts.course.best_epoch
    series = {_of_figure(n): history[n] for n in names if n in history}
    svg = curve_figures.curves(title, unit, series, best, share=share) if series else None
    table = run_tables.epochs(f"{title} of each epoch", history, names, best)
    return Plot(svg, f"{title}, by epoch.", table) if svg else None


def _class_curves(facts: RunFacts) -> Plot | None:
    """Dice of each class on the valid split, else on the train split, where it has any."""
    history, best = facts.history, facts.course.best_epoch
    names = [label.name for label in facts.run.label_map.classes[1:]]
    prefix = monitor.VALID + monitor.CLASS
    if not any(prefix + name in history for name in names):
        prefix = monitor.CLASS
    every = {name: history[prefix + name] for name in names if prefix + name in history}
    # A class that is nowhere has no figure; it must not take the place of one that has.
    last = {n: known[-1] for n, v in every.items() if (known := [x for x in v if x is not None])}
    if len(names) < 2 or not last:
        return None  # of one class it is the foreground's
    split = "valid" if prefix.startswith(monitor.VALID) else "train"
    few = set(sorted(last, key=last.__getitem__)[: curve_figures.MOST_LINES])
    title = f"Dice of each class, {split} split"
    series = {name: values for name, values in every.items() if name in few}
    svg = curve_figures.curves(title, "Dice", series, best, share=True)
    left = "" if len(few) == len(last) else f" The {len(few)} lowest of {len(last)} classes."
    table = run_tables.epochs(f"{title}, by epoch", history, [prefix + n for n in every], best)
    return Plot(svg, f"{title}.{left}", table) if svg else None


def _waiting(facts: RunFacts) -> Plot | None:
    """Which share of its time the training waited for input."""
    title = "Share of the time spent waiting for input"
    values = curve_figures.thinned(step_log.scalars(facts.run, step_log.WAITING))
    svg = curve_figures.by_step(title, "share of time", values)
    rows = tuple((f"{step:,}", run_tables.figure(value)) for step, value in values.items())
    table = Table(title, ("Up to step", "Share"), rows)
    return Plot(svg, f"{title}, by step.", table) if svg else None


def _of_figure(name: str) -> str:
    """What a curve is called in the legend of its figure."""
    if name == "learning_rate":
        return "learning rate"
    return "valid split" if name.startswith(monitor.VALID) else "train split"


def evaluation_context(evaluation: Evaluation, number: int) -> dict[str, Any]:
    """What the template shows of an evaluation."""
    on = f" ({evaluation.split} split)" if number > 1 else ""
    background, foreground = evaluation.classes[:1], evaluation.classes[1:]
    rows = [(c.name, [("", c["dice"], c.interval)]) for c in foreground]
    in_images = sum(
        any(i.classes[c.id] is not None for i in evaluation.per_image) for c in foreground
    )
    return {
        "evaluation": evaluation,
        "how": how(evaluation),
        "tables": [
            run_tables.foreground(f"Foreground{on}", evaluation),
            run_tables.classes(f"Classes of the foreground{on}", evaluation, foreground),
            run_tables.classes(
                f"Background, which is in no figure of the foreground{on}", evaluation, background
            ),
        ],
        "plots": _present(
            [
                (
                    run_figures.intervals(f"Dice of each class with its interval{on}", rows)
                    if foreground
                    else None,
                    "Dice over all pixels of the split; the line is the interval, where there is "
                    f"one.{run_figures.left_out(len(rows))}",
                    None,
                ),
                (
                    run_figures.per_image(f"Dice of single images{on}", evaluation),
                    "A dot for each image, a box from the lower to the upper quarter, a line at "
                    f"the median.{run_figures.left_out(in_images)}",
                    run_tables.every_image(f"Dice of each image, the worst first{on}", evaluation),
                ),
                (
                    run_figures.confusion(f"Confusion matrix{on}", evaluation),
                    "Which percentage of each class's true pixels is taken for which class.",
                    run_tables.confusion(
                        f"Pixels; rows are the true class, columns the predicted one{on}",
                        evaluation,
                    ),
                ),
            ]
        ),
        "images": run_tables.images(f"Single images{on}", evaluation),
        "boundary": run_tables.boundary(f"Outlines{on}", evaluation),
        "calibration": run_tables.calibration(f"Calibration{on}", evaluation),
        "legacy": run_tables.legacy(f"Figures of older projects{on}", evaluation),
    }


def _present(plots: list[tuple[Markup | None, str, Table | None]]) -> list[Plot]:
    return [Plot(svg, caption, table) for svg, caption, table in plots if svg]


def how(evaluation: Evaluation) -> list[str]:
    """How the images of a split were segmented and compared, in sentences."""
    original = evaluation.size == "original"
    size = "of the originals" if original else "to which the dataset was prepared"
    lines = [f"{evaluation.images:,} images, compared at the size {size}."]
    if evaluation.drawn:
        lines.append(f"{100 * evaluation.level:g}% intervals by bootstrap over {evaluation.drawn}.")
    if evaluation.tta != "none" or evaluation.scales != (1.0,):
        scales = ", ".join(f"{s:g}" for s in evaluation.scales)
        lines.append(f"Test-time augmentation: {evaluation.tta}, scales {scales}.")
    if not evaluation.postprocessing.is_identity:
        names = [c.name for c in evaluation.classes]
        rules = evaluation_facts.rules_in_words(evaluation.postprocessing, names)
        lines.append(f"Masks were cleaned. {'; '.join(rules)}.")
    return lines
