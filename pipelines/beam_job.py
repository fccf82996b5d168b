"""The Beam job: shards that are planned -> shards that are there, on any runner.

Only the shards' names travel through Beam; a worker finds the plan, and leaves the shard, in the
dataset's folder. Shards that are there already are not made again.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
from collections.abc import Sequence
from typing import Any

from flexseg_console import say
from flexseg_errors import FlexsegError, UsageError, nearest
from pipelines import job_errors, local_workers, shards, storage, tfds
from pipelines import manifest as manifests
from pipelines.job_progress import JobProgress
from pipelines.shards import Options, ShardPlan

_LOCAL = "FnApiRunner"
_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
_EXTRAS = {"dask": "dask", "dataflow": "gcp"}  # runner -> what of flexseg brings what it needs


def check_flags(
    rest: Sequence[str], runner: str, own: Sequence[str], command: str = "prepare"
) -> list[str]:
    """Checks what is left of the command line against the options that Beam knows.

    Args:
      rest: arguments that are not flags of this command.
      runner: the runner's name: one of Beam's, or "dask", or where a class can be imported.
      own: names of this command's flags, for the hint.
      command: its name, for the message.

    Returns:
      The flags to give to Beam: all cores are used unless they say otherwise.

    Raises:
      UsageError: naming the first unknown flag, or the runner, and the nearest known one.
    """
    runner = _runner(runner)
    local, others = _local_flags(rest)
    if others or runner != _LOCAL:  # or else Beam, slow to import, has nothing to say yet
        _check_others(rest, own, command)
    beam_flags = [f"--runner={runner}", *rest]
    if runner == _LOCAL:
        workers = local.direct_num_workers
        if workers is None:
            workers = os.cpu_count() or 1
            beam_flags.append(f"--direct_num_workers={workers}")
        if local.direct_running_mode is None:
            mode = "in_memory" if workers == 1 else "multi_processing"
            beam_flags.append(f"--direct_running_mode={mode}")
    bags = ("--dask_npartitions", "--dask_partition_size")
    if runner == _DASK and not any(a.startswith(bags) for a in rest):
        # Beam's own choice is 128 shards a partition, and a partition is one worker's.
        beam_flags.append("--dask_partition_size=1")
    return beam_flags


def execute(
    output: str,
    plans: Sequence[ShardPlan],
    options: Options,
    beam_flags: Sequence[str],
    states: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Materializes the shards that are not there yet, as a Beam job.

    Only the shards' names travel through Beam; a worker finds the plan and leaves the shard in the
    dataset's folder.

    Args:
      output: the dataset's folder.
      plans: all its shards.
      options: the dataset's.
      beam_flags: what `check_flags` returned.
      states: path of a source -> its `storage.state`, where it is known from a listing.

    Returns:
      What each shard says of itself, in the order of the plans.

    Raises:
      FlexsegError: where a shard could not be made; what is finished is kept.
    """
    names = [p.name for p in plans]
    _remove_stale(output, names)
    work = storage.join(output, shards.WORK_FOLDER)
    there = set(storage.names(work))
    todo: list[str] = []
    states = {} if states is None else states
    for shard in plans:
        fingerprint = shard.fingerprint(options, states)
        if shards.finished(output, shard.name, fingerprint) is None:
            if (note := _note(shard.name)) in there:
                storage.remove(storage.join(work, note))  # or it would pass for the new one's
            shards.write_plan(output, shard, options, fingerprint, states)
            todo.append(shard.name)
    if len(todo) < len(plans):
        say(f"{len(plans) - len(todo)} of {len(plans)} shards are already there.")
    if todo:
        with JobProgress(work, "shard", len(names), [_note(name) for name in todo]):
            _make(output, todo, beam_flags)
    made = [shards.finished(output, name) for name in names]
    missing = [name for name, result in zip(names, made, strict=True) if result is None]
    if missing:
        raise FlexsegError(
            f"{len(missing)} shards were not made, {missing[0]} among them. Run the same command "
            "again; if it stays so, look at the runner's log."
        )
    results = [result for result in made if result is not None]
    if todo:
        say(_sums([r for r in results if r["name"] in set(todo)]))
    return results


def _runner(name: str) -> str:
    """The runner by the name that Beam takes.

    Raises:
      UsageError: where there is no such runner, naming the nearest, or what it needs is missing.
    """
    short = name.lower().removesuffix("runner")
    # Beam's DirectRunner first looks for a binary to download; this is what it falls back to.
    if short in ("fnapi", "direct", "switchingdirect", "bundlebaseddirect"):
        return _LOCAL
    from apache_beam.options.pipeline_options import StandardOptions

    known = {}
    for path in (*StandardOptions.ALL_KNOWN_RUNNERS, _DASK):
        if ".test." not in path and ".direct." not in path:
            known[path.rpartition(".")[2].lower().removesuffix("runner")] = path
    if short not in known and "." not in name:
        classes = ["DirectRunner", *(path.rpartition(".")[2] for path in known.values())]
        raise UsageError(
            f"--runner={name}: there is no such runner."
            f"{nearest(name, [*classes, *known, 'direct'])} "
            f"Expected one of {', '.join(sorted(classes))}, or package.module.Class."
        )
    path = known.get(short, name)
    module, _, kind = path.rpartition(".")
    try:
        getattr(importlib.import_module(module), kind)  # this brings its options, too
    except (ImportError, AttributeError) as error:
        extra = _EXTRAS.get(short)
        remedy = f'pip install "flexseg[{extra}]"' if extra else "is it installed?"
        raise UsageError(
            f"--runner={name}: {path} cannot be imported ({error}); {remedy}"
        ) from error
    return path


def _local_flags(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the options that Beam's local runner takes.

    Returns:
      `direct_num_workers` and `direct_running_mode`, None where they are not given; and the rest.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--direct_num_workers", type=int)
    parser.add_argument("--direct_running_mode")
    try:
        known, others = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UsageError(f"{error.argument_name}: {error.message}.") from error
    if (known.direct_num_workers or 0) < 0:
        raise UsageError(
            f"--direct_num_workers={known.direct_num_workers}: expected at least 1, or 0 for the "
            "number of cores."
        )
    return known, others


def _check_others(rest: Sequence[str], own: Sequence[str], command: str) -> None:
    from apache_beam.options import pipeline_options

    # As PipelineOptions.get_all_options does, which only logs what it does not know.
    parser = pipeline_options._BeamArgumentParser(add_help=False, allow_abbrev=False)
    for kind in {str(k): k for k in pipeline_options.PipelineOptions.__subclasses__()}.values():
        kind._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(rest))
    names = [o.lstrip("-") for a in parser._actions for o in a.option_strings]
    for argument in unknown:
        name = argument.lstrip("-").partition("=")[0]
        raise UsageError(
            f'{command} has no flag "{argument}", and neither has Apache Beam.'
            + nearest(name, [*own, *names])
        )


def _make(output: str, names: Sequence[str], beam_flags: Sequence[str]) -> None:
    """Runs the job.

    Raises:
      FlexsegError: where what went wrong is known.
    """
    runner = beam_flags[0].rpartition("=")[2].rpartition(".")[2]
    local, _ = _local_flags(beam_flags)
    processes, log = 1, None
    if runner == _LOCAL and local.direct_running_mode == "multi_processing":
        processes = min(local.direct_num_workers or os.cpu_count() or 1, len(names))
        beam_flags = [*beam_flags, "--direct_running_mode=in_memory", "--direct_num_workers=1"]
    if processes > 1 and not storage.is_remote(output):
        log = os.path.abspath(storage.join(output, shards.WORK_FOLDER, "workers.log"))
    level = logging.root.manager.disable
    if logging.root.getEffectiveLevel() > logging.INFO:  # --debug lowers it
        logging.disable(logging.ERROR)  # Beam logs each error up to four times before it raises it
    try:
        with local_workers.started(processes, log):
            _run_beam(output, names, beam_flags)
    except Exception as error:
        if job_errors.interrupted(error):
            raise KeyboardInterrupt from error
        told = job_errors.explained(error, output, "the shards that are finished are")
        if told is None and runner == _LOCAL:
            raise
        raise told or job_errors.failed(error, runner) from error
    finally:
        logging.disable(level)


def _run_beam(output: str, names: Sequence[str], beam_flags: Sequence[str]) -> Any:
    """Runs the job to its end.

    Returns:
      Beam's `PipelineResult`.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.materialize import Materialize

    folder = output if storage.is_remote(output) else os.path.abspath(output)
    pipeline = beam.Pipeline(options=PipelineOptions(list(beam_flags)))
    _ = (
        pipeline
        | "Names" >> beam.Create(list(names))
        | "Spread" >> beam.Reshuffle()
        | "Materialize" >> beam.ParDo(Materialize(folder))
    )
    result = pipeline.run()
    try:
        result.wait_until_finish()
    finally:
        if client := getattr(result, "client", None):  # of Dask, who goes on with the rest or hangs
            client.close()
    return result


def _remove_stale(output: str, names: Sequence[str]) -> None:
    """Removes what an earlier run left for other sources, so that old and new never mix."""
    there = storage.names(output)
    for name in there:  # the first three are written again, the same if nothing changed
        temporary = name.endswith(".tmp") and name.startswith(
            (manifests.FILENAME, manifests.REJECTED)
        )
        if name == manifests.FILENAME or tfds.is_ours(name) or temporary:
            storage.remove(storage.join(output, name))
    work = storage.join(output, shards.WORK_FOLDER)
    for name in storage.names(work):
        owner = name.partition(".tfrecord")[0] + ".tfrecord"
        if name.endswith(".tmp"):
            storage.remove(storage.join(work, name))
        elif ".tfrecord" in name and owner not in names:
            storage.remove(storage.join(work, name))
            if owner in there:
                storage.remove(storage.join(output, owner))


def _note(shard: str) -> str:
    """The name, in the work folder, of what a finished shard says of itself."""
    return f"{shard}.done.json"


def _sums(made: Sequence[dict[str, Any]]) -> str:
    """One line on what was done, from what the shards say: true of every runner."""
    sources, size = sum(r["sources"] for r in made), sum(r["bytes"] for r in made)
    examples = sum(r["tally"]["examples"] for r in made)
    rejected = sum(len(r["rejected"]) for r in made)
    return (
        f"{len(made)} shards made: {sources} sources read, {rejected} of no use, "
        f"{examples} examples, {size / 1e6:.1f} MB."
    )
