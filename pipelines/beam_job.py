"""The Beam job: shards that are planned -> shards that are there, on any runner.

Only the shards' names travel through Beam; a worker finds the plan, and leaves the shard, in the
dataset's folder. Shards that are there already are not made again.
"""

from __future__ import annotations

import glob
import os
import shlex
import sys
import threading
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from flexseg_errors import FlexsegError, UsageError, nearest
from pipelines import manifest as manifests
from pipelines import shards
from pipelines.shards import Options, ShardPlan


def check_flags(rest: Sequence[str], runner: str, own: Sequence[str]) -> list[str]:
    """Checks what is left of the command line against the options that Beam knows.

    Args:
      rest: arguments that are not flags of this command.
      runner: the runner's name.
      own: names of this command's flags, for the hint.

    Returns:
      The flags to give to Beam: all cores are used unless they say otherwise.

    Raises:
      UsageError: naming the first unknown flag and the nearest known one.
    """
    from apache_beam.options import pipeline_options

    # As PipelineOptions.get_all_options does, which only logs what it does not know.
    parser = pipeline_options._BeamArgumentParser(add_help=False, allow_abbrev=False)
    for kind in {str(k): k for k in pipeline_options.PipelineOptions.__subclasses__()}.values():
        kind._add_argparse_args(parser)
    known, unknown = parser.parse_known_args(list(rest))
    names = [o.lstrip("-") for a in parser._actions for o in a.option_strings]
    for argument in unknown:
        name = argument.lstrip("-").partition("=")[0]
        raise UsageError(
            f'prepare has no flag "{argument}", and neither has Apache Beam.'
            + nearest(name, [*own, *names])
        )
    # Beam's DirectRunner first looks for a binary to download; this is what it falls back to.
    runner = "FnApiRunner" if runner.lower() in ("directrunner", "direct") else runner
    beam_flags = [f"--runner={runner}", *rest]
    if runner == "FnApiRunner":
        workers = known.direct_num_workers
        if not any(a.startswith("--direct_num_workers") for a in rest):
            workers = os.cpu_count() or 1
            beam_flags.append(f"--direct_num_workers={workers}")
        if not any(a.startswith("--direct_running_mode") for a in rest):
            mode = "in_memory" if workers == 1 else "multi_processing"
            beam_flags.append(f"--direct_running_mode={mode}")
    return beam_flags


def execute(
    output: str, plans: Sequence[ShardPlan], options: Options, beam_flags: Sequence[str]
) -> list[dict[str, Any]]:
    """Materializes the shards that are not there yet, as a Beam job.

    Only the shards' names travel through Beam; a worker finds the plan and leaves the shard in the
    dataset's folder.

    Returns:
      What each shard says of itself, in the order of the plans.
    """
    names = [p.name for p in plans]
    _remove_stale(output, names)
    todo = []
    for shard in plans:
        shards.write_plan(output, shard, options)
        if shards.finished(output, shard.name, shard.fingerprint(options)) is None:
            todo.append(shard.name)
    if len(todo) < len(plans):
        there = len(plans) - len(todo)
        print(f"{there} of {len(plans)} shards are already there.", file=sys.stderr, flush=True)
    if todo:
        with _Progress(output, names, len(plans) - len(todo)):
            _run_beam(output, todo, beam_flags)
    made = [shards.finished(output, name) for name in names]
    missing = [name for name, result in zip(names, made, strict=True) if result is None]
    if missing:
        raise FlexsegError(
            f"{len(missing)} shards were not made, {missing[0]} among them. Run the same command "
            "again; if it stays so, look at the runner's log."
        )
    return [result for result in made if result is not None]


def _run_beam(output: str, names: Sequence[str], beam_flags: Sequence[str]) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

    from pipelines.materialize import Materialize

    options, runner = PipelineOptions(list(beam_flags)), None
    if options.view_as(DirectOptions).direct_running_mode == "multi_processing":
        runner = _process_runner(os.path.join(output, shards.WORK_FOLDER, "workers.log"))
        options.view_as(DirectOptions).direct_running_mode = "in_memory"  # the runner knows better
    try:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            _ = (
                pipeline
                | "Names" >> beam.Create(list(names))
                | "Spread" >> beam.Reshuffle()
                | "Materialize" >> beam.ParDo(Materialize(os.path.abspath(output)))
            )
    except RuntimeError as error:  # Beam wraps whatever a worker raised, as text
        if "No space left on device" in str(error):
            raise FlexsegError(
                f"The disk of {output} is full. Free some space and run the same command again: "
                "the shards that are finished are kept."
            ) from error
        raise


def _process_runner(log: str) -> Any:
    """Beam's local runner with worker processes, whose chatter goes to a file."""
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    command = (
        f"exec {shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main "
        f"2>{shlex.quote(os.path.abspath(log))}"
    )
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


class _Progress:
    """A bar that counts finished shards, whatever the runner: it looks at the folder."""

    def __init__(self, output: str, names: Sequence[str], done: int):
        self._names = set(names)
        self._pattern = os.path.join(output, shards.WORK_FOLDER, "*.done.json")
        self._before = done
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Progress:
        self._start = len(glob.glob(self._pattern))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        bar = tqdm(total=len(self._names), initial=self._before, unit="shard", disable=None)
        with bar:
            while not self._stop.wait(0.5):
                self._update(bar)
            self._update(bar)

    def _update(self, bar: tqdm) -> None:
        new = len(glob.glob(self._pattern)) - self._start
        bar.update(max(0, self._before + new - bar.n))


def _remove_stale(output: str, names: Sequence[str]) -> None:
    """Removes what an earlier run left for other sources, so that old and new never mix."""
    manifest = os.path.join(output, manifests.FILENAME)
    if os.path.exists(manifest):
        os.remove(manifest)  # written again, the same if nothing changed
    for name in os.listdir(output):  # what write_whole() leaves when it is killed
        if name.endswith(".tmp") and name.startswith((manifests.FILENAME, manifests.REJECTED)):
            os.remove(os.path.join(output, name))
    work = os.path.join(output, shards.WORK_FOLDER)
    for name in os.listdir(work):
        owner = name.partition(".tfrecord")[0] + ".tfrecord"
        if name.endswith(".tmp"):
            os.remove(os.path.join(work, name))
        elif ".tfrecord" in name and owner not in names:
            os.remove(os.path.join(work, name))
            if os.path.exists(os.path.join(output, owner)):
                os.remove(os.path.join(output, owner))
