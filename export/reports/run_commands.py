"""The commands that do a run again, ready for a shell."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from export.reports import dataset_commands
from export.reports.dataset_commands import Commands
from export.reports.evaluation_facts import Evaluation
from export.reports.run_facts import RunFacts
from pipelines.manifest import Manifest
from train import runs

_OTHER_DATA = "DATASET_OF_THE_EVALUATION"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the way: a title, and commands with what they need."""

    title: str
    commands: Commands


def steps(facts: RunFacts, data: str, manifest: Manifest | None) -> list[Step]:
    """Prepare the dataset, train, choose how masks are cleaned, evaluate in the same ways, export.

    Args:
      facts: of the run.
      data: where its dataset lies.
      manifest: of the dataset; None where it is not at hand, which leaves out how to prepare it.
    """
    run = facts.run
    again = f"{run.folder}_again"
    train = [f"--experiment={run.path(runs.EXPERIMENT)}", f"--data={data}", f"--run={again}"]
    if run.init_from:
        train.append(f"--init_from={run.init_from.run}")
    found = [Step("Prepare", dataset_commands.commands(manifest))] if manifest else []
    found.append(_step("Train", [_line("train", train)]))
    # The run that was made again has no rules until they are chosen again.
    cleans = bool(facts.cleaning) or any(
        not e.postprocessing.is_identity for e in facts.evaluations
    )
    if cleans:
        found.append(_step("Clean masks", [_line("tune-postprocessing", [f"--run={again}"])]))
    if facts.evaluations:
        lines = [_line("evaluate", _evaluation(facts, e, again, cleans)) for e in facts.evaluations]
        elsewhere = any(_OTHER_DATA in line for line in lines)
        meaning = {_OTHER_DATA: "a dataset that the run does not name"} if elsewhere else {}
        found.append(_step("Evaluate", lines, meaning))
    bundle = _line("export", [f"--run={again}", f"--output={again}_bundle"])
    return [*found, _step("Export", [bundle])]


def _step(title: str, lines: Sequence[str], placeholders: dict[str, str] | None = None) -> Step:
    return Step(title, Commands(tuple(lines), {}, placeholders or {}))


def _evaluation(facts: RunFacts, evaluation: Evaluation, folder: str, cleans: bool) -> list[str]:
    """The flags of an evaluation."""
    flags = [f"--run={folder}", f"--split={evaluation.split}"]
    if evaluation.fingerprint not in ("", facts.run.dataset_fingerprint):
        flags.append(f"--data={_OTHER_DATA}")
    if evaluation.tta != "none":
        flags.append(f"--tta={evaluation.tta}")
    if evaluation.scales != (1.0,):
        flags.append(f"--scales={','.join(f'{s:g}' for s in evaluation.scales)}")
    if cleans and evaluation.postprocessing.is_identity:
        flags.append("--nopostprocessing")
    if evaluation.boundary is not None:
        height, width = evaluation.boundary.spacing
        flags.append("--boundary")
        if (height, width) != (1, 1):
            flags.append(f"--spacing={height:g},{width:g}")
        flags.append(f"--nsd_tolerance={evaluation.boundary.tolerance:g}")
    return flags


def _line(name: str, flags: Sequence[str]) -> str:
    return " ".join(["flexseg", name, *map(_quoted, flags)])


def _quoted(flag: str) -> str:
    """A flag for a shell, its value in quotes where it needs them."""
    name, _, value = flag.partition("=")
    return f"{name}={shlex.quote(value)}" if value else name
