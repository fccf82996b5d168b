"""The command: what it makes of its paths, and where it writes."""

import pytest

from export import report


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Reports land in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_dataset_gets_a_page_named_after_it(command, dataset, here):
    outcome = command("report", dataset)
    assert (outcome.status, outcome.out) == (0, "records-report.html\n")
    text = (here / "records-report.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert [path.name for path in here.iterdir()] == ["records-report.html"]


def test_the_same_dataset_gives_the_same_bytes_and_replaces_its_report(command, dataset, here):
    path = here / "deep" / "page.html"
    assert command("report", dataset, f"--output={path}").status == 0
    first = path.read_bytes()
    assert command("report", dataset, f"--output={path}").status == 0
    assert path.read_bytes() == first
    assert command("report", dataset, f"--output={path}", "--pictures=1").status == 0
    assert path.read_bytes() != first


def test_another_file_is_not_replaced_unless_asked(command, dataset, here):
    path = here / "thesis.html"
    path.write_text("<!doctype html>years of work")
    outcome = command("report", dataset, f"--output={path}")
    assert outcome.status == 1
    assert "no report" in outcome.err
    assert "--overwrite" in outcome.err
    assert "years of work" in path.read_text()
    assert command("report", dataset, f"--output={path}", "--overwrite").status == 0
    assert "years of work" not in path.read_text()


def make(folder, *names):
    for name in names:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def test_what_is_neither_dataset_nor_run_is_told(command, here):
    empty = here / "empty"
    empty.mkdir()
    bundle = make(here / "bundle", "saved_model.pb")
    for path, words in (
        (here / "nothing", ["no such folder", "dataset.json", "experiment.yaml"]),
        (empty, ["neither a dataset", "dataset.json", "nor a run", "experiment.yaml"]),
        (bundle, ["is a bundle", "the run that it was exported from"]),
    ):
        outcome = command("report", path)
        assert outcome.status == 1
        assert str(path) in outcome.err
        assert all(word in outcome.err for word in words)
    assert sorted(p.name for p in here.iterdir()) == ["bundle", "empty"]


def test_what_cannot_be_asked_together_is_refused(command, dataset, here):
    one, other = make(here / "one", "experiment.yaml"), make(here / "other", "experiment.yaml")
    folder = here / "page.html"
    folder.mkdir()
    for arguments, status, words in (
        ([], 2, "report takes"),
        ([dataset, one], 2, "is a dataset"),
        ([dataset, "--data=x"], 2, "--data is for runs"),
        ([dataset, "--output=page.pdf"], 2, ".html"),
        ([dataset, f"--output={folder}"], 1, "is a folder"),
        ([dataset, "--pictures=-1"], 2, "--pictures"),
        ([dataset, "--outptu=x.html"], 2, "output"),
    ):
        outcome = command("report", *arguments)
        assert (outcome.status, words in outcome.err) == (status, True), outcome
    assert report.kind_of([str(one), str(other)]) == "runs"
    assert report.kind_of([str(one)]) == "run"


def test_a_damaged_dataset_is_told_and_nothing_is_written(command, dataset, here):
    broken = here / "broken"
    broken.mkdir()
    for path in dataset.iterdir():
        if path.is_file():
            (broken / path.name).write_bytes(path.read_bytes())
    shard = sorted(broken.glob("train-*.tfrecord"))[0]
    shard.write_bytes(shard.read_bytes()[:-3])
    outcome = command("report", broken)
    assert outcome.status == 1
    assert shard.name in outcome.err
    assert [p.name for p in here.iterdir()] == ["broken"]


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (["runs/lung"], "lung-report.html"),
        (["s3://bucket/some records"], "some_records-report.html"),
        (["/a/<b>&.x"], "_b_.x-report.html"),
        (["a", "b"], "comparison-report.html"),
    ],
)
def test_the_file_is_named_after_what_it_shows(paths, name):
    assert report.default_output(paths) == name
