"""A bundle serves by itself what the run's network says, or it is not written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from export import bundle
from pipelines import label_map as label_maps
from train import experiment as experiments
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
            for signature in ("tiled", "encoded"):
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


def test_the_assets_are_the_label_map_and_the_card(bundle_of, untrained_runs):
    run, assets = untrained_runs["colour"], bundle_of("colour") / "assets"
    assert sorted(p.name for p in assets.iterdir()) == ["label_map.yaml", "model_card.json"]
    assert label_maps.load(str(assets / "label_map.yaml")) == run.label_map
    card = json.loads((assets / "model_card.json").read_text())
    assert card == json.loads(json.dumps(bundle.model_card(run)))


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_a_stranger_needs(untrained_runs, name):
    run = untrained_runs[name]
    card = json.loads(json.dumps(bundle.model_card(run)))
    assert card["classes"] == list(run.label_map.names)
    assert card["channels"] == run.channels
    assert card["tile"] == list(run.size)
    size = run.preparation.image_size
    assert card["preparation"] == {
        "image_size": list(size) if size else None,
        "scale": run.preparation.scale,
        "intensity": "none",
        "preprocessing": "",
    }
    assert card["dataset_fingerprint"] == run.dataset_fingerprint
    assert experiments.from_dict(card["experiment"]) == run.experiment
    assert card["versions"] == {"tensorflow": tf.__version__, "keras": keras.__version__}
    assert card["metrics"] == {}


def test_the_card_holds_what_was_evaluated(untrained_runs, tmp_path):
    run = runs.load(shutil.copytree(untrained_runs["colour"].folder, tmp_path / "run"))
    entry = {"id": 0, "name": "background", "dice": 0.5, "images": 3}
    evaluation = {
        "split": "test",
        "images": 3,
        "size": "original",
        "dataset_fingerprint": "abc",
        "foreground": {"dice_macro": 0.25},
        "classes": [entry],
        "legacy": {"dice_coef_multiclass": 0.99},
    }
    (tmp_path / "run" / "evaluation").mkdir()
    (tmp_path / "run" / "evaluation" / "test.json").write_text(json.dumps(evaluation))
    card = bundle.model_card(run)
    del evaluation["split"], evaluation["legacy"]
    assert card["metrics"] == {"test": evaluation}


def left_over(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("difference", [1.0, 2e-5, float("inf"), float("nan")])
def test_a_bundle_that_differs_from_the_network_is_not_kept(
    untrained_runs, tmp_path, command, monkeypatch, difference
):
    """The SavedModel itself is not the matter here, so a stand-in is written."""

    def save(module, folder, signatures):
        os.makedirs(folder)
        Path(folder, "saved_model.pb").write_bytes(b"stand-in")

    monkeypatch.setattr(bundle, "_bundle", lambda *_: tf.Module())
    monkeypatch.setattr(tf.Module, "endpoints", {}, raising=False)
    monkeypatch.setattr(tf.saved_model, "save", save)
    monkeypatch.setattr(bundle, "compare", lambda *_: difference)
    run = untrained_runs["colour"].folder
    done = command("export", f"--run={run}", f"--output={tmp_path / 'bundle'}")
    assert done.status == 1
    assert "differs from the network by" in done.err
    assert "it was not kept" in done.err
    assert left_over(tmp_path) == []
    monkeypatch.setattr(bundle, "compare", lambda *_: 1e-6)
    done = command("export", f"--run={run}", f"--output={tmp_path / 'bundle'}")
    assert done.status == 0
    assert "largest difference of a probability: 1.0e-06" in done.out
    assert left_over(tmp_path) == ["bundle"]


def test_the_comparison_finds_a_bundle_of_other_weights(bundle_of, untrained_runs):
    segmenter = untrained_runs["colour"].segmenter()
    assert bundle.compare(str(bundle_of("colour")), segmenter) <= 1e-5
    bias = segmenter.model.get_layer("logits").bias
    bias.assign_add([0.01, 0.0, 0.0])
    assert bundle.compare(str(bundle_of("colour")), segmenter) > 1e-4


@pytest.mark.parametrize("signature", ["tiled", "encoded"])
def test_the_comparison_looks_at_every_signature(bundle_of, untrained_runs, monkeypatch, signature):
    load = tf.saved_model.load

    def broken(folder):
        loaded = load(folder)
        endpoints = dict(loaded.signatures)
        good = endpoints[signature]

        def zeros(**inputs):
            (key, value), *_ = good(**inputs).items()
            if key == "class_ids":
                return {key: tf.zeros_like(value)}
            blank = tf.zeros_like(tf.io.decode_png(value[0]))
            return {key: tf.io.encode_png(blank)[None]}

        endpoints[signature] = zeros
        loaded.signatures = endpoints
        return loaded

    monkeypatch.setattr(tf.saved_model, "load", broken)
    difference = bundle.compare(str(bundle_of("colour")), untrained_runs["colour"].segmenter())
    assert difference == float("inf")


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
