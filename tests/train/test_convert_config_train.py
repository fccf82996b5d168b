"""From a config of the older projects to masks: the commands made of it do the work."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import flexseg
from pipelines import manifest as manifests
from tests.train.old_config_texts import commands
from train import experiment as experiments
from train import old_config, runs

CONFIGS = Path(__file__).parent / "old_configs"
COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)


def draw(folder, split, count, gray):
    """Squares on noise, and their masks: in colours, or white."""
    rng = np.random.default_rng(list(split.encode()))
    for kind in ("images", "masks"):
        (folder / split / kind).mkdir(parents=True)
    for i in range(count):
        ids = np.zeros((40, 36), np.uint8)
        for k in (1, 2):
            y, x = rng.integers(0, 24, 2)
            ids[y : y + 12, x : x + 12] = 1 if gray else k
        image = 40 + 80 * ids[..., None] + rng.normal(0, 9, (40, 36, 3))
        mask = ids * 255 if gray else COLORS[ids][..., ::-1]
        cv2.imwrite(str(folder / split / "images" / f"{split}{i}.png"), image.clip(0, 255))
        cv2.imwrite(str(folder / split / "masks" / f"{split}{i}.png"), mask)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that makes the folder of an old project, and goes there."""

    def make(dialect):
        name = {"flex": "squares", "api": "gray"}[dialect]
        for split, count in (("train", 4), ("valid", 2), ("test", 2)):
            draw(tmp_path / name, split, count, gray=dialect == "api")
        shutil.copy(CONFIGS / f"{dialect}.config", tmp_path / "train_eval_infer.config")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "head", "classes", "variants"),
    [("flex", "softmax", 3, 14), ("api", "sigmoid", 2, 0)],
)
def test_the_commands_of_a_config_train_and_segment(project, dialect, head, classes, variants):
    folder = project(dialect)
    assert flexseg.main(["convert-config", "train_eval_infer.config", "--output=new"]) == 0
    lines = commands((folder / "new" / "commands.txt").read_text(), folder)
    assert [line[0] for line in lines[:4]] == ["prepare", "train", "evaluate", "predict"]
    for line in lines if dialect == "api" else lines[:2]:
        beam = ["--direct_num_workers=1"] if line[0] == "prepare" else []
        assert flexseg.main([*line, *beam]) == 0, line
    manifest = manifests.load("records")
    assert manifest.label_map.num_classes == classes
    assert manifest.split("train").examples == 4 * (1 + variants)
    assert manifest.split("valid").examples == 2
    run = runs.load("models/flexseg")
    assert run.experiment == experiments.load("new/experiment.yaml")
    assert run.experiment.model.head == head
    if dialect == "api":
        masks = [cv2.imread(f"{name}/test0.png") for name in ("gray_output", "gray_tiled")]
        assert [mask.shape[:2] for mask in masks] == [(40, 36)] * 2


@pytest.mark.slow
def test_train_takes_the_config_itself(project, command):
    folder = project("flex")
    config = "train_eval_infer.config"
    assert command("convert-config", config, "--output=new").status == 0
    (prepare,) = [line for line in commands(Path("new/commands.txt").read_text(), folder)
                  if line[0] == "prepare"]  # fmt: skip
    plain = [flag for flag in prepare if not flag.startswith("--augment")]
    assert flexseg.main([*plain, "--direct_num_workers=1"]) == 0
    result = command("train", f"--experiment={config}", "--data=records", "--run=run",
                     "--config.train.steps_per_epoch=1", "--config.train.seed=4")  # fmt: skip
    assert result.status == 0, result.err
    assert f"{config} is a config of an older project" in result.err
    assert old_config.experiment_text(old_config.convert(config)) in result.err
    told = {"train.steps_per_epoch": "1", "train.seed": "4"}
    expected = experiments.load("new/experiment.yaml", told)
    assert runs.load("run").experiment == expected


@pytest.mark.parametrize("dialect", ["flex", "api"])
def test_a_config_is_known_by_what_it_holds(tmp_path, dialect):
    path = tmp_path / "named.yaml"
    shutil.copy(CONFIGS / f"{dialect}.config", path)
    experiment = old_config.load_experiment(str(path), {"train.epochs": "9"})
    assert experiment.train.epochs == 9
    conversion = old_config.convert(str(path))
    expected = experiments.from_dict(conversion.experiment)
    assert old_config.load_experiment(str(path)) == expected
    path.write_text(old_config.experiment_text(conversion))
    assert yaml.safe_load(path.read_text()) == conversion.experiment
    assert old_config.load_experiment(str(path)) == expected
    assert old_config.load_experiment(None) == experiments.Experiment()


def test_a_config_that_holds_code_stops_the_training_before_it_begins(command, tmp_path):
    path = tmp_path / "evil.config"
    path.write_text(f"[train]\nimages_dir = open('{tmp_path / 'ran'}', 'w')\n")
    result = command("train", f"--experiment={path}", "--data=nowhere", f"--run={tmp_path / 'r'}")
    assert result.status == 1
    assert f"{path}, line 2, [train] images_dir" in result.err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "r").exists()
