"""Images, and runs that were not trained: their weights are drawn, so that they differ by image."""

import functools
import os

import cv2
import keras
import numpy as np
import pytest

from export import bundle
from pipelines import label_map as label_maps
from pipelines.preparation import Preparation
from train import experiment as experiments
from train import runs
from train.runs import Run

THREE = "{(10,20,30):0,(255,0,0):1,(0,200,90):2}"
TWO = "{(0,0,0):0,(255,255,0):1}"
EXPERIMENT = {"model": {"base_filters": 2, "levels": 2}}


def make_run(folder, *, channels=3, head="softmax", preparation=None, tile=(32, 32)):
    """A run directory as `flexseg train` leaves it, of no dataset."""
    data = {"model": {**EXPERIMENT["model"], "head": head}, "inference": {"batch_size": 3}}
    run = Run(
        folder=str(folder),
        data="nowhere",
        experiment=experiments.from_dict(data),
        label_map=label_maps.load(TWO if head == "sigmoid" else THREE),
        channels=channels,
        size=tile,
        preparation=preparation or Preparation(),
        dataset_fingerprint="0" * 64,
    )
    runs.claim(run)
    model, rng = run.build(), np.random.default_rng(5)
    for variable in model.weights:
        moved = variable.numpy() + rng.normal(0, 0.4, variable.shape)
        variable.assign(abs(moved) if "variance" in variable.path else moved)
    if head == "softmax":  # else its uneven logits make one class win everywhere
        logits = model.get_layer("logits")
        logits.kernel.assign(logits.kernel.numpy() * 3)
        probe = rng.integers(0, 256, (4, *tile, channels)).astype(np.float32)
        logits.bias.assign_sub(model(probe).numpy().mean((0, 1, 2)))
    os.makedirs(run.path("best"))
    model.save_weights(run.path(runs.BEST_WEIGHTS))
    return run


RUNS = {
    "colour": {},
    "gray": {"channels": 1, "head": "sigmoid"},
    "stretched": {"preparation": Preparation(image_size=(32, 48)), "tile": (32, 48)},
    "halved": {"preparation": Preparation(scale=0.5), "tile": (16, 32)},
}


@pytest.fixture(scope="session")
def untrained_runs(tmp_path_factory):
    """Runs by name, of colour and gray images, softmax and sigmoid, with and without resizing."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: make_run(folder / name, **how) for name, how in RUNS.items()}


@pytest.fixture(scope="session")
def bundle_of(untrained_runs, tmp_path_factory):
    """A function from a run's name to its bundle, exported when first asked for."""
    folder = tmp_path_factory.mktemp("bundles")

    @functools.cache
    def export(name):
        assert bundle.export(untrained_runs[name], str(folder / name)) <= 1e-5
        return folder / name

    return export


def noisy_image(size, channels=3, seed=0):
    """Blobs and noise, uint8 [H, W, C]."""
    rng = np.random.default_rng([seed, *size])
    coarse = rng.integers(0, 256, (5, 5, channels)).astype(np.float32)
    blobs = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    blobs = blobs.reshape(*size, channels) + rng.normal(0, 10, (*size, channels))
    return blobs.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def draw_image():
    """A function (size, channels, seed) -> image."""
    return noisy_image


@pytest.fixture
def pictures(tmp_path):
    """A folder of images of many sizes and formats, some of them in folders below."""
    folder = tmp_path / "pictures"
    for name, size in {
        "small.png": (9, 21),
        "tile.bmp": (32, 32),
        "odd.tif": (33, 57),
        "deep/er/large.png": (101, 87),
        "deep/photo.JPG": (40, 44),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), noisy_image(size))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="session")
def identity_model():
    """A network of three classes whose probabilities are an image's channels, which sum to 255."""
    images = keras.Input((None, None, 3), dtype="float32")
    return keras.Model(images, keras.ops.log(images / 255.0))
