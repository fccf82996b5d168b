r"""Segments folders of images and volumes, or a single one, with a run or an exported bundle.

Every mask is a PNG of the image's own size, pixel value = class id, under the image's relative
path; of a volume, a label volume in its own geometry. Images of any size are taken. Nothing else in
the output folder is touched. What is there already, made by the same model in the same way, is
skipped, so that a command that broke off goes on when it is given again. Model, images and output
may be remote (s3://bucket/name).

Examples:
  flexseg predict --model=runs/lung --images=scans --output=masks --overlay --contour=2
  flexseg predict --model=bundles/lung --images=scan.png --output=masks --probabilities
  flexseg predict --model=runs/a,runs/b --tta=flips --images=scans --output=masks \
      --truth=scans/masks --table=scores.csv
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from absl import flags

from export.bundles import fingerprint
from export.predictions import (
    finished,
    predict_flags,
    predict_job,
    predict_table,
    predict_truth,
    side_by_side,
    writing,
)
from export.predictions.items import VOLUME, Item, find_items, refuse_collisions
from export.predictions.outputs import SUFFIXES, Outputs
from export.predictions.report import Report
from export.volumes import predict_volume
from flexseg_console import result
from flexseg_errors import FlexsegError, UsageError, nearest
from flexseg_flags import stray
from pipelines import storage
from pipelines.label_map import LabelMap

FOREIGN_FLAGS = True  # any option of Beam's, where there is a --runner


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    predict_flags.define_flags(values)
    predict_volume.define_volume_flags(values)
    predict_job.define_runner_flags(values)


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    from export.predictions import predictors

    _refuse_unknown(values, rest)
    for name in ("model", "images", "output"):
        if not getattr(values, name):
            raise UsageError(f"predict needs --{name}. See flexseg predict --help.")
    runner = predict_job.runner_options(values.runner, rest, list(values))
    options = predict_flags.predictor_options(values)
    outputs = predict_flags.outputs_of(values, "")
    items = find_items(values.images, values.output)
    if values.truth:
        items = predict_truth.pair(items, values.truth)
    _note_on_volumes(items, outputs)
    named = list(targets(items, outputs))
    refuse_collisions(items, named)
    models = values.model.split(",")
    predictor = predictors.load(models, options)
    predictor.refuse_maps(outputs.maps)
    outputs.check(predictor.label_map)
    if values.truth:
        predict_truth.reading_of(predictor.label_map, outputs.truth_kind)
    outputs = dataclasses.replace(outputs, model=fingerprint.of_prediction(models, options))
    finished.claim(outputs, (path for _, path in named), values.overwrite)
    done = {} if values.overwrite else finished.find(items, outputs)
    if done:
        print(f"{len(done)} of {_counted(items)} are there already; --overwrite makes them anew.")
    known = scored_again(items, done, predictor.label_map, outputs)
    todo = [item for item in items if item.stem not in known]
    if runner:
        made = predict_job.run_job(todo, (models, options), outputs, runner, predictor)
    else:
        made = side_by_side.segment_items(todo, predictor, outputs)
    known |= {report.stem: report for report in made}
    reports = [known[item.stem] for item in items]
    conclude(reports, items, predictor.label_map, values.output, values.table)


def targets(items: Iterable[Item], outputs: Outputs) -> Iterator[tuple[Item, str]]:
    """Each item with the path of each file that it gets; of volumes, what is known beforehand."""
    for item in items:
        if item.kind == VOLUME:
            names = predict_volume.target_names(item, outputs.volumes)
        else:
            names = [item.stem + SUFFIXES[kind] for kind in outputs.kinds(item.kind)]
        for name in names:
            yield item, storage.join(outputs.folder, *name.split("/"))


def scored_again(
    items: Sequence[Item], done: dict[str, Report], label_map: LabelMap, outputs: Outputs
) -> dict[str, Report]:
    """The reports of what is finished, held against the truths of now; by stem.

    What must be segmented again for that is left out.
    """
    known = {}
    for item in items:
        if item.stem in done:
            report = predict_truth.rescored(done[item.stem], item, label_map, outputs)
            if report is not None:
                known[item.stem] = report
    return known


def conclude(
    reports: Sequence[Report],
    items: Sequence[Item],
    label_map: LabelMap,
    output: str,
    table: str | None,
) -> None:
    """Writes the table, prints the scores, and says what could not be done.

    Args:
      reports: of all items, in their order.
      items: all of them.
      label_map: the model's classes.
      output: the folder, for the messages.
      table: where the table is written; None writes none.

    Raises:
      FlexsegError: naming the items that could not be segmented or scored; all else is done.
    """
    scored = any(item.truth for item in items)
    if table:
        writing.write(table, predict_table.table(reports, label_map, scored))
    failed = [r.error for r in reports if r.error]
    print(f"{output}: {len(items) - len(failed)} of {_counted(items)} segmented.")
    if any(r.row and r.row.confusion for r in reports):
        from train import evaluate

        result(evaluate.table(predict_truth.evaluation(reports, label_map)))
    without = [item.path for item in items if scored and not item.truth]
    if without:
        print(f"{len(without)} have no mask in --truth and are not scored:\n{_listed(without)}")
    if failed:
        raise FlexsegError(f"{len(failed)} could not be done:\n{_listed(failed)}")


def _refuse_unknown(values: flags.FlagValues, rest: Sequence[str]) -> None:
    for argument in rest if not values.runner else ():
        flag = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("-"):
            raise UsageError(stray("predict", argument, values))
        raise UsageError(
            f'predict has no flag "--{flag}".{nearest(flag, list(values))} Options of Apache Beam '
            "are for --runner. See flexseg predict --help."
        )


def _note_on_volumes(items: Sequence[Item], outputs: Outputs) -> None:
    """Says what is not written of volumes, where someone might wait for it."""
    wanted = [kind for kind in outputs.kinds("image") if kind != "mask"]
    if wanted and any(item.kind == VOLUME for item in items):
        print(
            f"Of volumes no {', '.join(wanted)} files are written, but label volumes; pictures of "
            "their slices with --volume_pictures, films with --film."
        )


def _counted(items: Sequence[Item]) -> str:
    stacks = sum(item.kind == VOLUME for item in items)
    images = len(items) - stacks
    parts = [f"{images} image{'s' * (images != 1)}"] * bool(images)
    parts += [f"{stacks} volume{'s' * (stacks != 1)}"] * bool(stacks)
    return " and ".join(parts)


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
