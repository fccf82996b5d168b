"""The page of a run: how it was made, how it learned, how good it is, what it does to images."""

from __future__ import annotations

from export.reports import page as pages
from export.reports import (
    run_commands,
    run_facts,
    run_pictures,
    run_plots,
    run_settings,
    run_tables,
    strips,
)
from export.reports.options import Options
from export.reports.run_facts import RunFacts
from export.reports.run_tables import Table
from flexseg_errors import FlexsegError
from pipelines import manifest as manifests
from pipelines.manifest import Manifest
from train import evaluate, previews

_TEMPLATE = "run.html.j2"
_ENDS = {
    "epochs": "finished",
    "patience": "stopped early, as no epoch was better",
    "break_training": "ended by break_training",
    "another worker": "ended by another worker",
}


def page(path: str, options: Options) -> str:
    """The page of a run as HTML.

    Args:
      path: the run directory; a path or a URL.
      options: `pictures`: how many of the best and of the worst images; `data`: where the dataset
        lies now.

    Raises:
      FlexsegError: where the path is no run.
    """
    facts = run_facts.read(path)
    data = options.data or facts.run.data
    shown = facts.evaluations[0] if facts.evaluations else None
    count = run_pictures.COUNT if options.pictures is None else options.pictures
    cases = run_pictures.gather(facts, shown, count, options.data) if shown else None
    manifest, data_note = dataset_at(facts, data)
    whole = manifests.load(data) if manifest else None  # with all folds
    return pages.render(
        _TEMPLATE,
        facts=facts,
        summary=summary(facts),
        changed=run_tables.settings("Settings that differ from their defaults", facts.changed),
        settings=run_tables.settings("All settings", facts.settings),
        curves=run_plots.curves(facts),
        evaluations=[
            run_plots.evaluation_context(e, len(facts.evaluations)) for e in facts.evaluations
        ],
        shown=shown,
        cases=cases,
        errors=(
            ("false alarm: foreground where there is none", previews.FALSE_ALARM),
            ("missed: foreground that was not found", previews.MISSED),
            ("wrong class: foreground of another class", previews.CONFUSED),
        ),
        colors=[(c.name, c.colors[0]) for c in facts.run.label_map.classes],
        films=strips.read(facts),
        nothing=run_tables.NONE,
        provenance=provenance(facts),
        data_note=data_note,
        data=table_of_splits(manifest) if manifest else None,
        steps=run_commands.steps(facts, data, whole),
    )


def summary(facts: RunFacts) -> list[tuple[str, str]]:
    """The run in short: pairs of name and value."""
    course = facts.course
    pairs = [("Training", state(facts)), ("Network", facts.run.experiment.model.name)]
    if course.best_epoch is not None:
        reached = "" if course.best is None else f", {course.monitored} {course.best:.4f}"
        pairs.append(("Best epoch", f"{course.best_epoch}{reached}"))
    for evaluation in facts.evaluations:
        value = run_tables.figure(evaluation.foreground.get("dice_macro"))
        within = evaluation.interval
        pairs.append(
            (
                f"Foreground Dice, {evaluation.split}",
                f"{value} ({run_tables.interval(within)})" if within else value,
            )
        )
    if not facts.evaluations:
        pairs.append(("Evaluation", "none yet"))
    pairs.append(("Classes", ", ".join(facts.run.label_map.names)))
    return pairs


def state(facts: RunFacts) -> str:
    """How far a run has come, in a few words."""
    course = facts.course
    done = f"{course.epochs} of {course.planned} epochs"
    if course.ended_by:
        return f"{_ENDS.get(course.ended_by, course.ended_by)}, {done}"
    if course.epochs >= course.planned:  # of a release whose checkpoints did not say why
        return f"finished, {done}"
    if not course.epochs and course.step is None:
        return "begun; no epoch is done"
    step = "" if course.step is None else f", checkpoint at step {course.step:,}"
    # Nothing says whether a process is at work on it.
    return f"not finished, {done}{step}"


def provenance(facts: RunFacts) -> list[tuple[str, str]]:
    """Where a run comes from: pairs of name and value."""
    run, experiment = facts.run, facts.run.experiment
    height, width = run.size
    kind = "gray" if run.channels == 1 else "RGB"
    return [
        ("Run directory", run.folder),
        ("Dataset", run.data),
        ("Its fingerprint", run.dataset_fingerprint),
        ("Fold for validation", run_settings.shown(experiment.data.fold)),
        ("Seed", str(experiment.train.seed)),
        ("Examples", f"{height} x {width} pixels, {kind}"),
        ("Preparation", run_settings.preparation(run)),
        ("Weights began as", _origin(facts)),
        *_software(facts),
        ("Masks are cleaned", "; ".join(facts.cleaning) if facts.cleaning else "no"),
    ]


def dataset_at(facts: RunFacts, data: str) -> tuple[Manifest | None, str]:
    """The dataset that a run was trained on, as the run sees it; else None, and why."""
    try:
        manifest = evaluate.dataset_of(facts.run, data)
    except FlexsegError as error:
        return None, f"The dataset is not at hand: {error}"
    if manifest.fingerprint != facts.run.dataset_fingerprint:
        return None, f"{manifest.folder} holds another dataset than the run was trained on."
    return manifest, _how_split(manifest)


def _how_split(manifest: Manifest) -> str:
    shares, folds, seed = map(manifest.options.get, ("split", "folds", "split_seed"))
    text = f"Split by groups: {shares}" if shares else "The sources came with their splits"
    text += f"; train in {folds} folds" if folds else ""
    drawn = (shares or folds) and seed is not None
    return f"{text}, seed {seed}." if drawn else f"{text}."


def table_of_splits(manifest: Manifest) -> Table:
    """What the dataset holds, split by split."""
    names = [f"with {name}" for name in manifest.label_map.names]
    rows = tuple(
        (name, f"{s.sources:,}", f"{s.groups:,}", f"{s.examples:,}",
         *(f"{n:,}" for n in s.class_sources))
        for name, s in manifest.splits.items()
    )  # fmt: skip
    header = ("Split", "Sources", "Groups", "Examples", *names)
    return Table("What the dataset holds", header, rows)


def _origin(facts: RunFacts) -> str:
    origin = facts.run.init_from
    if origin:
        return f"the best of {origin.run} ({origin.weights_sha256[:12]})"
    network = facts.run.experiment.model.network
    weights = str(getattr(network, "weights", "none"))
    return "drawn by the seed" if weights in ("none", "None", "") else f"the backbone of {weights}"


def _software(facts: RunFacts) -> list[tuple[str, str]]:
    """What the run was trained with, a pair for each change."""
    pairs = []
    for used in facts.software:
        since = f", from step {used.from_step:,} on" if used.from_step else ""
        pairs.append((f"Trained with{since}", str(used.software)))
    return pairs
