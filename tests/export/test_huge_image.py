"""An image that is segmented by rows gets the mask that it would get as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from export.predictions import huge_image
from flexseg_errors import FlexsegError
from pipelines import intensity, readers
from pipelines.intensity import Intensity

tifffile = pytest.importorskip("tifffile")

ROOT = Path(__file__).parents[2]


def write_tiff(path, image):
    gray = image.shape[-1] == 1
    tifffile.imwrite(
        path,
        image[..., 0] if gray else image,
        tile=(32, 32),
        photometric="minisblack" if gray else "rgb",
        compression="adobe_deflate",
    )


def segmented(run, path, target, **how):
    mapping = how.pop("intensity", Intensity())
    return huge_image.segment_huge(
        str(path),
        str(target),
        run.segmenter().rows(),
        run.label_map,
        channels=run.channels,
        intensity=mapping,
        **how,
    )


@pytest.mark.parametrize("name", ["colour", "gray", "stretched", "halved"])
@pytest.mark.parametrize("kind", [".tif", ".npy", ".png"])
def test_the_mask_is_that_of_the_whole_image(untrained_runs, draw_image, tmp_path, name, kind):
    run = untrained_runs[name]
    image = draw_image((149, 207), run.channels)
    path = tmp_path / ("image" + kind)
    if kind == ".tif":
        write_tiff(path, image)
    elif kind == ".npy":
        np.save(path, image)
    else:
        cv2.imwrite(str(path), image[..., ::-1])
    probabilities = run.segmenter().probabilities(image).numpy()
    made = segmented(run, path, tmp_path / "out" / "mask", probabilities=True)
    mask = np.asarray(Image.open(tmp_path / "out" / "mask.png"))
    np.testing.assert_array_equal(mask, probabilities.argmax(-1))
    assert len(np.unique(mask)) > 1
    with np.load(tmp_path / "out" / "mask.npz") as found:
        np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-3)
    assert made.size == (149, 207)
    assert made.windowed == (kind != ".png")
    assert made.class_pixels == tuple(
        np.bincount(mask.ravel(), minlength=run.label_map.num_classes)
    )
    assert [os.path.basename(path) for path in made.written] == ["mask.png", "mask.npz"]
    assert sorted(os.listdir(tmp_path / "out")) == ["mask.npz", "mask.png"]


@pytest.mark.parametrize("text", ["minmax", "percentile:2,98", "window:9000,12000"])
def test_deep_images_are_mapped_by_the_limits_of_the_whole(untrained_runs, tmp_path, text):
    run = untrained_runs["gray"]
    rng = np.random.default_rng(0)
    deep = cv2.resize(rng.integers(0, 20000, (9, 7)).astype(np.float32), (130, 170))
    deep = (deep + np.linspace(0, 9000, 170)[:, None]).astype(np.uint16)
    write_tiff(tmp_path / "deep.tif", deep[..., None])
    mapping = intensity.parse(text)
    image = readers.read_image(str(tmp_path / "deep.tif"), 1, mapping)
    segmented(run, tmp_path / "deep.tif", tmp_path / "mask", intensity=mapping, suffix=".npy")
    expected = run.segmenter().probabilities(image).numpy().argmax(-1)
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), expected)


def test_an_image_is_huge_by_its_header(draw_image, tmp_path):
    write_tiff(tmp_path / "a.tif", draw_image((100, 50)))
    np.save(tmp_path / "a.npy", draw_image((100, 50)))
    cv2.imwrite(str(tmp_path / "a.png"), draw_image((100, 50)))
    for name in ("a.tif", "a.npy", "a.png"):
        path = str(tmp_path / name)
        assert not huge_image.is_huge(path)
        assert not huge_image.is_huge(path, 5000)
        assert huge_image.is_huge(path, 4999)
    with pytest.raises(FlexsegError, match=r"none\.png is missing"):
        huge_image.is_huge(str(tmp_path / "none.png"))


def test_what_needs_the_whole_image_is_refused_by_name(draw_image, tmp_path):
    write_tiff(tmp_path / "a.tif", draw_image((100, 50)))
    huge_image.refuse_whole(str(tmp_path / "a.tif"), [])
    with pytest.raises(FlexsegError, match=r"a\.tif has 100x50 pixels.*--overlay, --entropy"):
        huge_image.refuse_whole(str(tmp_path / "a.tif"), ["--overlay", "--entropy"])


def test_an_image_that_ends_too_early_leaves_no_mask(untrained_runs, draw_image, tmp_path):
    write_tiff(tmp_path / "a.tif", draw_image((300, 64)))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        end = file.pages.first.dataoffsets[-2]
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:end])
    with pytest.raises(FlexsegError, match=r"a\.tif is truncated or damaged"):
        segmented(untrained_runs["colour"], tmp_path / "a.tif", tmp_path / "m", probabilities=True)
    assert os.listdir(tmp_path) == ["a.tif"]


MEASURE = """
import sys
import keras, numpy as np, tifffile
from export.predictions import huge_image
from pipelines import label_map
from pipelines.intensity import Intensity
from pipelines.preparation import Preparation
from train.experiment import InferenceConfig
from train.segment import Segmenter

images = keras.Input((None, None, 3))
model = keras.Model(images, keras.layers.Conv2D(3, 1)(images))
rows = Segmenter(model, (256, 256), Preparation(), InferenceConfig()).rows()
labels = label_map.load("{(0,0,0):0,(255,0,0):1,(0,255,0):2}")
tile = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
for height in (1024, 8192):
    path = f"{sys.argv[1]}/{height}"
    tiles = (tile for _ in range(height // 256 * 6))
    tifffile.imwrite(path + ".tif", tiles, shape=(height, 1536, 3), dtype=np.uint8,
                     tile=(256, 256), photometric="rgb")
    huge_image.segment_huge(path + ".tif", path, rows, labels, channels=3, intensity=Intensity())
    with open("/proc/self/status") as file:  # what getrusage tells begins with the parent's peak
        print("PEAK", next(line.split()[1] for line in file if line.startswith("VmHWM:")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is told by Linux")
def test_the_peak_of_the_process_hardly_grows_with_the_image(tmp_path):
    """Of the second, pixels would take 36 MiB, probabilities 144, and the mask 12."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    small, large = (
        int(line.split()[1]) / 1024 for line in done.stdout.splitlines() if line.startswith("PEAK")
    )
    assert large - small < 30
