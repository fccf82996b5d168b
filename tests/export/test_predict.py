"""Masks: of the size of the image, in the colours of the classes, under the image's own path."""

import hashlib

import cv2
import numpy as np
import pytest
from PIL import Image

from export.predictions import predictors
from pipelines import storage
from train import runs
from train.runs import Run


@pytest.fixture
def predict(command, tmp_path):
    """A function that runs `flexseg predict` into tmp_path/masks."""

    def run(model, images, *flags, output=tmp_path / "masks"):
        where = (f"--model={model}", f"--images={images}", f"--output={output}")
        return command("predict", *where, *flags)

    return run


def contents(folder):
    """Name -> hash of the files below a folder, but for those in hidden folders."""
    return {
        f.name: hashlib.sha256(storage.read_bytes(f.path)).hexdigest()
        for f in storage.walk(str(folder))
    }


STEMS = {"small", "tile", "odd", "deep/er/large", "deep/photo"}


def test_every_image_gets_a_palette_mask_of_its_size_under_its_path(
    predict, untrained_runs, pictures, tmp_path
):
    run = untrained_runs["colour"]
    done = predict(run.folder, pictures)
    assert done.status == 0, done.err
    assert "5 of 5 images segmented" in done.out
    assert set(contents(tmp_path / "masks")) == {f"{stem}.png" for stem in STEMS}
    segmenter = run.segmenter()
    seen = set()
    for path in [p for p in pictures.rglob("*.*") if p.suffix != ".txt"]:
        image = cv2.imread(str(path))[..., ::-1]
        relative = path.relative_to(pictures).with_suffix(".png")
        with Image.open(tmp_path / "masks" / relative) as mask:
            assert mask.mode == "P"
            palette = np.array(mask.getpalette()[:9]).reshape(3, 3)
            np.testing.assert_array_equal(palette, run.label_map.colors)
            ids = np.array(mask)
        assert ids.shape == image.shape[:2]
        np.testing.assert_array_equal(ids, segmenter.probabilities(image).numpy().argmax(-1))
        seen |= set(np.unique(ids))
    assert seen == {0, 1, 2}


def test_probabilities_and_overlay_come_on_demand(predict, untrained_runs, pictures, tmp_path):
    run = untrained_runs["colour"]
    done = predict(run.folder, pictures, "--probabilities", "--overlay", "--opacity=0.25")
    assert done.status == 0, done.err
    suffixes = (".png", ".npz", ".overlay.png")
    assert set(contents(tmp_path / "masks")) == {stem + s for stem in STEMS for s in suffixes}
    image = cv2.imread(str(pictures / "deep/er/large.png"))[..., ::-1]
    large = str(tmp_path / "masks" / "deep/er/large")
    ids = np.array(Image.open(large + ".png"))
    with np.load(large + ".npz") as file:
        assert file.files == ["probabilities"]
        found = file["probabilities"]
    assert found.dtype == np.float16
    assert found.shape == (101, 87, 3)
    expected = run.segmenter().probabilities(image).numpy()
    np.testing.assert_array_equal(found, expected.astype(np.float16))
    painted = cv2.imread(large + ".overlay.png")[..., ::-1]
    colour = run.label_map.colors[ids]
    blend = np.where(ids[..., None] > 0, image * 0.75 + colour * 0.25, image)
    assert abs(painted - blend).max() <= 0.5


def test_a_run_and_its_bundle_write_the_same_bytes(
    predict, untrained_runs, bundle_of, pictures, tmp_path
):
    models = {"run": untrained_runs["colour"].folder, "bundle": bundle_of("colour")}
    for name, model in models.items():
        done = predict(model, pictures, "--probabilities", "--overlay", output=tmp_path / name)
        assert done.status == 0, done.err
    assert contents(tmp_path / "run") == contents(tmp_path / "bundle")
    assert len(contents(tmp_path / "run")) == 15


@pytest.mark.parametrize("size", [(9, 40), (32, 32), (33, 57), (150, 217)])
def test_with_the_identity_as_the_network_prediction_returns_the_image(
    predict, untrained_runs, identity_model, tmp_path, monkeypatch, size
):
    """All the way from a file to files: no seam, no shift, at sizes below, at and above a tile."""
    monkeypatch.setattr(Run, "load_model", lambda run: identity_model)
    rng = np.random.default_rng(size)
    parts = np.sort(rng.integers(0, 256, (*size, 2)), -1)
    edges = np.concatenate([np.zeros((*size, 1)), parts, np.full((*size, 1), 255)], -1)
    image = np.diff(edges).astype(np.uint8)  # three channels that add up to 255
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    model = untrained_runs["colour"].folder
    done = predict(model, tmp_path / "image.png", "--probabilities")
    assert done.status == 0, done.err
    shares = image / 255
    with np.load(tmp_path / "masks" / "image.npz") as file:
        np.testing.assert_allclose(file["probabilities"], shares, atol=2.0**-12)
    exact = predictors.load(model).probabilities(image)
    np.testing.assert_allclose(exact, shares, atol=1e-6)
    found = np.array(Image.open(tmp_path / "masks" / "image.png"))
    chosen = np.take_along_axis(image, found[..., None], -1)[..., 0]
    np.testing.assert_array_equal(chosen, image.max(-1))


@pytest.mark.parametrize("name", ["stretched", "halved"])
def test_what_was_done_to_the_data_is_done_to_images_and_undone_on_masks(
    predict, untrained_runs, pictures, tmp_path, name
):
    assert predict(untrained_runs[name].folder, pictures).status == 0
    for path in [p for p in pictures.rglob("*.*") if p.suffix != ".txt"]:
        relative = path.relative_to(pictures).with_suffix(".png")
        found = np.array(Image.open(tmp_path / "masks" / relative))
        assert found.shape == cv2.imread(str(path)).shape[:2]


def test_a_single_image_gives_a_single_mask(predict, untrained_runs, pictures, tmp_path):
    done = predict(untrained_runs["colour"].folder, pictures / "deep/er/large.png")
    assert done.status == 0
    assert set(contents(tmp_path / "masks")) == {"large.png"}


def test_a_gray_image_does_for_a_network_of_colours(predict, untrained_runs, draw_image, tmp_path):
    gray = draw_image((40, 30), 1)
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    run = untrained_runs["colour"]
    assert predict(run.folder, tmp_path / "gray.png").status == 0
    found = np.array(Image.open(tmp_path / "masks" / "gray.png"))
    expected = run.segmenter().probabilities(np.repeat(gray, 3, -1)).numpy().argmax(-1)
    np.testing.assert_array_equal(found, expected)


def test_a_colour_image_is_not_for_a_network_of_gray(predict, untrained_runs, draw_image, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "colour.png"), draw_image((40, 30)))
    cv2.imwrite(str(folder / "gray.png"), draw_image((40, 30), 1))
    done = predict(untrained_runs["gray"].folder, folder)
    assert done.status == 1
    assert "colour.png has colours; a gray image was expected" in done.err
    assert set(contents(tmp_path / "masks")) == {"gray.png"}


def test_unreadable_images_are_named_and_the_others_done(
    predict, untrained_runs, pictures, tmp_path
):
    (pictures / "broken.png").write_bytes((pictures / "small.png").read_bytes()[:60])
    (pictures / "empty.jpg").write_bytes(b"")
    done = predict(untrained_runs["colour"].folder, pictures)
    assert done.status == 1
    assert "5 of 7 images segmented" in done.out
    assert "2 could not be done" in done.err
    assert f"{pictures / 'broken.png'} is truncated" in done.err
    assert f"{pictures / 'empty.jpg'} is empty" in done.err
    assert set(contents(tmp_path / "masks")) == {f"{stem}.png" for stem in STEMS}


def test_nothing_else_in_the_output_folder_is_touched(predict, untrained_runs, pictures, tmp_path):
    masks = tmp_path / "masks"
    (masks / "deep").mkdir(parents=True)
    (masks / "thesis.tex").write_text("mine")
    (masks / "deep" / "old.png").write_text("mine")
    before = contents(masks)
    assert predict(untrained_runs["colour"].folder, pictures).status == 0
    after = contents(masks)
    assert before.items() <= after.items()
    assert set(after) - set(before) == {f"{stem}.png" for stem in STEMS}


@pytest.mark.parametrize("where", [".", "deep", "masks/of/today"])
def test_an_output_among_the_images_is_refused(predict, untrained_runs, pictures, where):
    before = contents(pictures)
    done = predict(untrained_runs["colour"].folder, pictures, output=pictures / where)
    assert done.status == 1
    assert "lies inside --images=" in done.err
    assert contents(pictures) == before


@pytest.mark.parametrize("images", ["small.png", "deep"])
def test_no_image_is_ever_overwritten_by_a_mask(predict, untrained_runs, pictures, images):
    """A single image beside its output; a folder whose masks would fall on images above it."""
    (pictures / "deep" / "deep").mkdir()
    cv2.imwrite(str(pictures / "deep" / "photo.png"), np.zeros((9, 9, 3), np.uint8))
    cv2.imwrite(str(pictures / "deep" / "deep" / "photo.png"), np.zeros((9, 9, 3), np.uint8))
    (pictures / "deep" / "photo.JPG").unlink()
    before = contents(pictures)
    done = predict(untrained_runs["colour"].folder, pictures / images, output=pictures)
    assert done.status == 1
    assert "would be overwritten" in done.err
    assert contents(pictures) == before


def test_two_images_of_one_stem_are_refused(predict, untrained_runs, pictures, tmp_path):
    (pictures / "small.jpg").write_bytes((pictures / "small.png").read_bytes())
    done = predict(untrained_runs["colour"].folder, pictures)
    assert done.status == 1
    assert "small.jpg" in done.err
    assert "small.png would get the same mask" in done.err
    assert not (tmp_path / "masks").exists()


def test_an_overlay_and_a_mask_of_one_name_are_refused(predict, untrained_runs, pictures, tmp_path):
    (pictures / "small.overlay.png").write_bytes((pictures / "small.png").read_bytes())
    done = predict(untrained_runs["colour"].folder, pictures, "--overlay")
    assert done.status == 1
    assert "small.overlay.png" in done.err
    assert not (tmp_path / "masks").exists()
    assert predict(untrained_runs["colour"].folder, pictures).status == 0


def test_an_empty_folder_is_told(predict, untrained_runs, tmp_path):
    (tmp_path / "images").mkdir()
    done = predict(untrained_runs["colour"].folder, tmp_path / "images")
    assert done.status == 1
    assert "There are no images in" in done.err
    assert ".png .jpg" in done.err
    assert not (tmp_path / "masks").exists()


def test_a_missing_folder_is_told(predict, untrained_runs, tmp_path):
    done = predict(untrained_runs["colour"].folder, tmp_path / "nowhere")
    assert done.status == 1
    assert "nowhere: there is no such folder or file" in done.err


@pytest.mark.parametrize("kind", ["missing", "empty", "saved model", "no weights"])
def test_a_model_that_is_none_is_told(predict, pictures, untrained_runs, tmp_path, kind):
    model = tmp_path / "model"
    if kind != "missing":
        model.mkdir()
    if kind == "saved model":
        (model / "saved_model.pb").write_bytes(b"")
    if kind == "no weights":
        for name in (runs.EXPERIMENT, runs.INPUT, runs.LABEL_MAP):
            with open(untrained_runs["colour"].path(name)) as file:
                (model / name).write_text(file.read())
    done = predict(model, pictures)
    assert done.status == 1
    wanted = {
        "missing": "there is no such folder",
        "empty": "is neither a run of `flexseg train` nor a bundle of `flexseg export`",
        "saved model": "is a SavedModel, but no bundle of `flexseg export`",
        "no weights": "has no trained weights yet",
    }
    assert wanted[kind] in done.err


@pytest.mark.parametrize("missing", ["model", "images", "output"])
def test_predict_says_which_flag_it_needs(command, missing):
    given = [f"--{n}=x" for n in ("model", "images", "output") if n != missing]
    done = command("predict", *given)
    assert done.status == 2
    assert f"predict needs --{missing}" in done.err


@pytest.mark.parametrize("opacity", ["1.5", "-0.1", "nan"])
def test_an_opacity_out_of_range_is_refused(predict, untrained_runs, pictures, opacity):
    done = predict(untrained_runs["colour"].folder, pictures, f"--opacity={opacity}")
    assert done.status == 1
    assert "expected 0 to 1" in done.err
