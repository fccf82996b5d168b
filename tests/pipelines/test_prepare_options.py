"""What the options of `flexseg prepare` do: forms of masks, depth, tiles, encodings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import augment, batches, manifest, masks, records
from pipelines.label_map import load
from pipelines.preprocessing import Preprocessing

BINARY = "--label_map={(0,0,0):0,(255,255,255):1}"
NAMES = [f"s{i}" for i in range(6)]


@pytest.mark.parametrize("form", ["index", "palette", "onehot"])
def test_masks_of_class_ids_in_any_form_are_read_as_they_are(
    tmp_path, draw, prepare, read_split, colors, form
):
    pairs = draw(tmp_path / "data", NAMES)
    for name, pair in pairs.items():
        (tmp_path / f"data/masks/{name}.png").unlink()
        ids = pair.ids.copy()
        ids[0, 0] = 255
        if form == "onehot":
            vectors = np.eye(len(colors), dtype=np.float32)[np.minimum(ids, len(colors) - 1)]
            vectors[0, 0] = 0  # of no class
            np.savez_compressed(tmp_path / f"data/masks/{name}.npz", mask=vectors)
            continue
        picture = Image.fromarray(ids, "L" if form == "index" else "P")
        if form == "palette":
            picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        picture.save(tmp_path / f"data/masks/{name}.png")
    flags = [] if form == "onehot" else ["--mask_kind=index"]
    assert prepare("--split=train:1", *flags).status == 0
    found = read_split(tmp_path / "out", "train")
    assert len(found) == len(NAMES)
    for record in found:
        expected = pairs[record["id"]].ids.copy()
        expected[0, 0] = 255
        assert (record["mask"] == expected).all()


def test_values_that_are_no_class_ids_are_named(tmp_path, draw, save, prepare):
    draw(tmp_path / "data", NAMES)
    for name in NAMES:
        save(tmp_path / f"data/masks/{name}.png", np.full((12, 16), 7, np.uint8))
    result = prepare("--mask_kind=index")
    assert result.status == 1
    assert "the values 7 are no class ids: the label map has 0..3, and 255 is ignored" in result.err


@pytest.mark.parametrize(("threshold", "level"), [("otsu", 120), ("triangle", 120), ("90", 90)])
def test_binary_masks_are_cut_at_the_threshold(
    tmp_path, draw, save, prepare, read_split, threshold, level
):
    draw(tmp_path / "data", NAMES)
    rng = np.random.default_rng(0)
    expected = {}
    for name in NAMES:
        bright = rng.random((12, 16)) < 0.4
        gray = np.where(bright, 200, 20) + rng.integers(-9, 10, (12, 16))
        save(tmp_path / f"data/masks/{name}.png", gray.astype(np.uint8))
        expected[name] = gray > level
    assert prepare(BINARY, "--split=train:1", f"--mask_kind=binary:{threshold}").status == 0
    for record in read_split(tmp_path / "out", "train"):
        assert (record["mask"] == expected[record["id"]]).all()


def test_a_mask_of_0_and_1_is_not_taken_for_one_of_0_and_255(tmp_path, draw, save, prepare):
    draw(tmp_path / "data", NAMES)
    for name in NAMES:
        save(tmp_path / f"data/masks/{name}.png", np.eye(12, 16, dtype=np.uint8))
    result = prepare(BINARY, "--mask_kind=binary")
    assert result.status == 1
    assert "holds 0 and 1 alone" in result.err
    assert "--mask_kind=index" in result.err


def test_a_mask_in_colors_is_not_cut_at_a_threshold(tmp_path, draw, prepare):
    draw(tmp_path / "data", NAMES)  # masks of four colours
    result = prepare(BINARY, "--mask_kind=binary")
    assert result.status == 1
    assert "the mask has colours; a gray one was expected (see --mask_kind)" in result.err
    assert NAMES[0] in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour", "expected colors, index, binary:otsu, binary:triangle or binary:THRESHOLD. Did"),
        ("binary:300", "the threshold is otsu, triangle, or a gray value 0..254"),
        ("index:3", "only binary takes a threshold"),
    ],
)
def test_a_mask_kind_that_is_none_is_refused(text, message):
    with pytest.raises(masks.FlexsegError, match=message):
        masks.parse_kind(text)


def test_binary_masks_need_two_classes(tmp_path, draw, prepare):
    draw(tmp_path / "data", NAMES)
    result = prepare("--mask_kind=binary:otsu")
    assert (result.status, "needs a label map of two classes; it has 4" in result.err) == (1, True)


def test_pixels_of_unknown_colors_are_ignored_where_that_is_asked_for(
    tmp_path, draw, save, prepare, read_split, colors
):
    pairs = draw(tmp_path / "data", NAMES)
    for name, pair in pairs.items():
        painted = colors[pair.ids]
        painted[:6] = 255, 255, 255
        save(tmp_path / f"data/masks/{name}.png", painted)
    assert prepare("--split=train:1").status == 1
    flags = ("--split=train:1", "--unmatched=ignore", f"--output={tmp_path}/ignored")
    assert prepare(*flags).status == 0
    for record in read_split(tmp_path / "ignored", "train"):
        assert (record["mask"][:6] == 255).all()
        assert (record["mask"][6:] == pairs[record["id"]].ids[6:]).all()
        assert sum(record["image/segmentation/class/pixels"]) == 6 * 16


def test_deep_images_need_an_intensity_and_it_travels(tmp_path, draw, prepare, read_split):
    draw(tmp_path / "data", NAMES)
    rng = np.random.default_rng(0)
    deep = {name: rng.integers(0, 4000, (12, 16)).astype(np.uint16) for name in NAMES}
    for name, values in deep.items():
        Image.fromarray(values).save(tmp_path / f"data/images/{name}.png")
    refused = prepare("--split=train:1")
    assert refused.status == 1
    assert "--intensity" in refused.err
    assert (
        prepare(
            "--split=train:1", "--intensity=window:1000,2000", f"--output={tmp_path}/deep"
        ).status
        == 0
    )
    for record in read_split(tmp_path / "deep", "train"):
        exact = np.clip(deep[record["id"]] / 2000 * 255, 0, 255)
        assert np.abs(record["image"][..., 0] - exact).max() <= 0.5
    assert manifest.load(str(tmp_path / "deep")).preparation.intensity == "window:1000,2000"


def test_preprocessing_comes_before_resizing_and_is_kept(tmp_path, draw, prepare, read_split):
    pairs = draw(tmp_path / "data", NAMES)
    flags = ("--split=train:1", "--preprocessing=invert,gamma=1.5", "--scale=2")
    assert prepare(*flags).status == 0
    preparation = manifest.load(str(tmp_path / "out")).preparation
    steps = Preprocessing.from_text(preparation.preprocessing)
    for record in read_split(tmp_path / "out", "train"):
        image = steps.image(pairs[record["id"]].image)
        assert (record["image"][::23, ::31] == preparation_of(image)[::23, ::31]).all()


def preparation_of(image):
    import cv2

    return cv2.resize(image, (32, 24), interpolation=cv2.INTER_LINEAR)


def test_augmented_copies_are_of_train_alone_and_are_what_the_plan_says(
    tmp_path, draw, prepare, read_split
):
    pairs = draw(tmp_path / "data", NAMES, (24, 24))
    flags = ("--augment=seed-lung", "--split=train:0.5,valid:0.5", "--split_seed=3")
    assert prepare(*flags).status == 0
    plan = augment.load("seed-lung")
    found = read_split(tmp_path / "out", "train")
    assert len(found) == 3 * 10
    for name in {record["id"] for record in found}:
        expected = {
            text: (image, ids)
            for image, ids, text in augment.apply(plan, pairs[name].image, pairs[name].ids, 3, name)
        }
        own = [r for r in found if r["id"] == name]
        assert {r["image/augmentation"][0].decode() for r in own} == set(expected)
        for record in own:
            image, ids = expected[record["image/augmentation"][0].decode()]
            assert (record["image"] == image).all()
            assert (record["mask"] == ids).all()
    valid = read_split(tmp_path / "out", "valid")
    assert [r["image/augmentation"] for r in valid] == [[b""]] * 3
    whole = list(batches.whole_images(manifest.load(str(tmp_path / "out")), "train"))
    assert sorted(name for name, *_ in whole) == sorted({r["id"] for r in found})
    assert all((image == pairs[name].image).all() for name, image, _ in whole)


def test_empty_tiles_are_left_out_of_train_alone(tmp_path, draw, save, prepare, read_split, colors):
    draw(tmp_path / "data", NAMES, (16, 16))
    for name in NAMES:
        ids = np.zeros((16, 16), np.uint8)
        ids[:8, :8] = 1
        save(tmp_path / f"data/masks/{name}.png", colors[ids])
    split = "--split=train:0.5,valid:0.5"
    counts = {}
    for rate in ("1", "0.5", "0"):
        output = tmp_path / f"out{rate}"
        flags = (split, "--tile_size=8", f"--empty_tiles={rate}", f"--output={output}")
        assert prepare(*flags).status == 0
        assert len(read_split(output, "valid")) == 3 * 4
        tiles = read_split(output, "train")
        assert sum(bool((r["mask"] > 0).any()) for r in tiles) == 3
        counts[rate] = len(tiles)
    assert counts["1"] == 12
    assert counts["0"] == 3
    assert 3 < counts["0.5"] < 12


def test_the_reduced_whole_is_added_to_train_alone(tmp_path, draw, prepare, read_split):
    draw(tmp_path / "data", NAMES, (16, 24))
    flags = ("--split=train:0.5,valid:0.5", "--tile_size=8", "--add_reduced")
    assert prepare(*flags).status == 0
    train, valid = (read_split(tmp_path / "out", s) for s in ("train", "valid"))
    assert (len(train), len(valid)) == (3 * 7, 3 * 6)
    reduced = [r for r in train if r["image/augmentation"] == [b"reduced"]]
    assert len(reduced) == 3
    assert all(r["image"].shape == (8, 8, 3) for r in reduced)
    whole = list(batches.whole_images(manifest.load(str(tmp_path / "out")), "train"))
    assert [image.shape for _, image, _ in whole] == [(16, 24, 3)] * 3


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(("encoding", "worst"), [("png", 0), ("raw", 0), ("jpeg:98", 8)])
def test_images_come_back_from_every_encoding(tmp_path, draw, prepare, encoding, worst, gray):
    pairs = draw(tmp_path / "data", NAMES, (16, 24), gray=gray)
    assert prepare("--split=train:1", f"--image_encoding={encoding}").status == 0
    described = manifest.load(str(tmp_path / "out"))
    outside = {name: (image, ids) for name, image, ids in batches.whole_images(described, "train")}
    in_graph = np.concatenate(
        [b["image"] for b in batches.evaluation(described, "train", 2).as_numpy_iterator()]
    )
    assert len(outside) == len(NAMES)
    for name, (image, ids) in outside.items():
        assert (ids == pairs[name].ids).all()
        # JPEG halves the resolution of colours, of which noise is full; brightness it keeps.
        error = image.astype(float) - pairs[name].image
        if worst and not gray:
            error = error @ [0.299, 0.587, 0.114]
        assert np.abs(error).max() <= worst
        assert any(np.abs(image.astype(int) - other).max() <= 2 for other in in_graph)


def test_jpeg_loses_and_its_masks_do_not():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    ids = rng.integers(0, 4, (16, 16), dtype=np.uint8)
    record = records.Record(image, ids, "a", "a.png", (0, 0), (16, 16))
    sizes = [len(records.encode(record, 4, f"jpeg:{q}")) for q in (30, 90)]
    assert sizes[0] < sizes[1]
    found, mask = records.pixels_of(records.parse_features(records.encode(record, 4, "jpeg:30")))
    assert (mask == ids).all()
    assert (found != image).any()


@pytest.mark.parametrize("text", ["jpg", "jpeg:0", "jpeg:101", "png:3", "jpeg:", ""])
def test_an_encoding_that_is_none_is_refused(text):
    with pytest.raises(records.FlexsegError, match="expected png, raw, jpeg, or jpeg:QUALITY"):
        records.parse_encoding(text)


def test_the_graph_and_numpy_read_the_same_label_map_ids():
    """Ignored pixels carry 255 through the graph, too."""
    ids = np.array([[0, 1, 255]], np.uint8)
    image = np.zeros((1, 3, 1), np.uint8)
    record = records.Record(image, ids, "a", "a.png", (0, 0), (1, 3))
    parsed = records.parse(tf.constant(records.encode(record, 2)))
    assert (records.decode_mask(parsed["mask"]).numpy() == ids).all()
    reading = masks.MaskReading(kind="index")
    assert (masks.to_ids(ids, load("{(0,0,0):0,(9,9,9):1}"), reading).ids == ids).all()
