"""`flexseg inspect` tells a stranger how to ask a bundle, and how far to trust it."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export import bundle
from export.bundles import card_text
from export.inspection import inspect_bundle

ROOT = Path(__file__).parents[2]


def test_a_bundle_is_described(command, bundle_of):
    folder = bundle_of("gray")
    done = command("inspect", folder)
    assert done.status == 0, done.err
    said = done.out.replace("\n    ", " ")  # long lines are wrapped
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    for line in [
        f"Bundle {folder}",
        f"  {sum(p.is_file() for p in folder.rglob('*'))} files, {size / 1e6:.1f} MB",
        "  images: gray, 1 channels, any size; tile 32 x 32",
        "  warm-up requests for TensorFlow Serving: yes",
        "  0 background, painted #000000 (0, 0, 0)",
        "  1 class_1, painted #ffff00 (255, 255, 0)",
        "  serving_default: images uint8 [?,?,?,1] -> class_ids uint8 [?,?,?], "
        "probabilities float32 [?,?,?,2]",
        "  encoded: encoded string [?] -> mask_png string [?]",
        "  rest: image_bytes string [?] -> mask_png_bytes string [?]",
        "  tiled: image uint8 [?,?,1] -> class_ids uint8 [?,?]",
        "  examples: examples string [?] -> mask_png string [?], source_id string [?]",
        f"  fingerprint {'0' * 64}",
        "  How good it is was not measured before it was exported.",
        "  Files with colours are refused.",
        "  the network flex_unet",
        f"  tensorflow {tf.__version__}",
    ]:
        assert f"{line}\n" in said, line
    assert max(map(len, done.out.replace(str(folder), "").splitlines())) <= 100


def test_the_calls_that_it_shows_work(bundle_of, draw_image, tmp_path):
    """The Python as it stands, far from the repository; the shell up to what curl is given."""
    image = draw_image((30, 41), 1)
    Image.fromarray(image[..., 0]).save(tmp_path / "image.png")
    lines = inspect_bundle.example_calls(str(bundle_of("gray")))
    gap = lines.index("")
    code = "\n".join(line[2:] for line in lines[1:gap])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    save = '\nopen("mask.png", "wb").write(mask)'
    done = subprocess.run(
        [sys.executable, "-I", "-c", code + save], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    signature = tf.saved_model.load(str(bundle_of("gray")))
    expected = signature.signatures["tiled"](image=tf.constant(image))["class_ids"].numpy()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), expected)

    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >arguments\ncat\n')
    curl.chmod(0o755)
    shell = "\n".join(line[2:] for line in lines[gap + 2 :])
    done = subprocess.run(
        ["sh", "-c", shell], cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, check=True,
    )  # fmt: skip
    request = json.loads(done.stdout)
    assert request["signature_name"] == "rest"
    (sent,) = request["inputs"]["image_bytes"]
    with tf.io.gfile.GFile(str(tmp_path / "image.png"), "rb") as file:
        data = file.read()
    assert tf.io.decode_base64(sent["b64"].replace("+", "-").replace("/", "_")).numpy() == data
    url = "http://localhost:8501/v1/models/gray:predict"
    assert (tmp_path / "arguments").read_text() == f"-d\n@-\n{url}\n"


def test_a_description_does_not_wait_for_tensorflow(bundle_of):
    code = (
        "import sys, flexseg; status = flexseg.main(['inspect', sys.argv[1]]); "
        "sys.exit(status or 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle_of("gray"))], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def small_files(bundle_of, tmp_path):
    """A bundle of which all but the weights may be changed."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("gray"), folder, ignore=shutil.ignore_patterns("variables"))
    return folder


def test_a_bundle_without_a_saved_model_or_warm_up_is_described_as_that(command, small_files):
    shutil.rmtree(small_files / "assets.extra")
    path = small_files / "assets" / "model_card.json"
    card = json.loads(path.read_text())
    path.write_text(
        json.dumps({**card, "signatures": {}, "formats": {"onnx": {"bytes": 2_000_000}}})
    )
    done = command("inspect", small_files)
    assert done.status == 0, done.err
    assert "warm-up requests for TensorFlow Serving: none" in done.out
    assert "  onnx: ; 2.0 MB\n" in done.out
    assert "In Python" not in done.out


def test_the_card_of_an_older_bundle_is_described_as_far_as_it_goes(command, small_files):
    path = small_files / "assets" / "model_card.json"
    card = json.loads(path.read_text())
    newer = ("colors", "signatures", "data", "postprocessing", "limits")
    path.write_text(json.dumps({k: v for k, v in card.items() if k not in newer}))
    done = command("inspect", small_files)
    assert done.status == 0, done.err
    assert "  0 background\n" in done.out
    assert "Limits" not in done.out


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"channels": 3}', '{"channels": 1, "tile": 3}'])
def test_a_broken_card_is_told_and_the_signatures_all_the_same(command, small_files, text):
    (small_files / "assets" / "model_card.json").write_text(text)
    done = command("inspect", small_files)
    assert done.status == 1
    assert "model_card.json is damaged" in done.err
    assert "export the run again" in done.err
    assert "\n  encoded: encoded string [?] -> mask_png string [?]\n" in done.err


def test_a_saved_model_of_somebody_else_is_told_with_its_signatures(command, tmp_path):
    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")]
    )
    tf.saved_model.save(module, str(tmp_path / "theirs"), signatures={"double": module.f})
    done = command("inspect", tmp_path / "theirs")
    assert done.status == 1
    assert "is a SavedModel, but no bundle of `flexseg export`" in done.err
    assert "\n  double: x float [?,3] -> y float [?,3]\n" in done.err


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "It has no signatures."), (b"\xff" * 40, "saved_model.pb cannot be read either")],
)
def test_what_only_looks_like_a_saved_model_is_told(command, tmp_path, content, message):
    (tmp_path / bundle.MODEL).write_bytes(content)
    done = command("inspect", tmp_path)
    assert done.status == 1
    assert "is a SavedModel, but no bundle of `flexseg export`" in done.err
    assert message in done.err


def test_the_text_of_the_card_holds_what_inspect_shows(bundle_of):
    card = json.loads((bundle_of("gray") / "assets" / "model_card.json").read_text())
    text = io.StringIO(card_text.text(card)).read()
    for lines in card_text.sections(card).values():
        assert all(line in text for line in lines)
