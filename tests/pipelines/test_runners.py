"""On every runner the same bytes; what goes wrong on a worker is told, and a rerun mends it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

import flexseg
from flexseg_errors import UsageError
from pipelines import (
    beam_job,
    job_errors,
    job_progress,
    local_workers,
    manifest,
    shards,
    storage,
)

ROOT = Path(__file__).parents[2]
STEMS = [f"s{i:02d}" for i in range(14)]
SHARDS = 8 + 2 + 1  # of 11, 2 and 1 sources

# Runs the command line where files may have so many bytes and no more, its workers' also.
LIMITED = """
import resource, sys
import flexseg

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(flexseg.main(sys.argv[2:]))
"""

# Starts workers, says who they are, and is killed before it can end them.
KILLED = """
import os, signal
from pipelines import local_workers

with local_workers.started(2):
    print(*[process.pid for process in local_workers._workers._all], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory, draw, save):
    folder = tmp_path_factory.mktemp("runners")
    draw(folder / "data", STEMS, (16, 20))
    save(folder / "data/images/s05.png", np.zeros((9, 9, 3), np.uint8))  # not its mask's size
    return folder / "data"


@pytest.fixture
def flags(tmp_path, source, literal):
    """The command line, but for the runner: one of the sources is of no use."""
    return [
        "prepare",
        f"--dataset={source}",
        f"--output={tmp_path / 'out'}",
        f"--label_map={literal}",
        "--tile_size=8",
        "--max_rejected=1",
    ]


@pytest.fixture(scope="module")
def expected(tmp_path_factory, source, literal, contents):
    """What one worker in this process makes."""
    output = tmp_path_factory.mktemp("expected") / "out"
    given = [f"--dataset={source}", f"--output={output}", f"--label_map={literal}"]
    more = ["--tile_size=8", "--max_rejected=1", "--direct_num_workers=1"]
    assert flexseg.main(["prepare", *given, *more]) == 0
    return contents(output)


def python(*arguments: object, **how: object) -> subprocess.Popen[str]:
    """Starts Python in the repository; what it prints is in `communicate()`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)


def flexseg_process(*arguments: object) -> tuple[int, str]:
    """Exit status and standard error of a command that runs in a process of its own."""
    process = python("flexseg.py", *arguments)
    _, err = process.communicate()
    return process.returncode, err


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """`start("-m", module, ...)` starts a server, which ends with the module's tests."""
    log = (tmp_path_factory.mktemp("servers") / "log").open("w")
    processes = []

    def run(*arguments: object) -> None:
        processes.append(python(*arguments, stdout=log, stderr=log))

    yield run
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
    log.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def dask(start):
    """A client of a Dask scheduler that has two workers, each a process of one thread."""
    distributed = pytest.importorskip("distributed")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    here = ["--host=127.0.0.1", f"--port={port}", "--no-dashboard"]
    start("-m", "distributed.cli.dask_scheduler", *here)
    for _ in range(2):
        how = ["--nthreads=1", "--no-nanny", "--no-dashboard"]
        start("-m", "distributed.cli.dask_worker", address, *how)
    with distributed.Client(address, timeout=120, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        client.run(__import__, "pipelines.materialize")  # so that neither has a start on the other
        yield client


@pytest.fixture(scope="module")
def job_service(start):
    """The address of Beam's own job service, over gRPC."""
    port = free_port()
    start("-m", "apache_beam.runners.portability.local_job_service_main", "-p", port)
    return f"127.0.0.1:{port}"


def test_on_dask_the_same_bytes_and_every_worker_has_its_share(
    tmp_path, dask, flags, contents, expected
):
    from distributed import get_task_stream

    with get_task_stream(dask) as stream:
        status, err = flexseg_process(
            *flags, "--runner=dask", f"--dask_client_address={dask.scheduler.address}"
        )
    assert status == 0, err
    assert contents(tmp_path / "out") == expected
    made = [t for t in stream.data if str(t["key"][0]).startswith("apply_dofn_to_bundle")]
    assert len(made) == SHARDS, "each shard by itself, so that they can be dealt out"
    assert len({t["worker"] for t in made}) == 2


@pytest.mark.parametrize("environment", ["LOOPBACK", "EXTERNAL"])
def test_on_beams_job_service_the_same_bytes(
    tmp_path, start, job_service, flags, contents, expected, environment
):
    runner = ["--runner=PortableRunner", f"--environment_type={environment}"]
    if environment == "EXTERNAL":  # workers that are started elsewhere; it calls for `python`
        port = free_port()
        start("-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}")
        runner.append(f"--environment_config=127.0.0.1:{port}")
    status, err = flexseg_process(*flags, *runner, f"--job_endpoint={job_service}")
    assert status == 0, err
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_with_several_local_workers_the_same_bytes(
    tmp_path, command, flags, contents, expected, workers
):
    assert command(*flags, f"--direct_num_workers={workers}").status == 0
    assert contents(tmp_path / "out") == expected


def test_on_a_store_the_same_bytes_and_nothing_stale(bucket, command, flags, expected):
    output = f"{bucket}/folder/out"
    stale = ["train-00000-of-00099.tfrecord", ".shards/train-00000-of-00099.tfrecord.done.json"]
    given = [flag for flag in flags if not flag.startswith("--output")]
    for _ in range(2):
        result = command(*given, f"--output={output}", "--direct_num_workers=2")
        assert result.status == 0, result.err
        found = {f.name: storage.read_bytes(f.path) for f in storage.walk(output)}
        assert found == expected
        for name in stale:
            storage.write_whole(storage.join(output, name), b"{}")
    assert f"{SHARDS} of {SHARDS} shards are already there" in result.err


def test_workers_may_be_called_by_a_script_that_is_not_guarded(tmp_path, flags, contents, expected):
    arguments = [*flags, "--direct_num_workers=2"]
    script = tmp_path / "script.py"
    script.write_text(f"import flexseg\nprint('once')\nassert flexseg.main({arguments!r}) == 0\n")
    process = python(script)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.splitlines().count("once") == 1
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize("runner", ["local", "dask", "portable"])
def test_a_worker_that_does_not_see_the_folder_says_what_must_be_so(
    tmp_path, command, flags, monkeypatch, request, runner
):
    more = ["--direct_num_workers=1"]
    if runner == "dask":
        address = request.getfixturevalue("dask").scheduler.address
        more = ["--runner=DaskRunner", f"--dask_client_address={address}"]
    elif runner == "portable":
        address = request.getfixturevalue("job_service")
        more = ["--runner=portable", "--environment_type=LOOPBACK", f"--job_endpoint={address}"]
    monkeypatch.setattr(shards, "write_plan", lambda *_: None)  # as if it lay elsewhere
    result = command(*flags, *more)
    assert result.status == 1
    message = result.err.splitlines()[-1]  # where the job service is Beam's own, that prints, too
    assert message.startswith(f"flexseg prepare: A worker finds no {tmp_path}/out/.shards/")
    assert "must lie where all of them find them under the same path" in message
    assert "[while running" not in message
    assert "Traceback" not in result.err or runner == "portable"


def test_a_full_disk_is_told_and_a_rerun_finishes(tmp_path, command, flags, contents, expected):
    with pytest.MonkeyPatch.context() as patch:
        # A device that is always full, as the kernel has it.
        full = functools.partial(open, "/dev/full", "r+b", buffering=0)
        patch.setattr(tempfile, "TemporaryFile", lambda **_: full())
        result = command(*flags, "--direct_num_workers=1")
    assert result.status == 1
    assert f"The disk of {tmp_path}/out is full (No space left on device)." in result.err
    assert "Run the same command again" in result.err
    assert not (tmp_path / "out/dataset.json").exists()
    assert command(*flags, "--direct_num_workers=1").status == 0
    assert contents(tmp_path / "out") == expected


def test_a_limit_that_workers_meet_is_told_and_a_rerun_keeps_what_is_done(
    tmp_path, command, flags, contents, expected, monkeypatch
):
    # A measurement of coverage would meet the limit, too.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    limit = max(len(data) for name, data in expected.items() if name.endswith(".tfrecord")) - 1
    process = python("-c", LIMITED, limit, *flags, "--direct_num_workers=2")
    _, err = process.communicate()
    assert process.returncode == 1
    assert f"The disk of {tmp_path}/out is full (File too large)." in err
    assert "Traceback" not in err
    made = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/*.tfrecord")}
    assert len(made) < SHARDS
    assert command(*flags, "--direct_num_workers=1").status == 0
    assert contents(tmp_path / "out") == expected
    assert {p: p.stat().st_mtime_ns for p in made} == made


def test_a_worker_that_is_killed_is_missed(tmp_path, command, flags, contents, expected):
    class Killed(local_workers._Workers):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            for process in self._all:
                process.kill()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_workers, "_Workers", Killed)
        result = command(*flags, "--direct_num_workers=2")
    assert result.status == 1
    assert "died (exit status -9), as happens when the memory runs out" in result.err
    assert f"{tmp_path}/out/.shards/workers.log" in result.err
    assert command(*flags, "--direct_num_workers=2").status == 0
    assert contents(tmp_path / "out") == expected


def test_workers_end_when_the_command_is_killed():
    process = python("-c", KILLED)
    # Standard error is the workers' too: it ends when the last of them has.
    out, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(out.split()) == 2


def test_shards_that_a_runner_loses_are_missed_even_where_there_were_some(
    tmp_path, command, draw, literal, monkeypatch
):
    draw(tmp_path / "data", STEMS[:6])
    flags = [f"--dataset={tmp_path}/data", f"--output={tmp_path}/out", f"--label_map={literal}"]
    command("prepare", *flags, "--direct_num_workers=1")
    for path in tmp_path.glob("data/masks/*"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(beam_job, "_run_beam", lambda *_: None)
    result = command("prepare", *flags, "--direct_num_workers=1")
    assert result.status == 1
    assert "6 shards were not made, train-00000-of-00004.tfrecord among them" in result.err


def test_what_beam_counts_is_what_the_manifest_says(tmp_path, command, flags):
    import apache_beam as beam
    from apache_beam.metrics.metric import MetricsFilter

    from pipelines.materialize import Materialize

    result = command(*flags, "--direct_num_workers=1")
    output = str(tmp_path / "out")
    made = manifest.load(output)
    names = [s.name for split in made.splits.values() for s in split.shards]
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | beam.Create(names) | beam.ParDo(Materialize(output))
    found = pipeline.run().metrics().query(MetricsFilter().with_namespace("flexseg"))
    counted = {c.key.metric.name: c.committed for c in found["counters"]}
    size = sum(os.path.getsize(path) for name in made.splits for path in made.paths(name))
    assert counted == {
        "sources": sum(split.sources for split in made.splits.values()),
        "examples": sum(split.examples for split in made.splits.values()),
        "rejected": made.rejected,
        "bytes": size,
    }
    assert (counted["sources"], counted["rejected"]) == (len(STEMS) - 1, 1)
    assert (
        f"{SHARDS} shards made: {counted['sources']} sources read, 1 of no use, "
        f"{counted['examples']} examples, {size / 1e6:.1f} MB."
    ) in result.err


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("FlinkRuner", "FlinkRunner"),
        ("dsk", "dask"),
        ("Dataflow_Runner", "DataflowRunner"),
        ("sparkk", "spark"),
    ],
)
def test_an_unknown_runner_is_refused_and_the_nearest_named(command, flags, name, nearest):
    result = command(*flags, f"--runner={name}")
    assert result.status == 2
    assert f'--runner={name}: there is no such runner. Did you mean "{nearest}"?' in result.err


def test_a_runner_that_cannot_be_imported_is_refused(command, flags):
    result = command(*flags, "--runner=nowhere.at.AllRunner")
    assert result.status == 2
    assert "nowhere.at.AllRunner cannot be imported (No module named 'nowhere')" in result.err


@pytest.mark.parametrize("name", ["dask", "Dask", "DaskRunner", beam_job._DASK])
def test_dask_may_be_named_shortly_and_has_a_partition_for_each_shard(name):
    pytest.importorskip("distributed")
    flag = "--dask_client_address=tcp://127.0.0.1:1"
    runner = f"--runner={beam_job._DASK}"
    assert beam_job.check_flags([flag], name, []) == [runner, flag, "--dask_partition_size=1"]
    for own in ("--dask_npartitions=3", "--dask_partition_size=2"):
        assert beam_job.check_flags([flag, own], name, []) == [runner, flag, own]
    with pytest.raises(UsageError, match='Did you mean "dask_client_address"'):
        beam_job.check_flags(["--dask_client_adress=x"], name, [])


def test_a_runner_that_is_not_there_is_told(command, flags):
    where = f"127.0.0.1:{free_port()}"
    portable = ["--runner=portable", f"--job_endpoint={where}", "--job_server_timeout=1"]
    result = command(*flags, *portable)
    assert result.status == 1
    assert "PortableRunner cannot be reached; look at --job_endpoint" in result.err
    pytest.importorskip("distributed")
    dask = ["--runner=dask", f"--dask_client_address=tcp://{where}", "--dask_connection_timeout=1"]
    result = command(*flags, *dask)
    assert result.status == 1
    assert "DaskRunner cannot be reached" in result.err
    assert where in result.err


@pytest.mark.parametrize("flag", ["--direct_num_workers=many", "--direct_num_workers=-1"])
def test_a_number_of_workers_that_is_none_is_refused(command, flags, flag):
    result = command(*flags, flag)
    assert result.status == 2
    assert "--direct_num_workers" in result.err


def test_where_nothing_is_to_be_done_beam_is_not_imported(command, flags):
    assert command(*flags, "--direct_num_workers=1").status == 0
    program = (
        "import sys, flexseg\n"
        "status = flexseg.main(sys.argv[1:])\n"
        "sys.exit(status or 'apache_beam' in sys.modules)"
    )
    process = python("-c", program, *flags, "--direct_num_workers=2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert f"{SHARDS} of {SHARDS} shards are already there." in err


def test_the_bar_counts_what_was_there_and_what_is_made(tmp_path):
    class Bar:
        n = 2

        def update(self, more):
            self.n += more

    work = tmp_path / shards.WORK_FOLDER
    work.mkdir()
    todo = ["a.tfrecord", "b.tfrecord", "c.tfrecord"]
    awaited = [f"{name}.done.json" for name in todo]
    progress = job_progress.JobProgress(str(work), "shard", 5, awaited)
    bar = Bar()
    for made, name in enumerate(["d", "a.tfrecord", "c.tfrecord"]):
        (work / f"{name}.done.json").touch()
        progress._update(bar)
        assert bar.n == 2 + made


def test_the_bar_moves_while_files_appear(tmp_path, monkeypatch):
    class Bar:
        n = 0
        moved = threading.Event()

        def update(self, more):
            self.n += more
            if self.n:
                self.moved.set()

    bar = Bar()
    monkeypatch.setattr(job_progress, "progress", lambda **_: contextlib.nullcontext(bar))
    monkeypatch.setattr(job_progress, "is_terminal", lambda _: True)
    with job_progress.JobProgress(str(tmp_path), "image", 2):
        (tmp_path / "one").touch()
        assert bar.moved.wait(10)
        (tmp_path / "two").touch()
    assert bar.n == 2, "and it stands where the work stood"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("ModuleNotFoundError: No module named 'pipelines'"), "have no flexseg: inst"),
        (RuntimeError("x\nOSError: [Errno 122] Disk quota exceeded\n"), "disk of out is full (Di"),
        (
            RuntimeError("a\nflexseg_errors.FlexsegError: a.png is empty. [while running 'Make']"),
            "a.png is empty. Run the same command again: what is finished is kept.",
        ),
        (ValueError("who knows"), None),
    ],
)
def test_what_a_worker_met_is_explained_where_it_is_known(error, expected):
    told = job_errors.explained(error, "out", "what is finished is")
    assert told is None if expected is None else expected in str(told)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError("refused"), "cannot be reached; look at --job_endpoint"),
        (type("GrpcTimeoutError", (Exception,), {})("late"), "cannot be reached; look at"),
        (
            ValueError("first\n\n  the last \n"),
            "failed; look at its options and its log (ValueError: the last).",
        ),
        (ValueError(), "failed; look at its options and its log (ValueError: no message)."),
    ],
)
def test_what_a_runner_elsewhere_objects_to_is_told_in_a_line(error, expected):
    told = str(job_errors.failed(error, "DaskRunner"))
    assert told.startswith("DaskRunner " + expected)
    assert "\n" not in told


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted. Run the same command again to go on."),
        (ZeroDivisionError("by 0"), 1, "unexpected RuntimeError: of Beam"),
    ],
)
def test_what_beam_wraps_is_told_for_what_it_is(command, flags, monkeypatch, error, status, told):
    def run(*_):
        raise RuntimeError("of Beam") from error

    monkeypatch.setattr(beam_job, "_run_beam", run)
    level = logging.root.manager.disable
    result = command(*flags, "--direct_num_workers=1")
    assert (result.status, told in result.err) == (status, True), result.err
    assert logging.root.manager.disable == level
