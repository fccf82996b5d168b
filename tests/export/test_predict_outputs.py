"""Every kind of file that predict writes, against what it is said to be."""

import dataclasses
import functools
import itertools
import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageColor, ImageOps
from scipy import ndimage

from export.predictions import by_rows, drawing, huge_image, predictors, whole_image
from export.predictions.outputs import Outputs, colors
from flexseg_errors import FlexsegError
from models.sliding_window import SlidingWindow
from pipelines import label_map as label_maps
from pipelines import masks, readers, storage

SIZE = (75, 90)


@pytest.fixture(scope="module")
def loaded():
    """Models by what they were loaded with: to trace a network takes longer than to use it."""
    load = predictors.load

    @functools.cache
    def keep(paths, options):
        return load(paths, options)

    return keep


@pytest.fixture(autouse=True)
def _loaded_once(loaded, monkeypatch):
    def load(paths, options=None):
        paths = (paths,) if isinstance(paths, str) else tuple(paths)
        return loaded(paths, options or predictors.PredictorOptions())

    monkeypatch.setattr(predictors, "load", load)


@pytest.fixture(scope="module")
def image_of(tmp_path_factory, draw_image):
    """A function from a run's name to the path of an image for it."""
    folder = tmp_path_factory.mktemp("images")
    for name, channels in (("colour", 3), ("gray", 1)):
        image = cv2.GaussianBlur(draw_image(SIZE, channels), (15, 15), 4)  # regions, not specks
        assert cv2.imwrite(str(folder / f"{name}.png"), image)
    return lambda name: str(folder / f"{name}.png")


@pytest.fixture
def made(command, untrained_runs, image_of, tmp_path):
    """A function that predicts one image with a run's name and flags; reads a file by suffix."""

    def run(name, *flags, model=None):
        output = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        where = (f"--model={model or untrained_runs[name].folder}", f"--output={output}")
        done = command("predict", *where, f"--images={image_of(name)}", *flags)
        assert done.status == 0, done.err

        def read(suffix):
            if suffix == ".npz":
                with np.load(output / (name + suffix)) as file:
                    return file["probabilities"]
            return np.array(Image.open(output / (name + suffix)))

        read.names = {f.name.removeprefix(name) for f in storage.walk(str(output))}
        read.output = output
        return read

    return run


@pytest.fixture(scope="module")
def known(untrained_runs, image_of, loaded):
    """A function from a run's name to its image, probabilities and class ids."""

    @functools.cache
    def of(name):
        predictor = loaded((untrained_runs[name].folder,), predictors.PredictorOptions())
        image = readers.read_image(image_of(name), predictor.channels)
        probabilities = predictor.probabilities(image)
        return image, probabilities, probabilities.argmax(-1).astype(np.uint8)

    return of


def test_each_mask_format_holds_the_same_class_ids(made, known, untrained_runs):
    label_map = untrained_runs["colour"].label_map
    ids = known("colour")[2]
    assert set(np.unique(ids)) == {0, 1, 2}
    for form, mode in (("palette", "P"), ("index", "L"), ("rgb", "RGB")):
        read = made("colour", f"--mask_format={form}")
        path = str(read.output / "colour.png")
        with Image.open(path) as picture:
            assert picture.mode == mode
        if form == "index":
            np.testing.assert_array_equal(readers.read_mask(path), ids)
        else:  # what prepare makes of it, by its colours
            reading = masks.MaskReading()
            found = masks.to_ids(readers.read_mask(path), label_map, reading).ids
            np.testing.assert_array_equal(found, ids)


@pytest.mark.parametrize("width", [1, 3])
def test_an_outline_is_what_lies_within_its_width_of_another_class(width):
    rng = np.random.default_rng(3)
    ids = cv2.resize(rng.integers(0, 3, (6, 7), dtype=np.uint8), (50, 40), interpolation=0)
    ids[5:9, 5:9] = 255
    found = drawing.outlines(ids, width)
    expected = np.zeros_like(found)
    for y, x in np.ndindex(ids.shape):
        near = ids[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        expected[y, x] = ids[y, x] in (1, 2) and (near != ids[y, x]).any()
    np.testing.assert_array_equal(found, expected)
    assert expected.any()
    assert not drawing.outlines(np.ones((9, 9), np.uint8), width).any()  # the edge is no border


def test_contours_are_opaque_and_fillings_as_opaque_as_asked(made, known, untrained_runs):
    label_map = untrained_runs["colour"].label_map
    image = known("colour")[0]
    ids = np.zeros(SIZE, np.uint8)
    ids[10:40, 10:50], ids[30:60, 40:80] = 1, 2
    found = drawing.overlay(image, ids, label_map, 0.25, 2)
    colour = label_map.colors[ids]
    lines = drawing.outlines(ids, 2)
    np.testing.assert_array_equal(found[lines], colour[lines])
    inner = (ids > 0) & ~lines
    assert abs(found - (image * 0.75 + colour * 0.25))[inner].max() <= 0.5
    np.testing.assert_array_equal(found[ids == 0], image[ids == 0])
    ids = known("colour")[2]
    found = made("colour", "--overlay", "--opacity=0", "--contour=1")(".overlay.png")
    np.testing.assert_array_equal(found, drawing.overlay(image, ids, label_map, 0, 1))


def test_maps_are_gray_and_255_is_one(made, known):
    _, p, _ = known("colour")
    read = made("colour", "--maps=entropy")
    entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(-1) / np.log(3)
    assert abs(read(".entropy.png") / 255 - entropy).max() <= 0.5 / 255 + 1e-5
    read = made("colour", "--maps=agreement,entropy", "--tta=flips")
    assert read.names == {".png", ".agreement.png", ".entropy.png"}
    assert set(np.unique(read(".agreement.png"))) <= {round(255 * n / 4) for n in range(5)}
    assert len(np.unique(read(".agreement.png"))) > 1


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_a_threshold_is_the_probability_from_which_a_pixel_is_foreground(made, known, threshold):
    _, p, _ = known("gray")
    ids = made("gray", f"--threshold={threshold}")(".png")
    np.testing.assert_array_equal(ids, p[..., 1] >= threshold)
    assert 0 < ids.mean() < 1


def test_blur_smooths_probabilities_before_a_class_is_chosen(made, known):
    _, p, plain = known("colour")
    read = made("colour", "--blur=11", "--probabilities")
    x = np.arange(-5, 6)
    sigma = 0.3 * ((11 - 1) * 0.5 - 1) + 0.8  # OpenCV's rule
    line = np.exp(-(x**2) / (2 * sigma**2))
    smooth = ndimage.correlate1d(p, line / line.sum(), 0, mode="mirror")
    smooth = ndimage.correlate1d(smooth, line / line.sum(), 1, mode="mirror")
    np.testing.assert_allclose(read(".npz"), smooth, atol=1e-3)
    ids = read(".png")
    assert (ids != smooth.argmax(-1)).mean() < 1e-3
    assert (ids != plain).mean() > 0.01


def test_a_mask_in_one_color_is_hard_or_as_soft_as_its_probability(made, known):
    _, p, ids = known("gray")
    hard = made("gray", "--colorize=green")(".colorized.png")
    np.testing.assert_array_equal(hard, np.where(ids[..., None] > 0, (0, 128, 0), 0))
    soft = made("gray", "--colorize=yellow:navy", "--soft")(".colorized.png")
    gray = Image.fromarray(np.round(p[..., 1] * 255).astype(np.uint8))
    expected = np.array(ImageOps.colorize(gray, black="navy", white="yellow"))
    assert abs(soft.astype(int) - expected).max() <= 1


def test_merged_is_image_plus_mask_and_never_wraps(made, known, untrained_runs):
    image, p, ids = known("colour")
    palette = untrained_runs["colour"].label_map.colors.astype(int)
    read = made("colour", "--merged")
    mask = np.where(ids[..., None] > 0, palette[ids], 0)
    assert (image + mask).max() > 255
    np.testing.assert_array_equal(read(".merged.png"), np.minimum(image + mask, 255))
    soft = made("colour", "--merged", "--soft")(".merged.png")
    mask = p[..., 1:] @ palette[1:]
    assert abs(soft - np.minimum(image + mask, 255)).max() <= 0.51
    read = made("gray", "--merged", "--colorize=red")
    assert read.names == {".png", ".colorized.png", ".merged.png"}
    image, _, ids = known("gray")
    mask = np.where(ids[..., None] > 0, (255, 0, 0), 0)
    np.testing.assert_array_equal(read(".merged.png"), np.minimum(image + mask, 255))


def test_bitwise_blending_lets_the_whole_image_veto(made, known, untrained_runs):
    image, p, ids = known("gray")
    run = untrained_runs["gray"]
    assert run.size != SIZE
    small = run.segmenter().probabilities(
        np.round(cv2.resize(image, run.size[::-1], interpolation=cv2.INTER_AREA))[..., None]
    )
    whole = ndimage.zoom(
        (small.numpy()[..., 1] > 0.5).astype(np.uint8),
        (SIZE[0] / run.size[0], SIZE[1] / run.size[1]),
        order=0,
        grid_mode=True,
        mode="nearest",
    )
    found = made("gray", "--bitwise_blending")(".png")
    assert not (found & ~ids).any()
    assert (found != (ids & whole)).mean() < 0.02  # OpenCV's areas are not quite TensorFlow's
    assert (found != ids).mean() > 0.05
    cut = made("gray", "--bitwise_blending", "--threshold=0.8")(".png")
    assert not (cut & ~(p[..., 1] >= 0.8)).any()


@pytest.mark.parametrize("name", ["colour", "halved", "stretched"])
def test_the_whole_image_is_seen_as_one_tile_whatever_the_preparation(untrained_runs, loaded, name):
    run = untrained_runs[name]
    member = loaded((run.folder,), predictors.PredictorOptions()).members[0]
    size = whole_image.whole_size(member, SIZE)
    assert run.preparation.size_of(*size) == run.size


def test_postprocessing_comes_last(untrained_runs, made, known, tmp_path, monkeypatch):
    """After thresholds, and as whoever loads the model has it."""
    monkeypatch.setattr(predictors.Predictor, "finish", lambda self, ids: 1 - ids)
    _, p, _ = known("gray")
    np.testing.assert_array_equal(
        made("gray", "--threshold=0.7")(".png"), 1 - (p[..., 1] >= 0.7).astype(np.uint8)
    )


def test_a_run_and_its_bundle_write_the_same_of_every_kind(made, bundle_of, untrained_runs):
    flags = ["--overlay", "--contour=1", "--maps=entropy", "--colorize=red", "--soft", "--merged"]
    flags += ["--bitwise_blending", "--blur=3"]
    run, bundle = made("gray", *flags), made("gray", *flags, model=bundle_of("gray"))
    member = predictors.load(str(bundle_of("gray"))).members[0]
    assert whole_image.whole_size(member, SIZE) == untrained_runs["gray"].size
    assert run.names == bundle.names
    assert len(run.names) == 5
    for name in run.names:
        assert (abs(run(name).astype(int) - bundle(name)) <= 1).all()
    np.testing.assert_array_equal(run(".png"), bundle(".png"))


def test_large_images_go_row_by_row_to_the_same_mask(made, known):
    _, p, ids = known("colour")
    whole = made("colour", "--probabilities")
    rows = made("colour", "--probabilities", "--whole_pixels=1000")
    np.testing.assert_array_equal(rows(".png"), ids)
    np.testing.assert_allclose(rows(".npz"), whole(".npz"), atol=2e-3)
    np.testing.assert_array_equal(
        made("colour", "--whole_pixels=1000", "--mask_format=rgb")(".png"),
        made("colour", "--mask_format=rgb")(".png"),
    )


def test_variants_of_large_images_go_row_by_row(made, untrained_runs, image_of):
    """The oracle: every tile in its variants by hand, blended by the sliding window itself."""
    segmenter = untrained_runs["colour"].segmenter()
    image = readers.read_image(image_of("colour"), 3)

    def mean(tiles):
        total = 0
        for flip in itertools.product([slice(None), slice(None, None, -1)], repeat=2):
            said = segmenter.tile_probabilities(tiles.numpy()[:, flip[0], flip[1]])
            total = total + said.numpy()[:, flip[0], flip[1]] / 4
        return total.astype(np.float32)

    def predict(tiles):
        return tf.ensure_shape(tf.py_function(mean, [tiles], tf.float32), [None, 32, 32, 3])

    expected = SlidingWindow(predict, (32, 32), 0.25, batch_size=3)(image).numpy()
    found = made("colour", "--tta=flips", "--probabilities", "--whole_pixels=1000")
    np.testing.assert_allclose(found(".npz"), expected, atol=2e-3)
    plain = made("colour", "--probabilities")
    assert abs(plain(".npz").astype(float) - expected).max() > 0.02


def test_large_images_are_post_processed_as_others_are(made, untrained_runs, tmp_path):
    run = shutil.copytree(untrained_runs["halved"].folder, tmp_path / "run")
    rules = [{"id": 1, "largest_component": True}, {"id": 2, "minimum_size": 9, "fill_holes": 30}]
    (run / "postprocessing.yaml").write_text(json.dumps({"classes": rules}))
    flags = ["--mask_format=index"]
    whole = made("colour", *flags, model=run)(".png")
    rows = made("colour", *flags, "--whole_pixels=1000", model=run)(".png")
    np.testing.assert_array_equal(rows, whole)
    plain = made("colour", *flags, model=untrained_runs["halved"].folder)(".png")
    assert (whole != plain).any()


@pytest.mark.parametrize(
    ("tta", "overlay", "whole", "expected"),
    [
        ("none", False, 9000, True),
        ("flips", False, 9000, False),  # as a whole, variants are exact where tiles meet, too
        ("none", True, 9000, False),  # as a whole is dear, but what was asked for
        ("flips", False, 5000, True),
        ("none", True, 5000, "--overlay would need all of it in memory.*raise --whole_pixels"),
    ],
)
def test_an_image_goes_row_by_row_where_nothing_needs_it_whole(
    untrained_runs, loaded, image_of, monkeypatch, tta, overlay, whole, expected
):
    """Images of 75x90 count as huge; beyond `whole` they can be nothing else."""
    monkeypatch.setattr(huge_image, "LIMIT_PIXELS", 1000)
    monkeypatch.setattr(by_rows, "_WHOLE_PIXELS", whole)
    run = untrained_runs["colour"].folder
    predictor = loaded((run,), predictors.PredictorOptions(tta))
    outputs = Outputs("out", overlay=overlay)
    if isinstance(expected, str):
        with pytest.raises(FlexsegError, match=expected):
            by_rows.is_wanted(image_of("colour"), predictor, outputs)
        return
    assert by_rows.is_wanted(image_of("colour"), predictor, outputs) is expected


def test_what_needs_the_whole_of_a_large_image_is_named(
    command, untrained_runs, image_of, tmp_path
):
    where = [f"--model={untrained_runs['colour'].folder}", f"--output={tmp_path / 'out'}"]
    where += [f"--images={image_of('colour')}", "--whole_pixels=1000", "--overlay", "--scales=2"]
    done = command("predict", *where)
    assert done.status == 1
    assert "--scales, --overlay would need all of it in memory" in done.err
    assert image_of("colour") in done.err


@pytest.mark.parametrize(
    ("flag", "message", "status"),
    [
        (
            "--mask_format=pallete",
            'expected one of palette, rgb, index. Did you mean "palette"?',
            1,
        ),
        ("--maps=entropie", 'Did you mean "entropy"?', 1),
        ("--maps=agreement", "--maps=agreement needs several predictions to compare", 1),
        ("--colorize=gren", "'gren' is no color", 1),
        ("--colorize=gren", 'Did you mean "green"?', 1),
        ("--threshold=0.5", "the model has 3: background, class_1, class_2", 1),
        ("--threshold=0", "expected a probability above 0", 1),
        ("--threshold=nan", "expected a probability above 0", 1),
        ("--bitwise_blending", "--bitwise_blending is for a background and one class", 1),
        ("--blur=4", "expected the odd side of a window", 1),
        ("--contour=-1", "expected a width in pixels", 1),
        ("--contour=2", "give --overlay too", 2),
        ("--soft", "give one of them", 2),
        ("--mask_kind=index", "give --truth too", 2),
        ("--weights=marign", 'Did you mean "margin"?', 1),
        ("--blend=logit", 'Did you mean "logits"?', 1),
        ("--overlap=1.5", "--overlap=1.5: expected a share of a tile", 1),
        ("--overlap=half", "--overlap=half: expected a share of a tile", 1),
        ("--batch_size=0", "--batch_size=0: expected at least 1", 1),
        ("--whole_pixels=-1", "expected a number of pixels", 1),
        ("--overlai", 'predict has no flag "--overlai". Did you mean "overlay"?', 2),
        ("scans", "predict takes no argument without --; got scans", 2),
    ],
)
def test_what_makes_no_sense_is_told_and_nothing_is_written(
    command, untrained_runs, image_of, tmp_path, flag, message, status
):
    output = tmp_path / "out"
    model = untrained_runs["colour"].folder
    where = (f"--model={model}", f"--images={image_of('colour')}", f"--output={output}")
    done = command("predict", *where, flag)
    assert done.status == status
    assert message in done.err
    assert not output.exists()


def test_models_of_other_classes_make_no_ensemble(command, untrained_runs, image_of, tmp_path):
    models = f"{untrained_runs['colour'].folder},{untrained_runs['gray'].folder}"
    done = command(
        "predict", f"--model={models}", f"--images={image_of('colour')}", f"--output={tmp_path}"
    )
    assert done.status == 1
    assert "cannot segment together" in done.err
    assert all(model in done.err for model in models.split(","))


def test_window_flags_replace_what_the_run_says(made, known, untrained_runs):
    """Margins without overlap are tiles laid side by side: no pixel sees beyond its tile."""
    image, _, _ = known("gray")
    run = untrained_runs["gray"]
    found = made("gray", "--weights=margin", "--overlap=0", "--probabilities")(".npz")
    tile = image[: run.size[0], : run.size[1]]
    alone = run.segmenter().probabilities(np.ascontiguousarray(tile)).numpy()
    inner = np.s_[: SIZE[0] % run.size[0], : SIZE[1] % run.size[1]]  # where no tile is moved
    np.testing.assert_allclose(found[inner], alone[inner], atol=1e-3)
    blended = made("gray", "--weights=uniform", "--overlap=16", "--batch_size=1", "--probabilities")
    assert abs(found.astype(float) - blended(".npz")).max() > 0.01


def test_colors_of_names_and_numbers():
    assert colors("green") == ((0, 128, 0), (0, 0, 0))
    assert colors("#ff8000:white") == (ImageColor.getrgb("#ff8000"), (255, 255, 255))


def test_outputs_travel_to_workers():
    outputs = Outputs("out", overlay=True, maps=("entropy",), colorize="red", threshold=0.5)
    assert pickle.loads(pickle.dumps(outputs)) == outputs  # noqa: S301
    with pytest.raises(dataclasses.FrozenInstanceError):
        outputs.overlay = False
    three = label_maps.load("{(0,0,0):0,(1,1,1):1,(2,2,2):2}")
    with pytest.raises(FlexsegError, match="--threshold is for a background and one class"):
        outputs.check(three)
