"""A bundle serves by itself what the run's network says, or it is not written."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from export import bundle
from export.bundles import verify_bundle
from export.bundles.verify_bundle import Check
from export.other_formats.formats import Format
from flexseg_errors import FlexsegError
from pipelines.preparation import Preparation
from train import runs

SIZES = {"small": (9, 21), "tile": (32, 32), "odd": (33, 57), "large": (131, 87)}
NAMES = ["colour", "gray", "stretched"]


@pytest.fixture
def images(draw_image):
    """Images of one and of three channels, by name."""
    return {
        f"{name}{channels}": draw_image(size, channels)
        for name, size in SIZES.items()
        for channels in (1, 3)
    }


def served_far_away(folder, images, bundles):
    """What bundles answer in a process that knows nothing of this project."""
    np.savez(folder / "images.npz", **images)
    script = shutil.copy(Path(__file__).parent / "serve_bundles.py", folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, script, "images.npz", "results.npz", *bundles],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "results.npz"))


def test_all_signatures_serve_every_size_with_tensorflow_alone(
    bundle_of, untrained_runs, images, tmp_path
):
    """Of softmax and sigmoid, colour and gray, as they come and resized, in one process."""
    served = served_far_away(tmp_path, images, [bundle_of(name) for name in NAMES])
    for name in NAMES:
        run, told = untrained_runs[name], 0
        segmenter = run.segmenter()
        for key, image in images.items():
            if image.shape[-1] != run.channels:
                continue
            expected = [segmenter.probabilities(x).numpy() for x in (image, image[::-1])]
            probabilities = served[f"{name}/{key}/probabilities"]
            assert probabilities.dtype == np.float32
            np.testing.assert_allclose(probabilities, expected, atol=1e-5)
            ids = served[f"{name}/{key}/class_ids"]
            assert ids.dtype == np.uint8
            np.testing.assert_array_equal(ids, probabilities.argmax(-1))
            for signature in ("tiled", "encoded", "rest", "examples"):
                found = served[f"{name}/{key}/{signature}"]
                assert found.dtype == np.uint8
                np.testing.assert_array_equal(found.reshape(image.shape[:2]), ids[0])
            told += len(np.unique(ids)) > 1
        assert told, "the network tells classes apart, or this test would say little"


def test_the_signatures_are_those_of_the_design(bundle_of):
    signatures = tf.saved_model.load(str(bundle_of("colour"))).signatures

    def described(specs):
        return {key: (spec.shape.as_list(), spec.dtype) for key, spec in specs.items()}

    expected = {
        "serving_default": (
            {"images": ([None, None, None, 3], tf.uint8)},
            {
                "probabilities": ([None, None, None, 3], tf.float32),
                "class_ids": ([None, None, None], tf.uint8),
            },
        ),
        "encoded": ({"encoded": ([None], tf.string)}, {"mask_png": ([None], tf.string)}),
        "rest": ({"image_bytes": ([None], tf.string)}, {"mask_png_bytes": ([None], tf.string)}),
        "examples": (
            {"examples": ([None], tf.string)},
            {"mask_png": ([None], tf.string), "source_id": ([None], tf.string)},
        ),
        "tiled": (
            {"image": ([None, None, 3], tf.uint8)},
            {"class_ids": ([None, None], tf.uint8)},
        ),
    }
    assert set(signatures) == set(expected)
    for key, (takes, gives) in expected.items():
        assert described(signatures[key].structured_input_signature[1]) == takes
        assert described(signatures[key].structured_outputs) == gives


def test_jpeg_and_gray_files_are_decoded_to_the_channels_of_the_network(bundle_of, draw_image):
    signature = tf.saved_model.load(str(bundle_of("colour"))).signatures["encoded"]
    files = [
        tf.io.encode_jpeg(draw_image((40, 30))),
        tf.io.encode_png(draw_image((21, 50), 1)),
        tf.io.encode_png(np.dstack([draw_image((12, 7)), np.full((12, 7), 9, np.uint8)])),
    ]
    masks = signature(encoded=tf.stack(files))["mask_png"]
    shapes = [tf.io.decode_png(mask).shape.as_list() for mask in masks]
    assert shapes == [[40, 30, 1], [21, 50, 1], [12, 7, 1]]


def test_the_weights_are_the_best_of_the_run(bundle_of, untrained_runs):
    """Which are the averaged ones where a run averages; read from the file by h5py alone."""
    best = []
    with h5py.File(untrained_runs["colour"].path(runs.BEST_WEIGHTS)) as file:
        file.visititems(lambda _, x: best.append(x[()]) if isinstance(x, h5py.Dataset) else None)
    reader = tf.train.load_checkpoint(str(bundle_of("colour") / "variables" / "variables"))
    types = reader.get_variable_to_dtype_map()
    kept = [reader.get_tensor(name) for name, kind in types.items() if kind == tf.float32]

    def known(values):
        return sorted((value.shape, value.tobytes()) for value in values)

    assert len(best) > 20
    assert known(kept) == known(best)


def left_over(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_bundle_that_differs_from_the_network_is_not_kept(
    untrained_runs, tmp_path, command, monkeypatch
):
    """The SavedModel itself is not the matter here, so a stand-in is written."""

    def save(trained, segmenter, folder):
        Path(folder, "saved_model.pb").write_bytes(b"stand-in")
        return {}

    def found(**changes):
        good = Check("tiled", 2, None, 0, 0.0)
        checks = [good, dataclasses.replace(Check("serving_default", 2, 1e-6, 0, 0.0), **changes)]
        monkeypatch.setattr(verify_bundle, "check", lambda *_: checks)

    monkeypatch.setattr(bundle, "_save", save)
    monkeypatch.setattr(tf.saved_model, "load", lambda _: tf.Module())
    monkeypatch.setattr(tf.Module, "signatures", {}, raising=False)
    run = untrained_runs["colour"].folder
    for wrong in ({"difference": 2e-5}, {"difference": float("inf")}, {"wrong_pixels": 1}):
        found(**wrong)
        done = command("export", f"--run={run}", f"--output={tmp_path / 'bundle'}")
        assert done.status == 1
        assert "differs from the network (serving_default: probabilities differ by" in done.err
        assert "it was not kept" in done.err
        assert left_over(tmp_path) == []
    found()
    done = command("export", f"--run={run}", f"--output={tmp_path / 'bundle'}")
    assert done.status == 0
    assert "  tiled: 0 pixels differ\n" in done.out
    assert "  serving_default: probabilities differ by 1.0e-06, 0 pixels differ\n" in done.out
    assert "largest difference of a probability: 1.0e-06; checked in " in done.out
    assert left_over(tmp_path) == ["bundle"]


def test_an_empty_folder_becomes_the_bundle_and_what_an_earlier_export_left_is_gone(
    untrained_runs, tmp_path, monkeypatch, command
):
    monkeypatch.setattr(bundle, "_save", lambda *_: {})
    monkeypatch.setattr(bundle, "_check", lambda *_: bundle.Exported(""))
    for name in ("bundle", "serving"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.unfinished").mkdir()
        (tmp_path / f"{name}.unfinished" / "torn").write_text("half")
    run = f"--run={untrained_runs['colour'].folder}"
    flags = [f"--output={tmp_path / 'bundle'}/", f"--serving={tmp_path / 'serving'}"]
    done = command("export", run, *flags)
    assert done.status == 0, done.err
    assert left_over(tmp_path) == ["bundle", "serving"]
    assert "assets" in left_over(tmp_path / "bundle")
    assert "README.md" in left_over(tmp_path / "serving")
    for name in ("bundle", "serving"):
        assert "torn" not in left_over(tmp_path / name)


def test_a_conversion_of_colors_that_a_graph_cannot_do_is_refused(untrained_runs, tmp_path):
    run = untrained_runs["colour"]
    converted = Preparation(preprocessing="gamma=1.5,color=BGR2HSV")
    run = dataclasses.replace(run, preparation=converted)
    with pytest.raises(FlexsegError, match=r"color conversion BGR2HSV.*Prepare without it") as told:
        bundle.write(run, str(tmp_path / "bundle"))
    assert run.folder in str(told.value)
    assert left_over(tmp_path) == []


def test_an_export_that_is_broken_off_leaves_nothing(untrained_runs, tmp_path, monkeypatch):
    def break_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "_save", break_off)
    with pytest.raises(KeyboardInterrupt):
        bundle.write(untrained_runs["colour"], str(tmp_path / "bundle"))
    assert left_over(tmp_path) == []


def test_other_formats_lie_in_the_bundle_and_their_figures_in_the_card(
    untrained_runs, tmp_path, monkeypatch, command
):
    parity = {"agreement": 0.75, "max_difference": 0.5, "images": 2, "source": "drawn"}
    figures = {"files": ["model.onnx"], "bytes": 5_000_000, "parity": parity}

    def write(self, trained, folder, min_agreement):
        assert min_agreement == 0.5
        Path(folder, "model.onnx").write_bytes(b"graph")
        return dict(figures)

    monkeypatch.setattr(Format, "__call__", write)
    run, output = untrained_runs["colour"], tmp_path / "bundle"
    done = command(
        "export",
        f"--run={run.folder}",
        f"--output={output}",
        "--format=onnx",
        "--min_agreement=0.5",
    )
    assert done.status == 0, done.err
    assert left_over(output) == ["assets", "model.onnx"]
    card = json.loads((output / "assets" / "model_card.json").read_text())
    assert card["formats"] == {"onnx": figures}
    assert card["signatures"] == {}
    line = "onnx: model.onnx; 5.0 MB; 75.0000% of pixels alike; probabilities differ by at most"
    assert line in done.out
    assert f"- {line}" in (output / "assets" / "model_card.md").read_text()
    assert "warm-up" not in done.out, "there is no SavedModel to warm up"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=saved-model"], 'Did you mean "saved_model"?'),
        (["--format="], "expected some of saved_model, tflite, "),
        (["--format=saved_model,saved_model_f16"], "a bundle holds one"),
        (["--min_agreement=0.9"], "--min_agreement is for other formats"),
        (["--format=onnx", "--serving=x"], "--serving serves a SavedModel"),
    ],
)
def test_formats_that_cannot_be_are_wrong_usage(command, tmp_path, flags, message):
    done = command("export", "--run=nowhere", f"--output={tmp_path / 'bundle'}", *flags)
    assert done.status == 2
    assert message in done.err


@pytest.mark.parametrize("there", ["a file", "a folder with something in it"])
def test_an_output_that_is_taken_is_refused_and_not_touched(
    untrained_runs, tmp_path, command, there
):
    output = tmp_path / "bundle"
    mine = output if there == "a file" else output / "thesis.tex"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    done = command("export", f"--run={untrained_runs['colour'].folder}", f"--output={output}")
    assert done.status == 1
    assert "holds something already; nothing was touched" in done.err
    assert mine.read_text() == "mine"
    assert left_over(tmp_path) == ["bundle"]


def test_a_run_without_weights_is_told_and_nothing_written(untrained_runs, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(untrained_runs["colour"].folder, run)
    os.remove(run / runs.BEST_WEIGHTS)
    done = command("export", f"--run={run}", f"--output={tmp_path / 'bundle'}")
    assert done.status == 1
    assert "has no trained weights yet" in done.err
    assert left_over(tmp_path) == ["run"]


@pytest.mark.parametrize("missing", ["run", "output"])
def test_export_says_which_flag_it_needs(command, missing):
    done = command("export", *[f"--{n}=x" for n in ("run", "output") if n != missing])
    assert done.status == 2
    assert f"export needs --{missing}" in done.err
