"""Model, images, output and bundle on S3: what is made there is what is made here."""

import tempfile
from pathlib import Path

import pytest

from pipelines import storage


@pytest.fixture(scope="module")
def there(bucket):
    """A function that copies a local folder into the bucket and returns its URL."""

    def send(folder, name):
        for file in storage.walk(str(folder)):
            storage.upload(file.path, storage.join(bucket, name, file.name), keep=True)
        return f"{bucket}/{name}"

    return send


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The folder in which local copies are made."""
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    return tmp_path / "copies"


def contents(folder):
    return {f.name: storage.read_bytes(f.path) for f in storage.walk(str(folder))}


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_masks_made_remotely_are_those_made_here(
    kind, untrained_runs, bundle_of, there, pictures, tmp_path, copies, command
):
    model = untrained_runs["colour"].folder if kind == "run" else bundle_of("colour")
    flags = ["--overlay", "--probabilities"]
    local = command(
        "predict",
        f"--model={model}",
        f"--images={pictures}",
        f"--output={tmp_path / 'out'}",
        *flags,
    )
    assert local.status == 0, local.err
    output = f"s3://bucket/{kind}-masks"
    done = command(
        "predict",
        f"--model={there(model, kind)}",
        f"--images={there(pictures, 'pictures')}",
        f"--output={output}",
        *flags,
    )
    assert done.status == 0, done.err
    assert f"{output}: 5 of 5 images segmented." in done.out
    expected, found = contents(tmp_path / "out"), contents(output)
    assert expected.keys() == found.keys()
    for name in expected:
        if not name.endswith(".npz"):  # a zip file, which holds the time
            assert found[name] == expected[name], name
    assert list(copies.glob("flexseg*")) == []


def test_an_image_that_cannot_be_read_is_told_by_its_url(untrained_runs, bucket, command):
    storage.write_whole(f"{bucket}/bad/x.png", b"no image")
    model = untrained_runs["colour"].folder
    done = command(
        "predict", f"--model={model}", f"--images={bucket}/bad", "--output=s3://bucket/o"
    )
    assert done.status == 1
    assert "s3://bucket/bad/x.png" in done.err
    assert tempfile.gettempdir() not in done.err


def test_masks_made_row_by_row_are_sent_whole(untrained_runs, pictures, tmp_path, bucket, command):
    found = []
    for output in (str(tmp_path / "out"), f"{bucket}/rows"):
        given = [f"--model={untrained_runs['colour'].folder}", f"--images={pictures / 'odd.tif'}"]
        flags = ["--whole_pixels=1000", "--probabilities"]
        done = command("predict", *given, f"--output={output}", *flags)
        assert done.status == 0, done.err
        found.append(contents(output))
    assert found[0] == found[1]
    assert sorted(found[0]) == ["odd.npz", "odd.png"]


def test_one_remote_image_is_enough(untrained_runs, there, pictures, tmp_path, command):
    image = there(pictures, "one") + "/deep/er/large.png"
    model = untrained_runs["colour"].folder
    done = command("predict", f"--model={model}", f"--images={image}", f"--output={tmp_path / 'o'}")
    assert done.status == 0, done.err
    assert list(contents(tmp_path / "o")) == ["large.png"]


def test_an_output_among_remote_images_is_refused(untrained_runs, there, pictures, command):
    images = there(pictures, "among")
    model = untrained_runs["colour"].folder
    done = command("predict", f"--model={model}", f"--images={images}", f"--output={images}/out")
    assert done.status == 1
    assert f"--output={images}/out lies inside --images={images}" in done.err


def test_a_bundle_exported_remotely_is_whole_and_described(
    untrained_runs, there, bucket, copies, command
):
    """And an upload that broke off before the model's file was there does not hinder it."""
    output = f"{bucket}/bundles/colour"
    storage.write_whole(f"{output}/variables/variables.index", b"half")
    run = there(untrained_runs["colour"].folder, "exported")
    done = command("export", f"--run={run}", f"--output={output}")
    assert done.status == 0, done.err
    assert f"{output}: written, loaded back, and equal to the network" in done.out
    assert "assets/model_card.json" in contents(output)
    assert f"Bundle {output}" in command("inspect", output).out
    assert f"Run {run}" in command("inspect", run).out
    assert list(copies.glob("flexseg*")) == []

    before = contents(output)
    done = command("export", f"--run={run}", f"--output={output}")
    assert done.status == 1
    assert f"--output={output} holds something already; nothing was touched." in done.err
    assert contents(output) == before


def test_the_file_that_makes_it_a_bundle_is_sent_last(untrained_runs, bucket, monkeypatch, command):
    sent = []
    upload = storage.upload

    def watched(local, path, keep=False):
        sent.append(path)
        upload(local, path, keep)

    monkeypatch.setattr(storage, "upload", watched)
    run = untrained_runs["colour"].folder
    done = command("export", f"--run={run}", f"--output={bucket}/bundles/other")
    assert done.status == 0, done.err
    assert len(sent) > 3
    assert Path(sent[-1]).name == "saved_model.pb"


@pytest.mark.parametrize(
    ("flag", "wanted"),
    [
        ("--model=s3://bucket/none", "--model=s3://bucket/none: there is no such folder."),
        ("--images=s3://bucket/none", "--images=s3://bucket/none: there is no such folder or file"),
    ],
)
def test_what_is_not_there_is_told(untrained_runs, bucket, pictures, command, flag, wanted):
    given = {"--model": untrained_runs["colour"].folder, "--images": pictures, "--output": "o"}
    given[flag.partition("=")[0]] = flag.partition("=")[2]
    done = command("predict", *(f"{name}={value}" for name, value in given.items()))
    assert done.status == 1
    assert wanted in done.err


def test_remote_masks_are_not_described(bucket, command):
    storage.write_whole(f"{bucket}/masks/a.png", b"1")
    done = command("inspect", f"{bucket}/masks")
    assert done.status == 1
    assert "s3://bucket/masks is neither a dataset, nor a run, nor a bundle." in done.err
