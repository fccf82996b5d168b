"""Datasets drawn and prepared once, and runs on them that need no training."""

import os

import cv2
import numpy as np
import pytest

import flexseg
from pipelines import manifest as manifests
from train import experiment as experiments
from train import runs

COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
LABEL_MAP = "{(0,0,0):0,(255,0,0):1,(0,255,0):2}"
# Small enough to be trained in a second; what a test is about comes on top.
TINY = {
    "model.base_filters": 2,
    "model.levels": 2,
    "data.batch_size": 2,
    "optimizer.warmup_steps": 0,
    "train.epochs": 2,
    "train.steps_per_call": 2,
    "train.previews": 0,
}


def draw(folder, sizes, *, channels=3, num_classes=3, seed=0):
    """Noisy images of rectangles, which have the brightness of their class, and their masks."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
        ids = np.zeros((height, width), np.uint8)
        for k in range(1, num_classes):
            y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
            ids[y : y + rng.integers(8, 20), x : x + rng.integers(8, 20)] = k
        pixels = 40 + 80 * ids[..., None] + rng.normal(0, 12, (height, width, channels))
        pixels = pixels.clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"p{i:02d}.png"), pixels)
        cv2.imwrite(str(folder / "masks" / f"p{i:02d}.png"), COLORS[ids][..., ::-1])
    return folder


def prepare(source, output, *options, label_map=LABEL_MAP):
    """Runs `flexseg prepare` and hands back the dataset's folder."""
    status = flexseg.main(
        [
            "prepare",
            f"--dataset={source}",
            f"--output={output}",
            f"--label_map={label_map}",
            "--direct_num_workers=1",
            *(options or ["--split=train:0.5,valid:0.25,test:0.25"]),
        ]
    )
    assert status == 0
    return output


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Twelve images of 32 x 32 with three classes, and their masks."""
    return draw(tmp_path_factory.mktemp("sources") / "squares", [(32, 32)] * 12)


@pytest.fixture(scope="session")
def dataset(sources, tmp_path_factory):
    """`sources` as a dataset: 6 to train on, 3 valid, 3 test."""
    return prepare(sources, tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="session")
def large_sources(tmp_path_factory):
    """Eight images of 48 x 40, larger than the tiles of 32, and their masks."""
    return draw(tmp_path_factory.mktemp("sources") / "large", [(48, 40)] * 8, seed=1)


@pytest.fixture(scope="session")
def large_datasets(large_sources, tmp_path_factory):
    """`large_sources` as datasets by how they were prepared."""
    folder = tmp_path_factory.mktemp("data")
    split = "--split=train:0.25,test:0.75"
    return {
        name: prepare(large_sources, folder / name, split, *options)
        for name, options in {
            "whole": [],
            "tiled": ["--tile_size=32", "--tile_overlap=4"],
            "halved": ["--scale=0.5"],
            "stretched": ["--image_size=32,32"],
        }.items()
    }


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory):
    """A dataset of gray images with two classes."""
    folder = tmp_path_factory.mktemp("gray")
    source = draw(folder / "sources", [(32, 32)] * 8, channels=1, num_classes=2, seed=2)
    return prepare(source, folder / "data", label_map="{(0,0,0):0,(255,0,0):1}")


def experiment_of(keys):
    """The tiny experiment with some keys changed."""
    overrides = {key: str(value) for key, value in {**TINY, **keys}.items()}
    return experiments.load(None, overrides)


@pytest.fixture
def planned(dataset, tmp_path):
    """A function from keys to the run that they would make on `dataset`."""

    def plan(keys=(), data=dataset, folder=tmp_path / "run"):
        return runs.plan(str(folder), experiment_of(dict(keys)), manifests.load(str(data)))

    return plan


@pytest.fixture
def untrained(planned):
    """A function that makes a run directory with weights that were drawn, not learnt."""

    def make(keys=(), **where):
        run = planned(keys, **where)
        runs.claim(run)
        model, rng = run.build(), np.random.default_rng(0)
        for variable in model.weights:
            noise = rng.normal(0, 0.3, variable.shape)
            moved = variable.numpy() + noise
            variable.assign(abs(moved) if "variance" in variable.path else moved)
        os.makedirs(run.path("best"))
        model.save_weights(run.path(runs.BEST_WEIGHTS))
        return run

    return make


@pytest.fixture(scope="session")
def train_command(dataset):
    """A function from a run's folder and keys to the command line that trains it."""

    def command(folder, keys=(), data=dataset):
        given = {**TINY, **dict(keys)}
        flags = [f"--config.{key}={value}" for key, value in given.items()]
        return ["train", f"--data={data}", f"--run={folder}", *flags]

    return command


@pytest.fixture(scope="session")
def trained(train_command, tmp_path_factory):
    """A run directory of a short training."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    keys = {"train.previews": 2, "model.dropout_rate": 0.2, "train.checkpoint_steps": 2}
    assert flexseg.main(train_command(folder, keys)) == 0
    return folder
