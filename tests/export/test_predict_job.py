"""Segmenting as a Beam job: the same bytes on every runner, and nothing that goes wrong is lost."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import flexseg
from export.predictions import (
    finished,
    items,
    predict_handler,
    predict_job,
    predictors,
    segment_file,
)
from export.predictions.outputs import Outputs
from export.predictions.report import Report
from flexseg_errors import FlexsegError, UsageError
from pipelines import storage
from tests.pipelines.test_runners import ROOT, free_port

SIZES = {"a.png": (9, 21), "deep/b.bmp": (32, 32), "deep/er/c.tif": (33, 57), "d.jpg": (40, 24)}
HOW = ["--overlay", "--probabilities"]


@pytest.fixture(scope="module")
def images(tmp_path_factory, draw_image):
    """A folder of images of many sizes, and a volume."""
    folder = tmp_path_factory.mktemp("job") / "images"
    for name, size in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), draw_image(size))
    np.save(folder / "stack.npy", draw_image((24, 16), 3).transpose(2, 0, 1))
    return folder


@pytest.fixture(scope="module")
def model(untrained_runs):
    return untrained_runs["colour"].folder


def files(folder: Path) -> dict[str, bytes]:
    """Path -> content of every file, those of hidden folders too; and every empty folder."""
    found = {p: p.read_bytes() if p.is_file() else b"" for p in Path(folder).rglob("*")}
    return {
        str(p.relative_to(folder)): found[p] for p in found if p.is_file() or not any(p.iterdir())
    }


def arguments(model, images, output, *more):
    given = {"model": model, "images": images, "output": output, "table": f"{output}.csv"}
    return ["predict", *(f"--{k}={v}" for k, v in given.items()), *HOW, *more]


@pytest.fixture(scope="module")
def expected(model, images, tmp_path_factory):
    """What the command makes that has no runner: (files, table)."""
    output = tmp_path_factory.mktemp("expected") / "out"
    assert flexseg.main(arguments(model, images, output)) == 0
    return files(output), Path(f"{output}.csv").read_bytes()


def assert_made(output, expected):
    made, table = files(output), Path(f"{output}.csv").read_bytes()
    assert sorted(made) == sorted(expected[0])
    assert made == expected[0]
    assert table == expected[1]


@pytest.fixture
def options():
    """How a job runs on this machine, by the number of its threads."""

    def of(workers=1):
        return predict_job.runner_options("direct", [f"--direct_num_workers={workers}"], [])

    return of


def outputs_of(folder):
    return Outputs(str(folder), model="one", overlay=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_on_this_machine_the_same_bytes(workers, model, images, expected, tmp_path, command):
    given = arguments(model, images, tmp_path / "out", "--runner=direct")
    done = command(*given, f"--direct_num_workers={workers}")
    assert done.status == 0, done.err
    assert_made(tmp_path / "out", expected)


def test_what_cannot_be_segmented_is_named_and_a_rerun_makes_but_that(
    model, images, expected, tmp_path, command, monkeypatch
):
    """One file is no image, and one ends in an error that nobody foresaw."""
    given = arguments(model, tmp_path / "images", tmp_path / "out", "--runner=direct")
    for name, content in files(images).items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(content)
    (tmp_path / "images/a.png").write_bytes(b"no image")

    def fail(item, *rest):
        if item.stem == "deep/b":
            raise ValueError("nobody thought of it")
        return segment_file.segment_file(item, *rest)

    monkeypatch.setattr(predict_handler, "segment_file", fail)
    done = command(*given)
    assert done.status == 1
    assert "2 could not be done" in done.err
    assert f"{tmp_path}/images/a.png" in done.err
    assert f"{tmp_path}/images/deep/b.bmp: ValueError: nobody thought of it" in done.err
    assert "Traceback" not in done.err
    made = files(tmp_path / "out")
    whole = {n for n in expected[0] if not n.startswith(("a.", "deep/b.")) and ".predict" not in n}
    assert {n for n in made if ".predict" not in n} == whole
    assert all(made[name] == expected[0][name] for name in whole)
    times = {name: os.stat(tmp_path / "out" / name).st_mtime_ns for name in whole}

    monkeypatch.undo()
    (tmp_path / "images/a.png").write_bytes((images / "a.png").read_bytes())
    done = command(*given)
    assert done.status == 0, done.err
    made = {n: c for n, c in files(tmp_path / "out").items() if ".predict" not in n}
    assert made == {n: c for n, c in expected[0].items() if ".predict" not in n}
    assert times == {name: os.stat(tmp_path / "out" / name).st_mtime_ns for name in whole}
    assert Path(f"{tmp_path}/out.csv").read_bytes() == expected[1]


def test_where_all_is_there_no_job_is_begun(options, monkeypatch):
    monkeypatch.setattr(predict_job, "_run", None)
    assert predict_job.run_job([], (["nowhere"], None), outputs_of("nowhere"), options()) == []


def test_what_a_runner_loses_is_missed(options, images, tmp_path, monkeypatch):
    """Though there is a report of it from an earlier time."""
    found = items.find_items(str(images), str(tmp_path / "out"))
    monkeypatch.setattr(predict_job, "_run", lambda *_: None)
    outputs = outputs_of(tmp_path / "out")
    for item in found:
        finished.keep(Report(item.stem, item.path, item.state), outputs)
    said = predict_job.run_job(found, (["nowhere"], None), outputs, options())
    assert [r.stem for r in said] == [i.stem for i in found]
    assert all(f"{r.path}: the runner lost it" in r.error for r in said)


def test_workers_elsewhere_are_sent_absolute_paths_and_reports_name_those_given(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"no image")
    sent = []

    def run(items, handler, folder, options):
        sent.append((items, handler._models, handler._outputs.folder))
        for item in items:
            error = f"{item.path}: it is none"
            report = Report(item.stem, item.path, item.state, truth=item.truth, error=error)
            predict_handler.Deliver(folder).process(report)

    monkeypatch.setattr(predict_job, "_run", run)
    (found,) = items.find_items("images", "out")
    found = dataclasses.replace(found, truth="masks/a.png")
    elsewhere = predict_job.RunnerOptions("DaskRunner", ())
    models = ["model", "s3://bucket/model"]
    said = predict_job.run_job([found], (models, None), outputs_of("out"), elsewhere)
    here = str(tmp_path)
    there = dataclasses.replace(found, path=f"{here}/images/a.png", truth=f"{here}/masks/a.png")
    assert sent == [([there], (f"{here}/model", "s3://bucket/model"), f"{here}/out")]
    error = "images/a.png: it is none"
    assert said == [Report("a", "images/a.png", found.state, truth="masks/a.png", error=error)]


@pytest.mark.parametrize("loaded", [False, True])
def test_the_threads_of_a_process_share_one_model(
    options, model, images, tmp_path, monkeypatch, loaded
):
    """Which is the one of this process, where there is one; afterwards none is held on to."""
    found = items.find_items(str(images), str(tmp_path / "out"))
    how = predictors.PredictorOptions()
    predictor = predictors.load(model, how) if loaded else None
    calls = []
    load = predictors.load
    monkeypatch.setattr(predictors, "load", lambda *a: calls.append(a) or load(*a))
    outputs = outputs_of(tmp_path / "out")
    said = predict_job.run_job(found, ([model], how), outputs, options(2), predictor)
    assert [r.stem for r in said] == [i.stem for i in found]
    assert not [r.error for r in said if r.error]
    assert all(r.row for r in said)
    assert calls == ([] if loaded else [((model,), how)])
    assert predict_handler.kept._predictor is None
    assert not list((tmp_path / "out").rglob("job-*")), "nor is what the workers said left"


def test_a_model_that_a_worker_does_not_find_is_told(options, images, tmp_path):
    found = items.find_items(str(images), str(tmp_path / "out"))
    how = predictors.PredictorOptions()
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(FlexsegError, match=f"{nowhere}.* Run the same command again") as told:
        predict_job.run_job(found, ([nowhere], how), outputs_of(tmp_path / "out"), options())
    assert "[while running" not in str(told.value)


def test_options_of_beam_and_their_mistakes():
    def flags(*rest, runner="direct"):
        return set(predict_job.runner_options(runner, list(rest), ["images", "opacity"]).flags)

    local = "--runner=FnApiRunner"
    assert flags() == {local, "--direct_num_workers=1", "--direct_running_mode=in_memory"}
    several = {local, "--direct_num_workers=3"}
    assert flags("--direct_num_workers=3") == {*several, "--direct_running_mode=multi_threading"}
    processes = "--direct_running_mode=multi_processing"
    assert flags("--direct_num_workers=3", processes) == {*several, processes}
    assert predict_job.runner_options(None, [], []) is None
    assert "--direct_num_workers=1" not in flags("--job_endpoint=a:1", runner="portable")
    for rest, message in (
        (["--opacty=1"], 'predict has no flag "--opacty=1".*Did you mean "opacity"'),
        (["--direct_num_workers=many"], "--direct_num_workers"),
    ):
        with pytest.raises(UsageError, match=message):
            flags(*rest)
    with pytest.raises(UsageError, match="there is no such runner"):
        flags(runner="dircet")
    with pytest.raises(UsageError, match='no flag or argument "--direct_num_workers=2"'):
        flags("--direct_num_workers=2", runner=None)


def test_from_a_store_to_a_store_the_same_bytes(model, images, expected, tmp_path, command, bucket):
    for source, name in ((model, "model"), (images, "images")):
        for file in storage.walk(str(source)):
            storage.upload(file.path, f"s3://bucket/{name}/{file.name}", keep=True)
    given = arguments("s3://bucket/model", "s3://bucket/images", "s3://bucket/out")
    for _ in range(2):
        done = command(*given, "--runner=direct", "--direct_num_workers=2")
        assert done.status == 0, done.err
        found = {f.name: storage.read_bytes(f.path) for f in storage.walk("s3://bucket/out")}
        assert found == {n: c for n, c in expected[0].items() if not n.startswith(".predict")}
        assert storage.read_bytes("s3://bucket/out.csv") == expected[1]
    assert "4 images and 1 volume are there already" in done.out
    hidden = [f.name for f in storage.walk("s3://bucket/out/.predict")]
    assert len(hidden) == 6, "options and reports; nothing is left of the job"


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """A client of a Dask scheduler with two workers, processes of one thread in another folder."""
    distributed = pytest.importorskip("distributed")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    commands = [["dask_scheduler", "--host=127.0.0.1", f"--port={port}"]]
    commands += [["dask_worker", address, "--nthreads=1", "--no-nanny"]] * 2
    with (elsewhere / "log").open("w") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{name}", *more, "--no-dashboard"],
                cwd=elsewhere,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )
            for name, *more in commands
        ]
    try:
        with distributed.Client(address, timeout=120, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
            yield client
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def loads() -> int:
    """How many models the process has loaded that this runs in."""
    from export.predictions import predict_handler

    return predict_handler.kept.loads


@pytest.mark.slow
def test_on_dask_the_same_bytes_and_one_model_for_each_worker(
    model, images, expected, tmp_path, dask, command, monkeypatch
):
    """From paths that are relative to where the command is given."""
    monkeypatch.chdir(tmp_path)
    given = arguments(*map(os.path.relpath, (model, images, tmp_path / "out")), "--runner=dask")
    done = command(*given, f"--dask_client_address={dask.scheduler.address}")
    assert done.status == 0, done.err
    assert_made(tmp_path / "out", expected)
    found = dask.run(loads)
    assert set(found.values()) <= {0, 1}, "however many items it segmented"
    assert sum(found.values()) >= 1


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted. Run the same command again to go on."),
        (ZeroDivisionError("by 0"), 1, "unexpected RuntimeError: of Beam"),
    ],
)
def test_what_beam_wraps_is_told_for_what_it_is(
    model, images, tmp_path, command, monkeypatch, error, status, told
):
    import apache_beam

    def run(_):
        raise RuntimeError("of Beam") from error

    monkeypatch.setattr(apache_beam.Pipeline, "run", run)
    level = logging.root.manager.disable
    done = command(*arguments(model, images, tmp_path / "out", "--runner=direct"))
    assert (done.status, told in done.err) == (status, True), done.err
    assert logging.root.manager.disable == level
