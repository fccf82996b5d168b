"""What `flexseg export --serving` writes works, as far as it can be tried without a server."""

import base64
import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from PIL import Image

from export import bundle
from export.bundles import serving_files
from export.predictions import predictors
from flexseg_errors import FlexsegError
from pipelines import readers


@pytest.fixture
def serving(bundle_of, tmp_path):
    """The folder for a bundle, as a function of its name."""
    serving_files.write(str(tmp_path / "serving"), str(bundle_of("gray")))
    return tmp_path / "serving"


@pytest.fixture
def pictures(tmp_path, draw_image):
    """Gray image files of three sizes, a turned JPEG among them."""
    paths = []
    turned = Image.Exif()
    turned[274] = 6
    for name, size, options in (
        ("a.png", (20, 31), {}),
        ("b.jpg", (40, 33), {"exif": turned}),
        ("c.bmp", (70, 9), {}),
    ):
        paths.append(tmp_path / name)
        Image.fromarray(draw_image(size, 1)[..., 0]).save(paths[-1], **options)
    return paths


@pytest.fixture(scope="module")
def predicted(bundle_of):
    """What `flexseg predict` says of a file, with the bundle."""
    predictor = predictors.load(str(bundle_of("gray")))

    def predict(path):
        ids = predictor.predict(readers.read_image(str(path), 1)).class_ids
        assert len(np.unique(ids)) > 1
        return ids

    return predict


@pytest.fixture(scope="module")
def signatures(bundle_of):
    """The signatures, and the module that they live as long as."""
    loaded = tf.saved_model.load(str(bundle_of("gray")))
    return loaded.signatures, loaded


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ids_of(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_nothing_is_left_to_fill_in(serving):
    assert sorted(p.name for p in serving.iterdir()) == sorted(serving_files.FILES)
    assert sorted(p.name for p in serving_files.TEMPLATES.iterdir() if p.is_file()) == sorted(
        serving_files.FILES
    )
    for path in serving.iterdir():
        text = path.read_text()
        assert not any(f"@{name}@" in text for name in ("NAME", "BUNDLE", "SERVING")), path
    assert 'MODEL = "gray"' in (serving / "rest_client.py").read_text()


def test_the_grpc_client_gets_the_masks_that_predict_writes(
    serving, signatures, pictures, predicted, tmp_path, monkeypatch
):
    """A channel that answers each request by the loaded signature, over serialized messages."""
    grpc = pytest.importorskip("grpc")
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    client, asked = imported(serving / "grpc_client.py"), []

    def answer(data):
        request = predict_pb2.PredictRequest.FromString(data)
        asked.append((request.model_spec.name, request.model_spec.signature_name))
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for key, value in signatures[0][request.model_spec.signature_name](**inputs).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return response.SerializeToString()

    class Channel(contextlib.nullcontext):
        def unary_unary(self, method, request_serializer, response_deserializer, **_):
            assert method.startswith("/tensorflow.serving.PredictionService/")
            return lambda request, timeout: response_deserializer(
                answer(request_serializer(request))
            )

    def open_channel(server, options):
        assert server == "elsewhere:8500"
        assert dict(options)["grpc.max_receive_message_length"] == -1
        channel = Channel()
        channel.enter_result = channel
        return channel

    monkeypatch.setattr(grpc, "insecure_channel", open_channel)
    monkeypatch.setattr(client, "AT_A_TIME", 2)
    arguments = ["client", "--server=elsewhere:8500", str(tmp_path / "masks")]
    monkeypatch.setattr(sys, "argv", [*arguments, *map(str, pictures)])
    client.main()
    assert asked == [("gray", "encoded")] * 2
    for path in pictures:
        mask = (tmp_path / "masks" / f"{path.stem}.png").read_bytes()
        np.testing.assert_array_equal(ids_of(mask), predicted(path))


def answer_as_serving_does(signatures, body):
    """By TensorFlow Serving's rules for REST: one output is unnamed; base64 is for _bytes alone."""
    request = json.loads(body)
    inputs = {
        key: tf.constant([base64.b64decode(v["b64"], validate=True) for v in values])
        for key, values in request["inputs"].items()
    }
    ((name, value),) = signatures[0][request["signature_name"]](**inputs).items()
    assert name.endswith("_bytes"), "else bytes would stand in JSON as if they were text"
    coded = [{"b64": base64.b64encode(v).decode()} for v in value.numpy()]
    return json.dumps({"outputs": coded}).encode()


def test_the_rest_client_gets_the_mask_that_predict_writes(
    serving, signatures, pictures, predicted, tmp_path, monkeypatch
):
    client = imported(serving / "rest_client.py")

    def urlopen(request, timeout):
        assert request.full_url == "http://elsewhere:8501/v1/models/gray:predict"
        return io.BytesIO(answer_as_serving_does(signatures, request.data))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    for path in pictures:
        target = tmp_path / f"{path.stem}.mask.png"
        server = "--server=http://elsewhere:8501"
        monkeypatch.setattr(sys, "argv", ["client", server, str(path), str(target)])
        client.main()
        np.testing.assert_array_equal(ids_of(target.read_bytes()), predicted(path))


def started(folder, bundle_path=None, **environment):
    """What serve.sh would give to docker."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    docker = tools / "docker"
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    docker.chmod(0o755)
    done = subprocess.run(
        [folder / "serve.sh", *([bundle_path] if bundle_path else [])],
        env={"PATH": f"{tools}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_script_starts_the_server_with_the_bundle(tmp_path):
    """Also where paths have what a shell takes for its own."""
    folder, place = tmp_path / "my serving", tmp_path / "it's $HOME" / "lung 2"
    serving_files.write(str(folder), str(place))
    release = "tensorflow/serving:2.16.1"
    expected = [
        *["run", "--rm", "--publish", "8500:8500", "--publish", "8501:8501"],
        *["--volume", f"{place}:/models/lung-2/1:ro", "--volume", f"{folder}:/serving:ro"],
        *["--env", "MODEL_NAME=lung-2", release],
    ]
    assert started(folder) == expected
    assert started(folder, "/other")[7] == "/other:/models/lung-2/1:ro"
    batching = ["--enable_batching", "--batching_parameters_file=/serving/batching.config"]
    assert started(folder, BATCHING="1") == expected + batching
    with_gpu = [*expected[:2], "--gpus=all", *expected[2:-1], f"{release}-gpu"]
    assert started(folder, GPU="1") == with_gpu


def batching_parameters():
    """The message class of tensorflow.serving.BatchingParameters, as TensorFlow Serving has it."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="batching.proto", package="test", syntax="proto3"
    )
    number = file.message_type.add(name="Int64Value")
    number.field.add(name="value", number=1, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    message = file.message_type.add(name="BatchingParameters")
    for index, name in enumerate(
        ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"), 1
    ):
        message.field.add(
            name=name,
            number=index,
            type=field.TYPE_MESSAGE,
            type_name=".test.Int64Value",
            label=field.LABEL_OPTIONAL,
        )
    message.field.add(
        name="pad_variable_length_inputs",
        number=7,
        type=field.TYPE_BOOL,
        label=field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.BatchingParameters"))


def test_the_batching_config_is_one(serving):
    parameters = batching_parameters()()
    text_format.Parse((serving / "batching.config").read_text(), parameters)
    assert parameters.max_batch_size.value == imported(serving / "grpc_client.py").AT_A_TIME
    for name in ("batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
        assert getattr(parameters, name).value > 0
    assert not parameters.pad_variable_length_inputs, "padded images would get other masks"


@pytest.mark.parametrize("kind", ["a file", "a folder with something in it", "in the bundle"])
def test_a_folder_that_is_taken_is_refused_before_anything_is_made(
    untrained_runs, tmp_path, command, kind
):
    folder = tmp_path / "bundle" / "serving" if kind == "in the bundle" else tmp_path / "serving"
    if kind == "a file":
        folder.write_text("mine")
    elif kind != "in the bundle":
        folder.mkdir()
        (folder / "thesis.tex").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    run = f"--run={untrained_runs['gray'].folder}"
    done = command("export", run, f"--output={tmp_path / 'bundle'}", f"--serving={folder}")
    assert done.status == 1
    assert f"--serving={folder}" in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_remote_folder_is_refused(tmp_path):
    with pytest.raises(FlexsegError, match="give a local folder"):
        serving_files.refuse_taken("s3://bucket/serving", str(tmp_path))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("bundles/lung", "lung"),
        ("bundles/lung/", "lung"),
        ("s3://bucket/Lung_v2", "Lung_v2"),
        ("/a/lung v2 (best)", "lung-v2-best"),
        ("ü", "model"),
    ],
)
def test_a_model_has_a_name_that_fits_into_a_url(path, name):
    assert serving_files.name_of(path) == name


def test_the_command_writes_both(untrained_runs, tmp_path, command, monkeypatch):
    monkeypatch.setattr(bundle, "_save", lambda *_: {})
    monkeypatch.setattr(bundle, "_check", lambda *_: bundle.Exported(""))
    run = f"--run={untrained_runs['gray'].folder}"
    flags = [f"--output={tmp_path / 'made'}", f"--serving={tmp_path / 'serving'}"]
    done = command("export", run, *flags)
    assert done.status == 0, done.err
    assert f"{tmp_path / 'serving'}: how to serve it; begin with README.md.\n" in done.out
    assert f"bundle={tmp_path / 'made'}\n" in (tmp_path / "serving" / "serve.sh").read_text()
