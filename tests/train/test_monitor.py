"""The figures that an epoch is judged by, held to scikit-learn, and the names they go by."""

import dataclasses

import numpy as np
import pytest
from sklearn import metrics as oracle

from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from train import experiment as experiments
from train import monitor, runs

MAP = label_maps.load("{(0,0,0):0,(200,0,0):1,(0,100,0):2,(0,0,100):3}")


def pixels(seed, classes=4):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, 500)
    return truth, np.where(rng.random(500) < 0.6, truth, rng.integers(0, classes, 500))


def figures_of(truth, found, prefix=""):
    matrix = oracle.confusion_matrix(truth, found, labels=range(MAP.num_classes))
    return monitor.values(prefix, 0.5, matrix, MAP)


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_scikit_learn(seed):
    truth, found = pixels(seed)
    labels, keys = [1, 2, 3], {"average": "macro", "labels": [1, 2, 3]}
    dices = oracle.f1_score(truth, found, labels=labels, average=None)
    assert figures_of(truth, found) == {
        "loss": 0.5,
        "dice": pytest.approx(oracle.f1_score(truth, found, **keys)),
        "iou": pytest.approx(oracle.jaccard_score(truth, found, **keys)),
        "precision": pytest.approx(oracle.precision_score(truth, found, **keys)),
        "recall": pytest.approx(oracle.recall_score(truth, found, **keys)),
        "accuracy": pytest.approx(oracle.accuracy_score(truth, found)),
        **{f"dice/class_{k}": pytest.approx(dice) for k, dice in zip(labels, dices, strict=True)},
    }


def test_figures_of_the_valid_split_have_its_prefix_and_the_same_values():
    truth, found = pixels(0)
    plain = figures_of(truth, found)
    assert figures_of(truth, found, "val_") == {f"val_{k}": v for k, v in plain.items()}


def test_a_figure_without_meaning_or_value_is_none():
    truth, found = pixels(0, classes=3)
    matrix = oracle.confusion_matrix(truth, found, labels=range(4))
    values = monitor.values("", float("nan"), matrix, MAP)
    assert (values["loss"], values["dice/class_3"]) == (None, None)
    assert values["dice"] == pytest.approx((values["dice/class_1"] + values["dice/class_2"]) / 2)


NAMES = [prefix + name for prefix in ("", "val_") for name in (*monitor.FIGURES, "dice/loss")]


@pytest.mark.parametrize("name", NAMES)
def test_of_losses_the_lower_is_better_and_of_all_else_the_higher(name):
    low, high = (0.1, 0.2) if name in ("loss", "val_loss") else (0.2, 0.1)
    assert monitor.is_better(low, high, name)
    assert not monitor.is_better(high, low, name)
    assert not monitor.is_better(low, low, name)


@pytest.mark.parametrize("name", NAMES)
def test_any_figure_beats_none_and_none_beats_no_figure(name):
    nan = float("nan")
    assert monitor.is_better(0.5, None, name)
    assert monitor.is_better(0.5, nan, name)
    assert not monitor.is_better(None, 0.5, name)
    assert not monitor.is_better(nan, 0.5, name)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "dice/loss"])
def test_every_figure_can_be_monitored(name):
    assert experiments.load(None, {"train.monitor": name}).train.monitor == name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("val_dise", "val_dice"), ("val_los", "val_loss"), ("acuracy", "accuracy"), ("x", None)],
)
def test_an_unknown_monitor_is_refused_with_the_nearest_name_and_all_of_them(name, nearest):
    with pytest.raises(FlexsegError) as error:
        experiments.load(None, {"train.monitor": name})
    text = str(error.value)
    assert f'train.monitor "{name}" is unknown' in text
    assert ", ".join(f"val_{figure}" for figure in monitor.FIGURES) in text
    assert "val_dice/CLASS" in text
    assert (f'Did you mean "{nearest}"?' in text) == (nearest is not None)


def monitored(name):
    return experiments.load(None, {"train.monitor": name, "model.levels": "2"})


def test_the_dice_of_a_class_is_monitored_by_its_name(dataset, tmp_path):
    manifest = manifests.load(str(dataset))
    for name in ("val_dice/class_2", "dice/class_1"):
        run = runs.plan(str(tmp_path / "run"), monitored(name), manifest)
        assert run.experiment.train.monitor == name


@pytest.mark.parametrize("name", ["val_dice/class_3", "val_dice/background", "dice/clas_1"])
def test_a_class_that_is_not_in_the_label_map_is_refused_when_planned(dataset, tmp_path, name):
    """Nor is the background's Dice a figure of the foreground."""
    with pytest.raises(FlexsegError, match=f'"{name}" is unknown; known are ') as error:
        runs.plan(str(tmp_path / "run"), monitored(name), manifests.load(str(dataset)))
    prefix = name.partition("/")[0]
    assert f"{prefix}/class_1, {prefix}/class_2." in str(error.value)


@pytest.mark.parametrize(("split", "prefix"), [("valid", "val_"), ("train", "")])
def test_a_class_without_a_pixel_in_the_split_is_refused_when_planned(
    dataset, tmp_path, split, prefix
):
    manifest = manifests.load(str(dataset))
    empty = dataclasses.replace(manifest.split(split), class_pixels=(100, 10, 0))
    manifest = dataclasses.replace(manifest, splits={**manifest.splits, split: empty})
    folder = tmp_path / "run"
    with pytest.raises(FlexsegError, match=f"the {split} split .* has no pixel of that class"):
        runs.plan(str(folder), monitored(f"{prefix}dice/class_2"), manifest)
    runs.plan(str(folder), monitored(f"{prefix}dice/class_1"), manifest)
    assert not folder.exists()


def test_a_class_may_be_monitored_where_there_is_no_valid_split(dataset, tmp_path):
    """The newest weights are the best then, whatever is monitored."""
    manifest = manifests.load(str(dataset))
    train = {"train": manifest.split("train")}
    alone = dataclasses.replace(manifest, splits=train)
    run = runs.plan(str(tmp_path / "run"), monitored("val_dice/class_2"), alone)
    assert run.experiment.train.monitor == "val_dice/class_2"
