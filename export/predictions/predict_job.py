"""Segmenting as a Beam job: `flexseg predict --runner=...`, on any runner.

Only names travel through Beam. A worker loads the model once, reads an image, and writes its files
by the function that the command without a runner calls, so that the bytes are the same. Models,
images and output must lie where every worker finds them under the same path: on a shared disk, or
at s3:// or gs://.

On this machine one process works with as many threads as --direct_num_workers says: they share the
model, and one reads and writes while another's image is in the network. Memory is that of the
model, and of one image with its probabilities for each thread. Elsewhere every worker process holds
a model of its own.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from absl import flags

from export.predictions import report as reports
from export.predictions.finished import FOLDER
from export.predictions.items import Item
from export.predictions.outputs import Outputs
from export.predictions.report import Report
from flexseg_errors import UsageError
from pipelines import beam_job, job_errors, storage
from pipelines.job_progress import JobProgress

if TYPE_CHECKING:
    from export.predictions.predict_handler import Handler
    from export.predictions.predictors import Predictor, PredictorOptions

_READERS = 16
_LOCAL = "FnApiRunner"
_WORKERS, _MODE = "--direct_num_workers", "--direct_running_mode"


@dataclasses.dataclass(frozen=True)
class RunnerOptions:
    """How a job runs.

    Attributes:
      runner: name of the runner's class.
      flags: all that Beam is given, the runner among it.
    """

    runner: str
    flags: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        return self.runner == _LOCAL


def define_runner_flags(values: flags.FlagValues) -> None:
    """Defines --runner; any option of Beam may follow it."""
    flags.DEFINE_string(
        "runner",
        None,
        "Segment as a job of Apache Beam: direct (threads of this machine, as many as "
        "--direct_num_workers says), dask, portable, flink, spark, dataflow, ...; any option of "
        "Beam may follow. Models, images and output must be where all workers find them. "
        "Default: no job.",
        flag_values=values,
    )


def runner_options(
    runner: str | None, rest: Sequence[str], own: Sequence[str]
) -> RunnerOptions | None:
    """Reads --runner and what else is on the command line.

    Args:
      runner: its name; None for no job.
      rest: arguments that are not flags of the command.
      own: names of the command's flags, for the hint.

    Returns:
      How the job runs; None where there is to be none.

    Raises:
      UsageError: naming the first unknown flag, or the runner, and the nearest known one.
    """
    if not runner:
        for argument in rest:
            raise UsageError(
                f'predict has no flag or argument "{argument}"; options of Apache Beam are for '
                "--runner. See flexseg predict --help."
            )
        return None
    given = [argument.partition("=")[0] for argument in rest]
    workers = [] if _WORKERS in given else [f"{_WORKERS}=1"]
    found = beam_job.check_flags([*rest, *workers], runner, own, "predict")
    name = found[0].rpartition("=")[2].rpartition(".")[2]
    if name != _LOCAL:
        return RunnerOptions(name, tuple(flag for flag in found if flag not in workers))
    if _MODE not in given:
        # Threads, not processes: they share the model, and Beam waits for ever for a process that
        # was killed, as happens when the memory runs out.
        found = [flag for flag in found if not flag.startswith(f"{_MODE}=multi_processing")]
        if not any(flag.startswith(_MODE) for flag in found):
            found.append(f"{_MODE}=multi_threading")
    return RunnerOptions(name, tuple(found))


def run_job(
    items: Sequence[Item],
    load_predictor_arguments: tuple[Sequence[str], PredictorOptions],
    outputs: Outputs,
    options: RunnerOptions,
    predictor: Predictor | None = None,
) -> list[Report]:
    """Segments items as a Beam job, each as `segment_file` does.

    Args:
      items: what to segment; what is finished is left out by the caller.
      load_predictor_arguments: what `predictors.load` is called with on the workers.
      outputs: what is written, and where.
      options: how the job runs.
      predictor: the same, where this process has loaded it: its own threads then use it.

    Returns:
      The items' reports in their order; one with an error for each that could not be segmented.

    Raises:
      FlexsegError: where the job itself failed; what is finished is kept.
    """
    if not items:
        return []
    models, predictor_options = load_predictor_arguments
    models = [models] if isinstance(models, str) else list(models)
    sent = list(items)
    if not options.is_local:  # workers elsewhere do not stand in this folder
        sent = [
            dataclasses.replace(i, path=_absolute(i.path), truth=_absolute(i.truth)) for i in items
        ]
        models = [_absolute(path) for path in models]
        outputs = dataclasses.replace(outputs, folder=_absolute(outputs.folder))
    from export.predictions import predict_handler  # imports Beam, which takes its time

    job = uuid.uuid4().hex
    folder = storage.join(outputs.folder, FOLDER, f"job-{job}")  # gone when it is over
    handler = predict_handler.Handler(models, predictor_options, outputs, job)
    try:
        predict_handler.kept.put(job, predictor if options.is_local else None)
        with JobProgress(folder, "item", len(items)):
            _run(sent, handler, folder, options)
        said = {report.stem: report for report in _delivered(folder)}
    finally:
        predict_handler.kept.put("", None)
        storage.remove(folder)
    return [_given_back(said, item, there) for item, there in zip(items, sent, strict=True)]


def _given_back(said: Mapping[str, Report], item: Item, sent: Item) -> Report:
    """An item's report, with the paths that this process knows it by."""
    report = said.get(item.stem)
    if report is None:
        lost = "the runner lost it; run the same command again, and look at the runner's log"
        return Report(item.stem, item.path, item.state, error=f"{item.path}: {lost}.")
    return dataclasses.replace(
        report,
        path=item.path,
        truth=item.truth if report.truth == sent.truth else report.truth,
        error=report.error.replace(sent.path, item.path),
    )


def _absolute(path: str) -> str:
    return path if not path or storage.is_remote(path) else os.path.abspath(path)


def _delivered(folder: str) -> list[Report]:
    """What the workers have said so far."""
    paths = [storage.join(folder, name) for name in storage.names(folder) if name.endswith(".json")]
    with ThreadPoolExecutor(_READERS) as pool:  # a store takes its time for each
        return [reports.from_json(text) for text in pool.map(storage.read_bytes, paths)]


def _run(items: Sequence[Item], handler: Handler, folder: str, options: RunnerOptions) -> None:
    """Runs the job to its end; its workers leave their reports in `folder`.

    Raises:
      FlexsegError: where what went wrong is known.
    """
    import apache_beam as beam
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.options.pipeline_options import PipelineOptions

    from export.predictions.predict_handler import Deliver

    level = logging.root.manager.disable
    if logging.root.getEffectiveLevel() > logging.INFO:  # --debug lowers it
        logging.disable(logging.ERROR)  # Beam logs each error up to four times before it raises it
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(list(options.flags)))
        _ = (
            pipeline
            | "Items" >> beam.Create([[item] for item in items])  # batches of one, see Handler
            | "Spread" >> beam.Reshuffle()
            | "Segment" >> RunInference(handler)
            | "Deliver" >> beam.ParDo(Deliver(folder))
        )
        result = pipeline.run()
        try:
            result.wait_until_finish()
        finally:
            if client := getattr(result, "client", None):  # of Dask, who goes on or hangs
                client.close()
    except Exception as error:
        if job_errors.interrupted(error):
            raise KeyboardInterrupt from error
        told = job_errors.explained(error, folder, "what is finished is")
        if told is None and options.is_local:
            raise
        raise told or job_errors.failed(error, options.runner) from error
    finally:
        logging.disable(level)
