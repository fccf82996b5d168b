"""A run directory belongs to one experiment on one dataset, and says so."""

import dataclasses
import os

import pytest
import yaml

from flexseg_errors import FlexsegError
from pipelines import manifest as manifests
from train import evaluate, runs
from train import experiment as experiments


def test_a_run_read_back_is_the_run_that_was_planned(planned):
    run = planned({"model.levels": 3, "data.crop_size": "16,24"})
    runs.claim(run)
    assert runs.load(run.folder) == run


def test_the_preparation_of_the_data_travels_with_the_run(planned, large_datasets):
    for name in ("halved", "stretched"):
        run = planned(data=large_datasets[name], folder=large_datasets[name] / "run")
        runs.claim(run)
        manifest = manifests.load(str(large_datasets[name]))
        assert runs.load(run.folder).preparation == manifest.preparation


def test_another_experiment_is_refused_and_the_differences_are_named(planned):
    runs.claim(planned())
    with pytest.raises(FlexsegError) as error:
        runs.claim(planned({"optimizer.learning_rate": 0.5, "model.levels": 3}))
    assert "optimizer.learning_rate: 0.001, now 0.5" in str(error.value)
    assert "model.levels: 2, now 3" in str(error.value)
    assert runs.load(planned().folder) == planned(), "nothing was touched"


def test_another_dataset_is_refused(planned, large_datasets):
    runs.claim(planned())
    with pytest.raises(FlexsegError, match="the dataset is another"):
        runs.claim(planned(data=large_datasets["tiled"]))


def test_the_same_experiment_is_welcome_again(planned):
    runs.claim(planned())
    runs.claim(planned())


@pytest.mark.parametrize("names", [["thesis.tex"], ["label_map.yaml"], ["input.yaml", "x"]])
def test_a_folder_that_holds_something_else_is_refused_and_not_touched(planned, tmp_path, names):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(FlexsegError, match=r"holds something else \(.*nothing was touched"):
        runs.claim(planned(folder=folder))
    assert {p.name: p.read_text() for p in folder.iterdir()} == dict.fromkeys(names, "mine")


def test_a_file_in_the_place_of_the_run_is_refused(planned, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(FlexsegError, match="is a file; expected a folder"):
        runs.claim(planned())
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_folder_is_as_good_as_a_new_one(planned, tmp_path):
    (tmp_path / "run").mkdir()
    runs.claim(planned())
    assert runs.load(planned().folder) == planned()


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_run_that_was_killed_while_it_began_begins_anew(planned, monkeypatch, writes):
    """Whatever of its first files was there; each is written whole or not at all."""
    replace, left = os.replace, [writes]

    def dying(*args):
        if not left[0]:
            raise RuntimeError("killed")
        left[0] -= 1
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(RuntimeError, match="killed"):
            runs.claim(planned())
    runs.claim(planned())
    assert runs.load(planned().folder) == planned()
    assert not [name for name in os.listdir(planned().folder) if name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("crop", "levels", "wanted"),
    [
        ("32,32", 7, ["multiples of 64", "height 32 (nearest that fits: 64)", "width 32"]),
        ("30,32", 3, ["multiples of 4", "height 30 (nearest that fits: 28 or 32)"]),
    ],
)
def test_a_size_that_the_levels_do_not_allow_is_told_with_the_nearest(
    planned, crop, levels, wanted
):
    with pytest.raises(FlexsegError) as error:
        planned({"data.crop_size": crop, "model.levels": levels})
    for text in [*wanted, "data.crop_size", "--image_size", "--tile_size"]:
        assert text in str(error.value)


def test_records_of_several_sizes_need_a_crop(planned, tmp_path, command):
    import cv2
    import numpy as np

    for i, size in enumerate([(32, 32), (40, 32)]):
        for part in ("images", "masks"):
            (tmp_path / "sources" / part).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "sources" / part / f"{i}.png"
            cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    done = command(
        "prepare",
        f"--dataset={tmp_path / 'sources'}",
        f"--output={tmp_path / 'data'}",
        "--label_map={(0,0,0):0,(255,0,0):1}",
        "--split=train:1",
        "--direct_num_workers=1",
    )
    assert done.status == 0, done.err
    with pytest.raises(FlexsegError, match=r"several sizes \(32x32 to 40x32\).*data\.crop_size"):
        planned(data=tmp_path / "data")
    assert planned({"data.crop_size": "32,32"}, data=tmp_path / "data").size == (32, 32)


def test_an_overlap_that_no_tile_of_the_run_allows_is_told_before_training(planned):
    with pytest.raises(FlexsegError, match=r"inference\.overlap does not fit .*4096"):
        planned({"inference.overlap": 4096})


def test_a_sigmoid_is_for_two_classes(planned, two_classes):
    with pytest.raises(FlexsegError, match=r"model\.head=sigmoid is for two classes; .* has 3"):
        planned({"model.head": "sigmoid"})
    assert planned({"model.head": "sigmoid"}, data=two_classes).outputs == 1
    assert planned(data=two_classes).outputs == 2


def test_a_dataset_without_a_training_split_cannot_be_trained_on(
    sources, tmp_path, planned, command
):
    done = command(
        "prepare",
        f"--dataset={sources}",
        f"--output={tmp_path / 'data'}",
        "--label_map={(0,0,0):0,(255,0,0):1,(0,255,0):2}",
        "--split=test:1",
        "--direct_num_workers=1",
    )
    assert done.status == 0, done.err
    with pytest.raises(FlexsegError, match='has no split "train"; it has test'):
        planned(data=tmp_path / "data")


def test_a_label_map_of_one_class_leaves_nothing_to_learn(tmp_path, planned, command):
    import cv2
    import numpy as np

    for part in ("images", "masks"):
        (tmp_path / "sources" / part).mkdir(parents=True)
        path = tmp_path / "sources" / part / "a.png"
        cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    done = command(
        "prepare",
        f"--dataset={tmp_path / 'sources'}",
        f"--output={tmp_path / 'data'}",
        "--label_map={(0,0,0):0}",
        "--split=train:1",
        "--direct_num_workers=1",
    )
    assert done.status == 0, done.err
    with pytest.raises(FlexsegError, match="at least two classes"):
        planned(data=tmp_path / "data")


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"train.loss": "ce+dise"}, 'Did you mean "dice"'),
        ({"model.levels": 7}, "nearest that fits"),
        ({"model.head": "sigmoid"}, "is for two classes"),
    ],
)
def test_what_cannot_be_trained_leaves_no_run_behind(
    train_command, tmp_path, command, keys, wanted
):
    """Or the mended command would be told that the run is another's."""
    done = command(*train_command(tmp_path / "run", keys))
    assert done.status == 1
    assert wanted in done.err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(FlexsegError, match=r"There is no folder .*nowhere: it is not a run"):
        runs.load(str(tmp_path / "nowhere"))
    with pytest.raises(FlexsegError, match=r"No experiment\.yaml in"):
        runs.load(str(tmp_path))


@pytest.mark.parametrize("damage", ["missing", "empty", "partial"])
def test_a_damaged_run_is_told(planned, damage):
    run = planned()
    runs.claim(run)
    path = run.path(runs.INPUT)
    if damage == "missing":
        os.remove(path)
    else:
        with open(path) as file:
            data = yaml.safe_load(file)
        del data["size"]
        with open(path, "w") as file:
            file.write("" if damage == "empty" else yaml.safe_dump(data))
    with pytest.raises(FlexsegError, match=r"is damaged: input\.yaml"):
        runs.load(run.folder)


def test_a_run_without_weights_cannot_be_used_yet(planned):
    run = planned()
    runs.claim(run)
    with pytest.raises(FlexsegError, match="has no trained weights yet"):
        evaluate.evaluate(run, manifests.load(run.data), "test")


def test_the_first_weights_follow_from_the_seed(planned):
    one, same, other = (planned({"train.seed": s}).build().get_weights() for s in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_a_run_of_mixed_precision_predicts_in_float32(untrained):
    run = untrained({"train.precision": "mixed_bfloat16"})
    assert run.build().get_layer("bridge_conv1").compute_dtype == "bfloat16"
    assert run.load_model().get_layer("bridge_conv1").compute_dtype == "float32"


def test_trained_weights_need_no_download(planned, monkeypatch, tmp_path):
    """A backbone's first weights are not fetched for a run that has its own."""
    asked = []

    class Network:
        def load_weights(self, path):
            asked.append(path)

    def build(self):
        asked.append(self.experiment.model.network.weights)
        return Network()

    experiment = experiments.load(
        None, {"model.name": "efficient_unet", "model.weights": "imagenet"}
    )
    run = dataclasses.replace(planned(folder=tmp_path), experiment=experiment)
    assert run.experiment.model.network.weights == "imagenet"
    os.makedirs(run.path("best"))
    path = run.path(runs.BEST_WEIGHTS)
    with open(path, "wb"):
        pass
    monkeypatch.setattr(runs.Run, "build", build)
    run.load_model()
    assert asked == ["none", path]


def test_the_folder_of_a_demo_is_told_from_a_run(tmp_path):
    """It holds an experiment, too, and a run in one of its folders."""
    (tmp_path / "demo" / "run").mkdir(parents=True)
    (tmp_path / "demo" / runs.EXPERIMENT).write_text("")
    (tmp_path / "demo" / "run" / runs.INPUT).write_text("")
    with pytest.raises(FlexsegError) as error:
        runs.load(str(tmp_path / "demo"))
    assert str(error.value) == (
        f'{tmp_path}/demo is not a run of `flexseg train`. Did you mean "{tmp_path}/demo/run"?'
    )
