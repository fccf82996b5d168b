"""An evaluation is what its JSON says, recomputed from the pictures that `predict` writes."""

import csv
import dataclasses
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import sklearn.metrics
from PIL import Image
from scipy import ndimage

from flexseg_errors import FlexsegError
from pipelines import batches, folds
from pipelines import manifest as manifests
from train import evaluate, runs

from .conftest import experiment_of, prepare

KEYS = {
    "split",
    "images",
    "dataset_fingerprint",
    "size",
    "prediction",
    "classes",
    "foreground",
    "background",
    "overall",
    "confusion",
    "intervals",
    "per_image",
    "detection",
    "calibration",
    "legacy",
    "rules",
}
FIGURES = ["dice", "iou", "precision", "recall", "specificity", "matthews"]
CLASS = ["id", "name", *FIGURES, "images"]
LEGACY = {
    "dice_coef",
    "iou_coef",
    "jacard_similarity",
    "sensitivity",
    "specificity",
    "binary_accuracy",
    "dice_coef_multiclass",
    "categorical_crossentropy",
}


def sources_of(dataset, split):
    return [i for i, *_ in batches.whole_images(manifests.load(str(dataset)), split)]


def truth_of(sources, name):
    colors = np.array(Image.open(sources / "masks" / f"{name}.png"))
    return (colors @ np.array([1, 2, 0]) // 255).astype(np.uint8)  # red is 1, green is 2


def predicted(command, run, sources, tmp_path, *flags):
    """Runs `flexseg predict`: image -> (class ids, probabilities)."""
    output = tmp_path / "predicted"
    done = command(
        "predict",
        f"--model={run.folder}",
        f"--images={sources / 'images'}",
        f"--output={output}",
        "--probabilities",
        *flags,
    )
    assert done.status == 0, done.err
    return {
        p.stem: (np.array(Image.open(p)), np.load(p.with_suffix(".npz"))["probabilities"])
        for p in output.glob("*.png")
    }


def assert_figures(found, truths, guesses):
    """Everything in the JSON that follows from truth and prediction, by scikit-learn."""
    truth, guess = (np.concatenate([x.ravel() for x in xs]) for xs in (truths, guesses))
    matrix = sklearn.metrics.confusion_matrix(truth, guess, labels=[0, 1, 2])
    assert found["confusion"] == matrix.tolist()
    assert found["images"] == len(truths)
    for k, entry in enumerate(found["classes"]):
        assert list(entry) == CLASS
        assert entry["id"] == k
        t, g = truth == k, guess == k
        assert entry["images"] == sum((x == k).any() for x in truths)
        assert entry["dice"] == pytest.approx(sklearn.metrics.f1_score(t, g))
        assert entry["iou"] == pytest.approx(sklearn.metrics.jaccard_score(t, g))
        assert entry["recall"] == pytest.approx(sklearn.metrics.recall_score(t, g))
        if g.any():
            assert entry["precision"] == pytest.approx(sklearn.metrics.precision_score(t, g))
        else:
            assert entry["precision"] is None
    foreground = found["classes"][1:]
    pooled = {k: found["foreground"][k] for k in ("dice_macro", "iou_macro", "dice_pooled")}
    assert pooled == {
        "dice_macro": pytest.approx(np.mean([c["dice"] for c in foreground])),
        "iou_macro": pytest.approx(np.mean([c["iou"] for c in foreground])),
        "dice_pooled": pytest.approx(
            2 * np.sum((truth == guess) & (truth > 0)) / (np.sum(truth > 0) + np.sum(guess > 0))
        ),
    }
    background = {k: found["classes"][0][k] for k in FIGURES}
    assert found["background"] == background


@pytest.mark.parametrize("prepared", ["whole", "tiled"])
def test_the_figures_are_those_of_what_predict_writes(
    untrained, large_datasets, large_sources, tmp_path, command, prepared
):
    """Whole images and images put together from tiles, seen by a network that takes tiles."""
    run = untrained({"data.crop_size": "32,32"}, data=large_datasets["tiled"])
    masks = predicted(command, run, large_sources, tmp_path)
    dataset = large_datasets[prepared]
    done = command("evaluate", f"--run={run.folder}", f"--data={dataset}", "--split=test")
    assert done.status == 0, done.err
    found = json.loads(Path(run.path("evaluation", "test.json")).read_text())
    assert set(found) == KEYS
    assert found["split"] == "test"
    assert found["size"] == "as prepared"
    assert found["dataset_fingerprint"] == manifests.load(str(dataset)).fingerprint
    assert [c["name"] for c in found["classes"]] == ["background", "class_1", "class_2"]
    names = sources_of(dataset, "test")
    assert len(names) == 6
    truths = [truth_of(large_sources, name) for name in names]
    assert_figures(found, truths, [masks[name][0] for name in names])
    # float16 in the files, so to three digits
    legacy, surprise = [], []
    for truth, name in zip(truths, names, strict=True):
        p = np.take_along_axis(masks[name][1].astype(float), truth[..., None].astype(int), -1)
        legacy.append((2 * p.sum() + 1) / (2 * truth.size + 1))
        surprise.append(-np.log(np.maximum(p, 1e-7)).mean())
    assert set(found["legacy"]) == LEGACY
    assert found["legacy"]["dice_coef_multiclass"] == pytest.approx(np.mean(legacy), rel=2e-3)
    assert found["legacy"]["categorical_crossentropy"] == pytest.approx(np.mean(surprise), rel=5e-3)


def test_tiles_put_together_score_as_the_untiled_images_do(untrained, large_datasets):
    run = untrained(data=large_datasets["tiled"])
    segmenter = run.segmenter()
    found = {
        name: evaluate.evaluate(run, manifests.load(str(large_datasets[name])), "test", segmenter)
        for name in ("whole", "tiled")
    }
    fingerprints = {name: value.pop("dataset_fingerprint") for name, value in found.items()}
    assert len(set(fingerprints.values())) == 2
    assert {c["images"] for c in found["whole"]["classes"]} != {0}
    order = {name: sources_of(large_datasets[name], "test") for name in found}
    assert order["whole"] == order["tiled"]
    assert found["whole"] == found["tiled"]


@pytest.mark.parametrize("prepared", ["halved", "stretched"])
def test_a_run_on_resized_data_is_scored_at_the_size_of_the_originals(
    untrained, large_datasets, large_sources, tmp_path, command, prepared
):
    """On a dataset that was not resized: the images are, for the network, and its answer back."""
    crop = {"data.crop_size": "16,16"} if prepared == "halved" else {}
    run = untrained(crop, data=large_datasets[prepared])
    masks = predicted(command, run, large_sources, tmp_path)
    found = evaluate.evaluate(run, manifests.load(str(large_datasets["whole"])), "test")
    assert found["size"] == "original"
    assert np.sum(found["confusion"]) == 6 * 48 * 40
    names = sources_of(large_datasets["whole"], "test")
    truths = [truth_of(large_sources, name) for name in names]
    assert_figures(found, truths, [masks[name][0] for name in names])
    own = evaluate.evaluate(run, manifests.load(str(large_datasets[prepared])), "test")
    assert own["size"] == "as prepared"
    assert np.sum(own["confusion"]) == 6 * (24 * 20 if prepared == "halved" else 32 * 32)


def test_the_default_is_the_test_split_of_the_data_that_the_run_was_trained_on(
    trained, dataset, tmp_path, command
):
    run = shutil.copytree(trained, tmp_path / "run")
    done = command("evaluate", f"--run={run}")
    assert done.status == 0, done.err
    found = json.loads((run / "evaluation" / "test.json").read_text())
    assert found["dataset_fingerprint"] == manifests.load(str(dataset)).fingerprint
    assert found["images"] == 3
    with open(run / "evaluation" / "test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == CLASS
    for row, entry in zip(rows, found["classes"], strict=True):
        assert row == {k: "" if v is None else str(v) for k, v in entry.items()}
    with open(run / "evaluation" / "test_images.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert sorted(line["source_id"] for line in lines) == sorted(sources_of(dataset, "test"))
    dice = [float(line["dice_macro"]) for line in lines]
    assert dice == sorted(dice)
    truth = np.sum(found["confusion"], 1)
    for k, name in enumerate(("background", "class_1", "class_2")):
        assert sum(int(line[f"pixels_{name}"]) for line in lines) == truth[k]
        own = [float(v) for line in lines if (v := line[f"dice_{name}"])]
        summed = found["per_image"]["classes"][k]
        assert summed["images"] == len(own)
        assert summed["dice_mean"] == pytest.approx(np.mean(own), abs=1e-5)


def test_the_table_names_every_class_and_dashes_what_has_no_figure():
    entry = {"id": 0, "name": "sky", "dice": 0.5, "iou": 1 / 3, "precision": None, "recall": 1.0}
    text = evaluate.table(
        {
            "split": "test",
            "images": 7,
            "classes": [{**entry, "images": 7}, {**entry, "name": "vessel", "images": 3}],
            "foreground": {"dice_macro": 0.25, "iou_macro": None, "dice_pooled": 0.125},
        }
    )
    lines = text.splitlines()
    assert lines[0] == "test: 7 images"
    assert [line.split() for line in lines if line.startswith(("sky", "vessel"))] == [
        ["sky", "0.5000", "0.3333", "-", "1.0000", "7"],
        ["vessel", "0.5000", "0.3333", "-", "1.0000", "3"],
    ]
    assert "0.2500" in text
    assert "0.1250" in text


def test_variants_are_scored_as_predict_segments_them(
    untrained, large_datasets, large_sources, tmp_path, command
):
    run = untrained({"data.crop_size": "16,16"}, data=large_datasets["halved"])
    how = ("--tta=flips", "--scales=0.5,1")
    masks = predicted(command, run, large_sources, tmp_path, *how)
    whole = large_datasets["whole"]
    done = command("evaluate", f"--run={run.folder}", f"--data={whole}", *how)
    assert done.status == 0, done.err
    assert "Test-time augmentation: flips, scales 0.5, 1." in done.out
    found = json.loads(Path(run.path("evaluation", "test.json")).read_text())
    assert found["prediction"]["tta"] == "flips"
    assert found["prediction"]["scales"] == [0.5, 1.0]
    names = sources_of(whole, "test")
    truths = [truth_of(large_sources, name) for name in names]
    assert_figures(found, truths, [masks[name][0] for name in names])
    plain = evaluate.evaluate(run, manifests.load(str(whole)), "test")
    assert plain["confusion"] != found["confusion"]
    assert plain["prediction"] == {"tta": "none", "scales": [1.0], "postprocessing": None}


def test_the_table_says_what_the_json_says(untrained, command):
    run = untrained()
    done = command("evaluate", f"--run={run.folder}", "--boundary", "--nsd_tolerance=1.5")
    assert done.status == 0, done.err
    found = json.loads(Path(run.path("evaluation", "test.json")).read_text())
    assert done.out.rstrip() == evaluate.table(found)
    assert max(map(len, done.out.splitlines())) <= 100

    def figures(entry, *keys, digits=4):
        return [f"{entry[k]:.{digits}f}" if entry[k] is not None else "-" for k in keys]

    def of_class(part, k):
        entries = found[part] if part == "classes" else found[part]["classes"]
        return next(e for e in entries if e["id"] == k)

    for k in (1, 2):
        lines = [x.split() for x in done.out.splitlines() if x.startswith(f"class_{k}")]
        pooled, own, outline = lines
        entry, seen, borders = (of_class(p, k) for p in ("classes", "detection", "boundary"))
        low, high = of_class("intervals", k)["dice"]
        assert low <= entry["dice"] <= high
        assert pooled[1:] == [
            *figures(entry, "dice"),
            f"{low:.4f}-{high:.4f}",
            *figures(entry, "iou", "precision", "recall"),
            str(entry["images"]),
        ]
        assert own[1:3] == figures(of_class("per_image", k), "dice_mean", "dice_median")
        assert " ".join(own[4:]) == (
            f"{seen['missed_images']} of {seen['images_with']} "
            f"{seen['false_alarm_images']} of {seen['images_without']}"
        )
        assert outline[1:] == [
            *figures(borders, "hd95", "average_surface_distance", digits=3),
            *figures(borders, "nsd", "cl_dice"),
            str(borders["images"]),
            str(borders["one_sided"]),
        ]
    assert found["boundary"]["foreground"]["hd95"] is not None
    assert found["boundary"]["nsd_tolerance"] == 1.5
    assert "- where a class is in neither" in done.out
    assert "1000 draws of 3 groups" in done.out
    assert f"Brier score {found['calibration']['brier']:.4f}" in done.out


@pytest.mark.parametrize("spacing", ["1,1", "0.5,2"])
def test_outlines_are_measured_in_the_unit_of_the_spacing(
    untrained, large_datasets, large_sources, tmp_path, command, spacing
):
    run = untrained(data=large_datasets["whole"])
    masks = predicted(command, run, large_sources, tmp_path)
    flags = [] if spacing == "1,1" else [f"--spacing={spacing}"]
    done = command("evaluate", f"--run={run.folder}", "--boundary", *flags)
    assert done.status == 0, done.err
    found = json.loads(Path(run.path("evaluation", "test.json")).read_text())["boundary"]
    assert found["spacing"] == [float(side) for side in spacing.split(",")]
    assert found["nsd_tolerance"] == 2
    for entry in found["classes"]:
        distances, shares = [], []
        for name in sources_of(large_datasets["whole"], "test"):
            regions = [truth_of(large_sources, name) == entry["id"], masks[name][0] == entry["id"]]
            edges = [r & ~ndimage.binary_erosion(r) for r in regions]
            if all(e.any() for e in edges):
                maps = [ndimage.distance_transform_edt(~e, found["spacing"]) for e in edges]
                sides = [maps[1][edges[0]], maps[0][edges[1]]]
                distances.append(max(np.percentile(d, 95) for d in sides))
                shares.append((np.concatenate(sides) <= 2).mean())
            elif any(e.any() for e in edges):
                shares.append(0.0)
        assert entry["distance_images"] == len(distances)
        assert entry["images"] == len(shares)
        assert entry["hd95"] == (pytest.approx(np.mean(distances)) if distances else None)
        assert entry["nsd"] == pytest.approx(np.mean(shares))


@pytest.mark.parametrize(
    ("flags", "status", "wanted"),
    [
        (["--spacing=1,1"], 2, "--spacing is for boundaries; give --boundary too"),
        (["--nsd_tolerance=1"], 2, "--nsd_tolerance is for boundaries; give --boundary too"),
        (["--boundary", "--spacing=1"], 1, "expected the height and width of a pixel"),
        (["--boundary", "--spacing=1,0"], 1, "expected the height and width of a pixel"),
        (["--boundary", "--spacing=1,x"], 1, "expected the height and width of a pixel"),
        (["--boundary", "--nsd_tolerance=-1"], 1, "expected a distance, 0 or more"),
        (["--boundary", "--nsd_tolerance=nan"], 1, "expected a distance, 0 or more"),
    ],
)
def test_flags_that_cannot_be_are_refused(tmp_path, command, flags, status, wanted):
    done = command("evaluate", f"--run={tmp_path}", *flags)
    assert done.status == status
    assert wanted in done.err


@pytest.mark.parametrize(
    ("options", "known", "ids", "expected"),
    [
        ({}, ["a", "b"], ["b", "a", "b"], ["b", "a", "b"]),
        ({}, ["day/a", "day/b"], ["day/b"], ["day/b"]),
        ({}, ["v1", "v2", "c"], ["v1/0000", "v1/0001", "c", "v2/0000"], ["v1", "v1", "c", "v2"]),
        ({"group_regex": r"p\d+"}, ["p1", "p2"], ["x/p1_a", "p2_b", "p1_c"], ["p1", "p2", "p1"]),
        ({"group_regex": r"(p\d+)_"}, ["p1", "p2"], ["p1_a", "p2_b"], ["p1", "p2"]),
        ({"group_regex": r"^p\d", "split": ""}, ["p1"], ["test/p1_a"], ["p1"]),
        ({"group_regex": r"(\w+)\.png"}, ["p1"], ["p1"], None),  # needs the suffix
        ({"group_regex": r".+"}, ["p1.png"], ["p1"], None),  # would be another group without it
        ({}, ["a"], ["a", "b"], None),
        ({"groups_from_file": True}, ["a", "b"], ["a", "b"], None),
    ],
)
def test_groups_are_told_from_ids_where_they_can_be(
    dataset, tmp_path, options, known, ids, expected
):
    lines = ["group,split", *(f"{group},test" for group in known)]
    (tmp_path / "groups.csv").write_text("\n".join(lines) + "\n")
    manifest = dataclasses.replace(
        manifests.load(str(dataset)),
        folder=str(tmp_path),
        options={"split": "test:1", "group_regex": "", "groups_from_file": False, **options},
    )
    assert evaluate.groups_of(manifest, ids) == expected


def test_groups_are_not_known_without_their_file(dataset, tmp_path):
    manifest = dataclasses.replace(manifests.load(str(dataset)), folder=str(tmp_path))
    assert evaluate.groups_of(manifest, ["p00"]) is None


@pytest.mark.parametrize(
    ("option", "drawn"), [("--group_regex=^p.", "groups"), ("--groups=FILE", "images")]
)
def test_intervals_draw_the_groups_that_the_data_were_split_by(
    untrained, sources, tmp_path, command, option, drawn
):
    """Two groups of sources by the tens in their names; or those of a file, which is not kept."""
    names = sorted(p.stem for p in (sources / "images").iterdir())
    table = tmp_path / "groups_of_sources.csv"
    table.write_text("path,group\n" + "".join(f"{n}.png,{n[:2]}\n" for n in names))
    done = command(
        "prepare",
        f"--dataset={sources}",
        f"--output={tmp_path / 'data'}",
        "--label_map={(0,0,0):0,(255,0,0):1,(0,255,0):2}",
        "--split=train:0.5,test:0.5",
        "--direct_num_workers=1",
        option.replace("FILE", str(table)),
    )
    assert done.status == 0, done.err
    run = untrained(data=tmp_path / "data")
    manifest = manifests.load(str(tmp_path / "data"))
    found = evaluate.evaluate(run, manifest, "test")["intervals"]
    split = manifest.split("test")
    assert split.groups < split.sources
    assert found["drawn"] == drawn
    assert found["units"] == getattr(split, {"images": "sources"}.get(drawn, drawn))


def test_a_split_that_is_not_there_is_told_with_those_that_are(trained, command):
    done = command("evaluate", f"--run={trained}", "--split=tset")
    assert done.status == 1
    assert 'has no split "tset"; it has train, valid, test' in done.err


def test_evaluate_says_that_it_needs_a_run(command):
    done = command("evaluate")
    assert done.status == 2
    assert "evaluate needs --run" in done.err


@pytest.mark.parametrize(
    ("run_on", "scored_on", "wanted"),
    [
        ("whole", "gray", "its classes are .*'background', 'class_1'"),
        ("halved", "stretched", "prepare it in the same way, or without --image_size"),
        ("whole", "halved", "it was prepared by"),
    ],
)
def test_a_dataset_that_does_not_fit_the_run_is_refused(
    planned, large_datasets, two_classes, run_on, scored_on, wanted
):
    datasets = {**large_datasets, "gray": two_classes}
    run = planned({"data.crop_size": "16,16"}, data=datasets[run_on])
    with pytest.raises(FlexsegError, match=f"does not fit .*{wanted}"):
        evaluate.evaluate(run, manifests.load(str(datasets[scored_on])), "test")


def test_a_dataset_of_other_channels_is_refused(planned, two_classes, tmp_path, command):
    source = tmp_path / "sources"
    for part in ("images", "masks"):
        (source / part).mkdir(parents=True)
        picture = np.zeros((32, 32, 3), np.uint8)
        cv2.imwrite(str(source / part / "a.png"), picture)
    done = command(
        "prepare",
        f"--dataset={source}",
        f"--output={tmp_path / 'data'}",
        "--label_map={(0,0,0):0,(255,0,0):1}",
        "--split=test:1",
        "--direct_num_workers=1",
    )
    assert done.status == 0, done.err
    run = planned(data=two_classes)
    with pytest.raises(FlexsegError, match="its images have 3 channels, the run's 1"):
        evaluate.evaluate(run, manifests.load(str(tmp_path / "data")), "test")


def test_an_evaluation_that_fails_leaves_the_old_one(untrained, dataset, monkeypatch, tmp_path):
    run = runs.load(untrained().folder)
    evaluation = evaluate.evaluate(run, manifests.load(str(dataset)), "test")
    path = Path(evaluate.write(run, evaluation))
    before = path.read_bytes()

    def crash(*_, **__):
        raise OSError("no space left")

    evaluation["images"] += 1
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(FlexsegError, match="no space left"):
        evaluate.write(run, evaluation)
    assert path.read_bytes() == before


def test_a_run_on_a_fold_is_evaluated_on_its_own_fold(sources, tmp_path):
    """Of fewer folds, each may hold what it was trained on."""
    folded = prepare(sources, tmp_path / "folded", "--folds=3", "--split=train:0.75,test:0.25")
    manifest = folds.view(manifests.load(str(folded)), 2)
    run = runs.plan(str(tmp_path / "fold"), experiment_of({"data.fold": 2}), manifest)
    for data in (None, str(folded)):
        seen = evaluate.dataset_of(run, data)
        assert seen == manifest
        assert sources_in(seen, "valid").isdisjoint(sources_in(seen, "train"))
        assert sources_in(seen, "valid") == sources_in(manifests.load(str(folded)), "fold2")
        assert set(seen.splits) == {"train", "valid", "test"}
    fewer = prepare(sources, tmp_path / "fewer", "--folds=2")
    with pytest.raises(FlexsegError) as error:
        evaluate.dataset_of(run, str(fewer))
    assert str(error.value) == (
        f"The run {run.folder} has fold 2 for its valid split, but {fewer} has the folds 0 to 1. "
        f"Give the dataset that it was trained on ({folded}), or one without folds."
    )


def test_a_run_on_a_fold_takes_a_dataset_without_folds_as_it_is(dataset, planned):
    run = dataclasses.replace(planned(), experiment=experiment_of({"data.fold": 2}))
    assert evaluate.dataset_of(run, str(dataset)) == manifests.load(str(dataset))


def sources_in(manifest, split):
    return {name for name, *_ in batches.whole_images(manifest, split)}
