"""The warm-up file holds requests that the bundle answers, for every signature."""

import numpy as np
import pytest
import tensorflow as tf

from export import bundle
from export.bundles import warmup

apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")

FILE = "assets.extra/tf_serving_warmup_requests"


@pytest.fixture(scope="module")
def logged(bundle_of):
    """The requests as TensorFlow Serving reads them: (signature, inputs)."""
    found = []
    for data in tf.data.TFRecordDataset(str(bundle_of("gray") / FILE)):
        request = apis.PredictionLog.FromString(data.numpy()).predict_log.request
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        found.append((request.model_spec.signature_name, inputs))
    return found


def test_every_request_is_answered_by_its_signature(bundle_of, logged):
    signatures = tf.saved_model.load(str(bundle_of("gray"))).signatures
    sizes = {name: set() for name in signatures}
    for name, inputs in logged:
        answer = signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
        mask = answer[next(k for k in ("class_ids", "mask_png", "mask_png_bytes") if k in answer)]
        if mask.dtype == tf.string:
            mask = tf.io.decode_png(mask[0])[..., 0]
        sizes[name].add(tuple(np.squeeze(mask.numpy()).shape))
    assert sizes == {name: {(32, 32), (48, 48)} for name in signatures}, "a tile, and several"


def test_serving_takes_so_many(logged):
    assert 0 < len(logged) <= 1000


def test_the_same_network_always_gets_the_same_requests(tmp_path):
    for name in ("a", "b"):
        assert warmup.write(str(tmp_path / name), (16, 24), 3) == 10
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()


def test_without_the_library_there_are_none_and_the_command_says_so(
    untrained_runs, tmp_path, command, monkeypatch
):
    check = bundle.Exported("")
    monkeypatch.setattr(bundle, "_save", lambda *_: {})
    monkeypatch.setattr(bundle, "_check", lambda *_: check)
    run = f"--run={untrained_runs['gray'].folder}"
    done = command("export", run, f"--output={tmp_path / 'with'}")
    assert done.status == 0, done.err
    assert (tmp_path / "with" / FILE).is_file()
    assert "tensorflow-serving-api" not in done.out
    monkeypatch.setattr(warmup, "LIBRARY", "no_such_library_as_this")
    done = command("export", run, f"--output={tmp_path / 'without'}")
    assert done.status == 0, done.err
    assert "No warm-up requests: they need the package tensorflow-serving-api.\n" in done.out
    assert not (tmp_path / "without" / "assets.extra").exists()
