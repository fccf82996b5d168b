"""Others read a dataset without our code: tensorflow_datasets, and the common decoders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import manifest, records, tfds

STEMS = [f"s{i:02d}" for i in range(10)]
FLAGS = {
    "png": ["--tile_size=8"],
    "gray": ["--split=train:0.8,test:0.2"],
    "jpeg": ["--image_encoding=jpeg:90"],
}
# TensorFlow decodes JPEG with its fast inverse transform unless it is told otherwise.
TOLERANCE = {"png": 0, "gray": 0, "jpeg": 6}
# What tensorflow/models reads: official/vision/dataloaders/segmentation_input.py, and DeepLab's
# research/deeplab/datasets/data_generator.py.
DECODERS = {
    "official/vision": {
        "image/encoded": tf.string,
        "image/height": tf.int64,
        "image/width": tf.int64,
        "image/segmentation/class/encoded": tf.string,
    },
    "deeplab": {
        "image/encoded": tf.string,
        "image/filename": tf.string,
        "image/format": tf.string,
        "image/height": tf.int64,
        "image/width": tf.int64,
        "image/segmentation/class/encoded": tf.string,
        "image/segmentation/class/format": tf.string,
    },
}


def difference(one: np.ndarray, other: np.ndarray) -> int:
    """The largest, of images that must have the same shape and type."""
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    return int(np.abs(one.astype(int) - other).max())


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, draw, prepare_quietly):
    """A dataset for each of FLAGS; one source is of no use, and so one shard is empty."""
    folder = tmp_path_factory.mktemp("tfds")
    found = {}
    for name, flags in FLAGS.items():
        draw(folder / name, STEMS, (12, 20), gray=name == "gray")
        (folder / f"{name}/images/s03.png").write_bytes(b"no image")
        output = folder / f"{name}_records"
        prepare_quietly(folder / name, output, "--tfds", "--max_rejected=1", *flags)
        found[name] = output
    return found


@pytest.fixture(scope="module")
def serialized():
    """`serialized(folder, split)` -> its records, as they are, in order."""

    def read(folder, split):
        for path in manifest.load(str(folder)).paths(split):
            with open(path, "rb") as file:
                for _, data in records.read_framed(file, path):
                    yield data

    return read


@pytest.mark.parametrize("name", FLAGS)
def test_tensorflow_datasets_gives_every_record_of_every_split(datasets, serialized, name):
    library = pytest.importorskip("tensorflow_datasets")
    made = manifest.load(str(datasets[name]))
    assert 0 in [s.examples for split in made.splits.values() for s in split.shards]
    builder = library.builder_from_directory(str(datasets[name]))
    in_order = library.ReadConfig(interleave_cycle_length=1)
    assert set(builder.info.splits) == set(made.splits)
    for split, described in made.splits.items():
        info = builder.info.splits[split]
        assert info.num_examples == described.examples
        assert info.num_bytes == sum(s.bytes for s in described.shards)
        assert info.filenames == [s.name for s in described.shards]
        given = builder.as_dataset(split=split, read_config=in_order).as_numpy_iterator()
        for example, data in zip(given, serialized(datasets[name], split), strict=True):
            features = records.parse_features(data)
            image, mask = records.pixels_of(features)
            theirs = example["image"]
            assert difference(theirs.pop("encoded"), image) <= TOLERANCE[name]
            classes = theirs.pop("segmentation")["class"]
            assert (classes.pop("encoded") == mask[..., None]).all()
            rest = {
                **{f"image/{k}": v for k, v in theirs.items() if not isinstance(v, dict)},
                **{f"image/segmentation/class/{k}": v for k, v in classes.items()},
                "image/tile/origin": theirs["tile"]["origin"],
                "image/source/size": theirs["source"]["size"],
            }
            assert set(rest) == set(features) - {records.ENCODED, records.MASK_ENCODED}
            for key, value in rest.items():
                assert np.ravel(value).tolist() == features[key], key


def test_tensorflow_datasets_knows_the_classes(datasets):
    library = pytest.importorskip("tensorflow_datasets")
    info = library.builder_from_directory(str(datasets["png"])).info
    label = info.features["image"]["segmentation"]["class"]["encoded"]
    made = manifest.load(str(datasets["png"]))
    assert label.names == list(made.label_map.names)
    assert label.num_classes == made.label_map.num_classes
    assert made.fingerprint in info.description
    assert (info.name, str(info.version)) == ("flexseg", "1.0.0")


def test_names_that_cannot_be_lines_of_a_list_still_tell_classes_apart(
    tmp_path, draw, prepare, colors
):
    library = pytest.importorskip("tensorflow_datasets")
    draw(tmp_path / "data", STEMS[:3])
    names = ["a\nb", "a b", "", "c"]
    classes = [{"id": i, "name": name, "color": colors[i].tolist()} for i, name in enumerate(names)]
    (tmp_path / "classes.yaml").write_text(json.dumps({"classes": classes}))
    result = prepare(f"--label_map={tmp_path / 'classes.yaml'}", "--split=train:1", "--tfds")
    assert result.status == 0, result.err
    features = library.builder_from_directory(str(tmp_path / "out")).info.features
    label = features["image"]["segmentation"]["class"]["encoded"]
    assert label.names == ["a b 0", "a b 1", "2", "c"]


def test_what_is_written_holds_neither_time_nor_place(tmp_path, datasets, draw, prepare, contents):
    draw(tmp_path / "data", STEMS, (12, 20))
    (tmp_path / "data/images/s03.png").write_bytes(b"no image")
    assert prepare("--tfds", "--max_rejected=1", *FLAGS["png"]).status == 0
    again, before = contents(tmp_path / "out"), contents(datasets["png"])
    ours = [name for name in before if tfds.is_ours(name)]
    assert len(ours) == 3
    assert {name: again[name] for name in ours} == {name: before[name] for name in ours}


def test_a_run_without_the_flag_leaves_no_old_description(tmp_path, draw, prepare, contents):
    draw(tmp_path / "data", STEMS[:3])
    prepare("--split=train:1", "--tfds")
    with_it = contents(tmp_path / "out")
    prepare("--split=train:1")
    without = contents(tmp_path / "out")
    assert without == {name: data for name, data in with_it.items() if not tfds.is_ours(name)}
    assert len(without) == len(with_it) - 3


def test_raw_images_are_refused_before_any_work(tmp_path, draw, prepare):
    draw(tmp_path / "data", STEMS[:3])
    result = prepare("--split=train:1", "--tfds", "--image_encoding=raw")
    assert result.status == 1
    assert "--image_encoding=raw; use png or jpeg" in result.err
    assert not (tmp_path / "out").exists()
    assert prepare("--split=train:1", "--image_encoding=raw").status == 0
    with pytest.raises(FlexsegError, match="use png or jpeg"):
        tfds.write(manifest.load(str(tmp_path / "out")))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", FLAGS)
def test_the_common_decoders_find_what_they_expect(datasets, serialized, name, decoder):
    spec = {key: tf.io.FixedLenFeature([], kind) for key, kind in DECODERS[decoder].items()}
    count = 0
    for data in serialized(datasets[name], "train"):
        image, mask = records.pixels_of(records.parse_features(data))
        parsed = tf.io.parse_single_example(data, spec)  # none of them has a default
        decoded = tf.io.decode_image(parsed["image/encoded"]).numpy()
        labels = tf.io.decode_image(parsed["image/segmentation/class/encoded"]).numpy()
        assert difference(decoded, image) <= TOLERANCE[name]
        assert (labels == mask[..., None]).all()
        assert (parsed["image/height"], parsed["image/width"]) == mask.shape
        count += 1
    assert count == manifest.load(str(datasets[name])).split("train").examples
