"""Each format says what the network says, or is not kept; its figures tell how nearly."""

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import types

import cv2
import numpy as np
import onnx as onnx_library
import onnxruntime
import pytest
import tensorflow as tf

import flexseg
from export.bundles import signatures, verify_bundle
from export.other_formats import (
    FORMATS,
    formats,
    onnx,
    parity,
    predictor,
    representative,
    tflite,
)
from flexseg_errors import FlexsegError
from models.sliding_window import reflected_indices
from pipelines import folds
from pipelines import manifest as manifests
from pipelines.preparation import Preparation
from train.segment import Segmenter

COLORS = np.array([[10, 20, 30], [255, 0, 0], [0, 200, 90]], np.uint8)
LABEL_MAP = "{(10,20,30):0,(255,0,0):1,(0,200,90):2}"
TILE = 32


def draw(folder, size, count=8):
    """Images with blocks of the three classes, some of them dark enough to lack the upper grays."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(3)
    for index in range(count):
        ids = cv2.resize(rng.integers(0, 3, (4, 4)).astype(np.uint8), size[::-1], interpolation=0)
        pixels = 30 + 60 * ids[..., None] + rng.normal(0, 12, (*size, 3))
        cv2.imwrite(str(folder / "images" / f"{index}.png"), pixels.clip(1, 230).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), COLORS[ids][..., ::-1])
    return folder


@pytest.fixture(scope="module")
def run_on(untrained_runs, tmp_path_factory):
    """A function from the size of a dataset's images to the colour run as if trained on them."""
    folder = tmp_path_factory.mktemp("data")
    made = {}

    def run(size):
        if size not in made:
            name = "x".join(map(str, size))
            data = folder / f"records{name}"
            arguments = [
                "prepare",
                f"--dataset={draw(folder / name, size)}",
                f"--output={data}",
                f"--label_map={LABEL_MAP}",
                "--split=train:0.5,valid:0.25,test:0.25",
                "--direct_num_workers=1",
            ]
            assert flexseg.main(arguments) == 0
            made[size] = dataclasses.replace(
                untrained_runs["colour"],
                data=str(data),
                dataset_fingerprint=manifests.load(str(data)).fingerprint,
            )
        return made[size]

    return run


@pytest.fixture(scope="module")
def exported(run_on, tmp_path_factory):
    """A function from a format's name to the folder with it and its figures; images are tiles."""
    folder = tmp_path_factory.mktemp("formats")
    figures = {}

    def export(name):
        target = folder / name
        if name not in figures:
            target.mkdir()
            figures[name] = FORMATS[name](run_on((TILE, TILE)), str(target), min_agreement=0.5)
        return target, figures[name]

    return export


def prepared(run, split):
    """(image, truth) of every source, read from the records by TensorFlow alone."""
    files = sorted(f for f in os.listdir(run.data) if f.startswith(split) and "tfrecord" in f)
    for data in tf.data.TFRecordDataset([os.path.join(run.data, f) for f in files]):
        feature = tf.train.Example.FromString(data.numpy()).features.feature
        image, ids = (
            tf.io.decode_png(feature[key].bytes_list.value[0]).numpy()
            for key in ("image/encoded", "image/segmentation/class/encoded")
        )
        yield image, ids[..., 0]


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def by_tflite(path, image):
    """What the file says of one tile, by the interpreter and the numbers in the file."""
    interpreter = tf.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(taken["index"], image[None].astype(taken["dtype"]))
    interpreter.invoke()
    found = interpreter.get_tensor(given["index"])[0].astype(np.float64)
    return found / 256 if given["dtype"] == np.uint8 else found


def by_onnx(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": images.astype(np.float32)})[0]


RUN_TILE = {
    "tflite": by_tflite,
    "tflite_f16": by_tflite,
    "tflite_int8": by_tflite,
    "onnx": lambda path, image: by_onnx(path, image[None])[0],
}
TOLERANCE = {"tflite": 1e-5, "tflite_f16": 2e-2, "tflite_int8": 0.4, "onnx": 1e-5}


@pytest.mark.parametrize("name", RUN_TILE)
def test_the_figures_are_those_of_the_file_beside_the_network(exported, run_on, name):
    run, (folder, figures) = run_on((TILE, TILE)), exported(name)
    model = run.load_model()
    (file,) = FORMATS[name].files
    assert os.listdir(folder) == [file]
    assert figures["bytes"] == os.path.getsize(folder / file)
    pairs = list(prepared(run, "valid"))
    truth = np.stack([t for _, t in pairs])
    expected = np.stack([softmax(model(i[None].astype(np.float32)).numpy()[0]) for i, _ in pairs])
    found = np.stack([RUN_TILE[name](folder / file, i) for i, _ in pairs])
    if name == "tflite_int8":  # rounded one by one, they need not sum to 1
        found = found / found.sum(-1, keepdims=True)
    told = figures["parity"]
    assert told["images"] == len(pairs) == 2
    assert told["source"] == "the split valid"
    difference = np.abs(found - expected)
    assert difference.max() <= TOLERANCE[name]
    np.testing.assert_allclose(told["max_difference"], difference.max(), atol=2e-6)
    np.testing.assert_allclose(told["mean_difference"], difference.mean(), atol=1e-6)
    ids, other = expected.argmax(-1), found.argmax(-1)
    assert len(np.unique(ids)) == 3, "a network that tells classes apart, or little is shown"
    np.testing.assert_allclose(told["agreement"], (ids == other).mean(), atol=1.5 / ids.size)

    def dice(predicted):
        hits = [2 * ((predicted == k) & (truth == k)).sum() for k in (1, 2)]
        sizes = [(predicted == k).sum() + (truth == k).sum() for k in (1, 2)]
        return np.mean(np.divide(hits, sizes))

    np.testing.assert_allclose(told["dice"], dice(ids), atol=1e-9)
    np.testing.assert_allclose(told["dice_lost"], dice(ids) - dice(other), atol=1e-6)
    json.dumps(figures)


def test_onnx_takes_any_batch_and_size(exported, run_on, draw_image):
    folder, figures = exported("onnx")
    assert figures["input"]["shape"] == [None, None, None, 3]
    assert figures["size_divisor"] == 2
    model = run_on((TILE, TILE)).load_model()
    for count, size in ((1, (2, 6)), (3, (34, 50)), (2, (64, 20))):
        images = np.stack([draw_image(size, seed=i) for i in range(count)])
        expected = softmax(model(images.astype(np.float32)).numpy())
        np.testing.assert_allclose(by_onnx(folder / "model.onnx", images), expected, atol=1e-5)


def test_int8_is_whole_numbers_from_pixels_to_probabilities(exported, draw_image):
    folder, figures = exported("tflite_int8")
    assert figures["input"] == {
        "shape": [1, TILE, TILE, 3],
        "dtype": "uint8",
        "scale": 1.0,
        "zero_point": 0,
    }
    assert figures["output"] == {
        "shape": [1, TILE, TILE, 3],
        "dtype": "uint8",
        "scale": 1 / 256,
        "zero_point": 0,
    }
    interpreter = tf.lite.Interpreter(model_path=str(folder / "model_int8.tflite"))
    types = {np.dtype(t["dtype"]).name for t in interpreter.get_tensor_details()}
    assert not any(name.startswith("float") for name in types)
    image = draw_image((TILE, TILE))
    network, _ = tflite.load(str(folder / "model_int8.tflite"))
    expected = by_tflite(folder / "model_int8.tflite", image)
    assert expected.max() > 0.5
    np.testing.assert_allclose(network.probabilities(image[None])[0], expected, atol=1e-7)


def test_int8_is_made_of_the_same_examples_and_to_the_same_bytes(exported, run_on, tmp_path):
    run, (folder, _) = run_on((TILE, TILE)), exported("tflite_int8")
    FORMATS["tflite_int8"](run, str(tmp_path), min_agreement=0)
    first, second = ((f / "model_int8.tflite").read_bytes() for f in (folder, tmp_path))
    assert first == second


@pytest.mark.parametrize("size", [(40, 52), (20, 40)])
def test_examples_are_tiles_of_the_training_images_alone(run_on, size):
    run = run_on(size)
    images = [image for image, _ in prepared(run, "train")]
    assert len(images) == 4

    def padded(image):
        for axis in (0, 1):
            indices = reflected_indices(image.shape[axis], TILE).numpy()
            image = np.take(image, indices, axis)
        return image

    places = {
        padded(i)[y : y + TILE, x : x + TILE].tobytes()
        for i in images
        for y in range(max(1, size[0] - TILE + 1))
        for x in range(max(1, size[1] - TILE + 1))
    }
    found = representative.tiles(run, 10)
    assert len(found) == 10
    assert {f.shape for f in found} == {(TILE, TILE, 3)}
    assert {f.tobytes() for f in found[1:]} <= places
    assert len({f.tobytes() for f in found[1:]}) > 4, "several places of one image"
    assert (found[0].min(), found[0].max()) == (0, 255)  # which the drawn images lack
    for one, other in zip(found, representative.tiles(run, 10), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(representative.tiles(run, 3)) == 3


def test_images_of_a_tiles_size_are_taken_once(run_on):
    assert len(representative.tiles(run_on((TILE, TILE)), 10)) == 4


@pytest.mark.parametrize("why", ["gone", "another"])
def test_without_its_dataset_int8_is_refused_and_the_others_use_drawn_images(run_on, tmp_path, why):
    run = run_on((TILE, TILE))
    changed = {"gone": {"data": "nowhere"}, "another": {"dataset_fingerprint": "0"}}[why]
    run = dataclasses.replace(run, **changed)
    with pytest.raises(FlexsegError, match="Whole numbers need examples of the dataset"):
        FORMATS["tflite_int8"](run, str(tmp_path))
    assert os.listdir(tmp_path) == []
    figures = FORMATS["tflite"](run, str(tmp_path))["parity"]
    assert figures["source"] == parity.SYNTHETIC
    assert (figures["dice"], figures["dice_lost"]) == (None, None)
    assert figures["agreement"] >= 0.9999


@pytest.mark.parametrize(
    ("agreement", "bound", "kept"),
    [(0.9, None, False), (0.9, 0.91, False), (0.9, 0.9, True), (float("nan"), 0.1, False)],
)
def test_what_agrees_too_little_is_not_kept(run_on, tmp_path, monkeypatch, agreement, bound, kept):
    def write(trained, model, folder):
        for name in FORMATS["onnx"].files:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write("graph")
        return formats.Written(None, {})

    found = parity.Parity("images", 2, 0.5, 0.1, agreement, None, None)
    monkeypatch.setattr(parity, "compare", lambda *_: found)
    fake = dataclasses.replace(FORMATS["onnx"], write=write)
    run = run_on((TILE, TILE))
    (tmp_path / "mine").write_text("mine")
    if kept:
        assert fake(run, str(tmp_path), bound)["parity"]["min_agreement"] == 0.9
        assert sorted(os.listdir(tmp_path)) == ["mine", "model.onnx"]
        with pytest.raises(FlexsegError, match=r"onnx would overwrite model\.onnx"):
            fake(run, str(tmp_path), bound)
        assert sorted(os.listdir(tmp_path)) == ["mine", "model.onnx"]
        return
    with pytest.raises(FlexsegError, match="so it was not kept"):
        fake(run, str(tmp_path), bound)
    assert os.listdir(tmp_path) == ["mine"]


def test_parity_finds_other_weights_and_values_that_are_no_numbers(run_on):
    run = run_on((40, 52))
    model = run.load_model()
    network, changed = run.segmenter(model), run.load_model()
    assert parity.compare(run, network, run.segmenter(model)).max_difference == 0
    changed.get_layer("logits").bias.assign_add([2.0, 0.0, 0.0])
    found = parity.compare(run, network, run.segmenter(changed))
    assert found.agreement < 0.95
    assert found.max_difference > 0.1
    of_changed = parity.compare(run, run.segmenter(changed), network)
    assert found.dice_lost == found.dice - of_changed.dice != 0
    changed.get_layer("logits").bias.assign([np.nan, 0.0, 0.0])
    found = parity.compare(run, network, run.segmenter(changed))
    assert found.agreement == 0
    assert np.isnan(found.max_difference)


@pytest.mark.parametrize("bound", [-0.1, 1.5, float("nan")])
def test_a_bound_that_is_no_share_is_refused(run_on, tmp_path, bound):
    with pytest.raises(FlexsegError, match="expected a share, 0 to 1"):
        FORMATS["onnx"](run_on((TILE, TILE)), str(tmp_path), bound)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("missing", ["onnx", "tf2onnx", "onnxruntime"])
def test_a_missing_library_is_named_with_its_remedy(run_on, tmp_path, monkeypatch, missing):
    load = onnx.importlib.import_module

    def without(name):
        if name == missing:
            raise ImportError(f"No module named {name}")
        return load(name)

    monkeypatch.setattr(onnx.importlib, "import_module", without)
    with pytest.raises(FlexsegError, match=rf"package {missing} .*pip install 'flexseg\[onnx\]'"):
        FORMATS["onnx"](run_on((TILE, TILE)), str(tmp_path))
    assert os.listdir(tmp_path) == []


class Fails:
    """A converter that objects."""

    def convert(self):
        raise ValueError("no such operation")


def test_a_network_that_a_format_cannot_express_is_named(run_on, tmp_path, monkeypatch):
    run = run_on((TILE, TILE))
    monkeypatch.setattr(tflite, "_converter", lambda *_: Fails())
    monkeypatch.setattr(onnx, "_graph", lambda *_: Fails().convert())
    told = f"cannot express the network flex_unet of {run.folder}"
    with pytest.raises(FlexsegError, match=f"Lite {told} as model.tflite: no such operation"):
        FORMATS["tflite"](run, str(tmp_path))
    with pytest.raises(FlexsegError, match=f"tf2onnx {told}: no such operation"):
        FORMATS["onnx"](run, str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("off", "kept"), [(0.0, True), (0.01, False), (np.nan, False)])
def test_a_graph_for_all_sizes_is_kept_only_where_it_is_right_for_two(
    run_on, monkeypatch, off, kept
):
    run = run_on((TILE, TILE))
    model, sizes = run.load_model(), []

    def session(_):
        def answer(images):
            sizes.append(images.shape[1:3])
            found = softmax(model(images).numpy())
            found[0, 0, 0, 0] += off if len(sizes) > 1 else 0
            return found

        return answer, None, None

    graph = types.SimpleNamespace(SerializeToString=lambda: b"graph")
    monkeypatch.setattr(onnx, "_graph", lambda *_: graph)
    monkeypatch.setattr(onnx, "_session", session)
    assert onnx._free_graph(None, run, model) is (graph if kept else None)
    assert len(set(sizes)) == 2
    monkeypatch.setattr(onnx, "_session", lambda _: (lambda images: 1 / 0, None, None))
    assert onnx._free_graph(None, run, model) is None, "what the runtime refuses is wrong, too"


def test_what_a_saved_model_answers_otherwise_is_told(run_on, tmp_path, monkeypatch):
    monkeypatch.setattr(signatures, "Bundle", lambda _: types.SimpleNamespace(endpoints={}))
    monkeypatch.setattr(tf.saved_model, "save", lambda *_, **__: None)
    monkeypatch.setattr(tf.saved_model, "load", lambda _: types.SimpleNamespace(signatures={}))
    monkeypatch.setattr(
        verify_bundle, "check", lambda *_: [verify_bundle.Check("tiled", 3, 0.5, 0, 1.0)]
    )
    run = run_on((TILE, TILE))
    with pytest.raises(FlexsegError, match=r"with int8 weights differs from what .*tiled"):
        FORMATS["saved_model_int8"](run, str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_of_a_run_on_a_fold_the_examples_are_those_that_it_was_trained_on(untrained_runs, tmp_path):
    data = tmp_path / "records"
    given = [f"--dataset={draw(tmp_path / 'drawn', (TILE, TILE))}", f"--label_map={LABEL_MAP}"]
    given += [f"--output={data}", "--folds=4", "--split=train:1", "--direct_num_workers=1"]
    assert flexseg.main(["prepare", *given]) == 0
    manifest = manifests.load(str(data))
    experiment = untrained_runs["colour"].experiment
    run = dataclasses.replace(
        untrained_runs["colour"],
        data=str(data),
        experiment=dataclasses.replace(
            experiment, data=dataclasses.replace(experiment.data, fold=2)
        ),
        dataset_fingerprint=folds.view(manifest, 2).fingerprint,
    )
    seen = [i.tobytes() for n in (0, 1, 3) for i, _ in prepared(run, f"fold{n}-")]
    left = [image for image, _ in prepared(run, "fold2-")]
    found = representative.tiles(run)
    assert len(found) == len(seen)
    assert {tile.tobytes() for tile in found[1:]} <= set(seen)
    source, images = parity._images(run)
    assert source == "the split valid"
    assert {image.tobytes() for image, _ in images} == {image.tobytes() for image in left}
    other = dataclasses.replace(run, dataset_fingerprint=folds.view(manifest, 1).fingerprint)
    with pytest.raises(FlexsegError, match="holds another dataset than"):
        representative.dataset(other)


def test_parity_is_told_in_a_line():
    found = parity.Parity("the split valid", 7, 0.0123, 0.001, 0.98765, 0.9, 0.0021)
    line = "98.7650% of pixels alike, probabilities differ by at most 1.2e-02"
    assert str(found) == f"{line}, foreground Dice lost +0.0021 (7 images: the split valid)"
    assert str(dataclasses.replace(found, dice=None, dice_lost=None)).startswith(line + " (7 im")


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_a_model_that_segments_nothing_is_refused_with_its_tensors(tmp_path, monkeypatch, name):
    path = str(tmp_path / f"model.{name}")
    if name == "tflite":
        signature = [tf.TensorSpec([1, 5], tf.float32)]
        function = tf.function(lambda x: x * 2, signature).get_concrete_function()
        data = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
        pathlib.Path(path).write_bytes(data)
        loading, expected = lambda: tflite.load(path), r"tensors \[\[1, 5\], \[1, 5\]\]; expected"
    else:
        made = onnx_library.helper
        sides = [
            made.make_tensor_value_info(n, onnx_library.TensorProto.FLOAT, [1, 5]) for n in "xy"
        ]
        graph = made.make_graph(
            [made.make_node("Identity", ["x"], ["y"])], "g", *([s] for s in sides)
        )
        model = made.make_model(graph, opset_imports=[made.make_opsetid("", onnx.OPSET)])
        model.ir_version = 8
        onnx_library.save(model, path)
        loading = lambda: onnx.load(path, (TILE, TILE))  # noqa: E731
        expected = r"tensors \[\[1, 5\], \[1, 5\]\]; expected an input"
    with pytest.raises(FlexsegError, match=rf"model.{name}: {expected}"):
        loading()


@pytest.fixture
def bundle_with(untrained_runs, tmp_path):
    """A function (run's name, format) -> the path of its file in a bundle, without a dataset."""
    from export import bundle
    from export.bundles import model_card

    def make(run_name, name):
        run = untrained_runs[run_name]
        FORMATS[name](run, str(tmp_path), min_agreement=0)
        (tmp_path / "assets").mkdir(exist_ok=True)
        bundle._write_assets(run, str(tmp_path), model_card.of_run(run, {}))
        return run, tmp_path / FORMATS[name].files[0]

    return make


@pytest.mark.parametrize(
    ("run_name", "name"),
    [
        pytest.param("colour", "onnx", marks=pytest.mark.slow),
        ("gray", "tflite"),
        pytest.param("stretched", "tflite", marks=pytest.mark.slow),
        ("halved", "onnx"),
    ],
)
def test_a_file_segments_images_of_any_size_as_the_run_does(
    bundle_with, draw_image, run_name, name
):
    from train import test_time

    run, path = bundle_with(run_name, name)
    member = predictor.load(str(path), {})
    assert (member.label_map, member.channels) == (run.label_map, run.channels)
    assert member.preparation == run.preparation
    segmenter = run.segmenter()
    for size in ((9, 21), (80, 70)):
        image = draw_image(size, run.channels)
        found = member.slide(member.prepare(image))
        found = test_time.resize(found, size)
        np.testing.assert_allclose(found, segmenter.probabilities(image).numpy(), atol=1e-4)


def test_the_window_of_a_file_can_be_another(bundle_with, draw_image):
    run, path = bundle_with("colour", "onnx")
    window = {"overlap": 0.5, "weights": "uniform", "batch_size": 4, "blend": "logits"}
    member = predictor.load(str(path), window)
    own = Segmenter(run.load_model(), run.size, Preparation(), run.experiment.inference, **window)
    image = draw_image((70, 90))
    expected = own.probabilities(image).numpy()
    np.testing.assert_allclose(member.slide(image), expected, atol=1e-4)
    assert np.abs(run.segmenter().probabilities(image).numpy() - expected).max() > 1e-3


def test_files_that_are_no_models_are_refused(bundle_with, tmp_path):
    _, path = bundle_with("gray", "tflite")
    with pytest.raises(FlexsegError, match="there is no such file"):
        predictor.load(str(tmp_path / "nothing.onnx"), {})
    for name in ("broken.tflite", "broken.onnx"):
        (tmp_path / name).write_bytes(b"no model" * 9)
        with pytest.raises(FlexsegError, match=r"is no (TensorFlow Lite|ONNX) model"):
            predictor.load(str(tmp_path / name), {})
    (tmp_path / "alone").mkdir()
    lonely = shutil.copy(path, tmp_path / "alone")
    with pytest.raises(FlexsegError, match="does not lie in a bundle"):
        predictor.load(str(lonely), {})
    card = json.loads((tmp_path / "assets" / "model_card.json").read_text())
    (tmp_path / "assets" / "model_card.json").write_text(json.dumps({**card, "tile": [16, 16]}))
    with pytest.raises(FlexsegError, match=r"model_card\.json speaks of"):
        predictor.load(str(path), {})


def kept_weights(folder):
    """Values of a SavedModel's variables by type, read from its checkpoint."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    types = reader.get_variable_to_dtype_map()
    names = [n for n in shapes if types[n] in (tf.float16, tf.float32, tf.int8)]
    return [(types[n].name, reader.get_tensor(n)) for n in names]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "error"),
    [("saved_model_f16", "float16", 2e-2), ("saved_model_int8", "int8", 0.2)],
)
def test_a_saved_model_keeps_its_kernels_in_fewer_bits(
    untrained_runs, tmp_path, draw_image, name, dtype, error
):
    run = untrained_runs["colour"]
    figures = FORMATS[name](run, str(tmp_path), min_agreement=0.5)
    assert sorted(os.listdir(tmp_path)) == sorted(FORMATS[name].files)
    model = run.load_model()
    kernels = [v.numpy() for v in model.weights if v.ndim >= 2 and np.prod(v.shape) >= 64]
    kept = kept_weights(tmp_path)
    small = [value for kind, value in kept if kind == dtype]
    assert sorted(v.size for v in small) == sorted(k.size for k in kernels)
    assert max(v.size for kind, v in kept if kind == "float32") < 64
    served = tf.saved_model.load(str(tmp_path)).signatures
    assert set(served) == set(figures["signatures"]) >= {"serving_default", "encoded", "tiled"}
    image = draw_image((40, 70))
    expected = run.segmenter().probabilities(image).numpy()
    found = served["serving_default"](images=tf.constant(image[None]))["probabilities"][0].numpy()
    assert 0 < np.abs(found - expected).max() < error


def test_stored_kernels_come_back_within_their_rounding():
    from export.other_formats import stored_weights

    rng = np.random.default_rng(0)
    for shape in ((3, 3, 8, 16), (3, 3, 32, 1), (64, 4)):
        value = (rng.normal(0, 1, shape) * rng.uniform(0.01, 9, shape[-1])).astype(np.float32)
        value[..., 0] *= np.arange(value.shape[-2]) > 0  # some are 0 throughout
        for store, bits in ((stored_weights._halved, 11), (stored_weights._quantized, 8)):
            owner = tf.Module()
            owner.kept = []
            found = store(value, owner)().numpy()
            axis = -1 if shape[-1] > 1 else -2
            rest = tuple(a for a in range(value.ndim) if a != axis % value.ndim)
            largest = np.abs(value).max(rest, keepdims=True)
            unit = np.abs(value) * 2.0**-11 + 1e-7 if bits == 11 else largest / 254 * 1.001
            assert (np.abs(found - value) <= unit).all()
            assert owner.kept[0].dtype == (tf.float16 if bits == 11 else tf.int8)
    huge = np.full((8, 8), 1e5, np.float32)
    owner.kept = []
    np.testing.assert_array_equal(stored_weights._halved(huge, owner)(), huge)


def test_names_and_files_of_formats_are_their_own():
    assert {f.name: f for f in FORMATS.values()} == dict(FORMATS)
    for one, other in itertools.combinations(FORMATS.values(), 2):
        both = one.name.startswith("saved_model") and other.name.startswith("saved_model")
        assert both or not set(one.files) & set(other.files)
