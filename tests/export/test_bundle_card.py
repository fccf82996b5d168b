"""The model card says what a stranger needs to know, and only what is known."""

import dataclasses
import json
import shutil

import keras
import pytest
import tensorflow as tf

from export import bundle
from export.bundles import card_text, model_card, signatures
from flexseg_errors import FlexsegError
from pipelines import folds
from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from pipelines.manifest import Manifest, Shard, Split
from pipelines.preparation import Preparation
from train import experiment as experiments
from train import runs


def copied(run, tmp_path, **changes):
    """The same run elsewhere, which may be changed."""
    moved = runs.load(str(shutil.copytree(run.folder, tmp_path / "run")))
    return dataclasses.replace(moved, **changes)


def test_the_assets_are_the_label_map_and_the_card(bundle_of, untrained_runs):
    run, assets = untrained_runs["colour"], bundle_of("colour") / "assets"
    found = sorted(p.name for p in assets.iterdir())
    assert found == ["label_map.yaml", "model_card.json", "model_card.md"]
    assert label_maps.load(str(assets / "label_map.yaml")) == run.label_map
    card = json.loads((assets / "model_card.json").read_text())
    assert card == model_card.of_run(run, card["signatures"])
    assert (assets / "model_card.md").read_text() == card_text.text(card)


def test_the_signatures_in_the_card_are_those_that_are_served(bundle_of):
    folder = bundle_of("colour")
    card = json.loads((folder / "assets" / "model_card.json").read_text())
    served = tf.saved_model.load(str(folder)).signatures
    assert card["signatures"] == signatures.described(served)
    assert card["signatures"]["serving_default"]["inputs"] == {
        "images": {"dtype": "uint8", "shape": [None, None, None, 3]}
    }


@pytest.mark.parametrize("name", ["colour", "gray", "stretched"])
def test_the_card_says_what_a_stranger_needs(untrained_runs, name):
    run = untrained_runs[name]
    card = model_card.of_run(run, {})
    assert card["classes"] == list(run.label_map.names)
    assert card["colors"] == [list(c.colors[0]) for c in run.label_map.classes]
    assert card["channels"] == run.channels
    assert card["tile"] == list(run.size)
    assert Preparation.from_dict(card["preparation"]) == run.preparation
    assert card["dataset_fingerprint"] == run.dataset_fingerprint
    assert experiments.from_dict(card["experiment"]) == run.experiment
    assert card["versions"]["tensorflow"] == tf.__version__
    assert card["versions"]["keras"] == keras.__version__
    assert card["trained_with"] == []
    assert card["metrics"] == {}
    assert card["data"] is None
    assert card["postprocessing"] is None


EVALUATION = {
    "split": "test",
    "images": 3,
    "size": "original",
    "dataset_fingerprint": "abc",
    "foreground": {"dice_macro": 0.25, "iou_macro": 0.125, "dice_pooled": 0.5},
    "classes": [
        {"id": i, "name": name, "dice": dice, "iou": None, "images": 3}
        for i, (name, dice) in enumerate(
            [("background", 0.5), ("class_1", 0.25), ("class_2", None)]
        )
    ],
    "intervals": {
        "foreground_dice_macro": [0.125, 0.375],
        "classes": [{"dice": [0.4, 0.6]}, {"dice": [0.2, 0.3]}, {"dice": None}],
        "resamples": 1000,
        "units": 3,
        "drawn": "images",
    },
    "legacy": {"dice_coef_multiclass": 0.99},
}


def evaluated(run, tmp_path):
    run = copied(run, tmp_path)
    folder = tmp_path / "run" / "evaluation"
    folder.mkdir()
    (folder / "test.json").write_text(json.dumps(EVALUATION))
    (folder / "test_images.csv").write_text("")
    return run


def test_the_card_holds_what_was_evaluated_with_its_intervals(untrained_runs, tmp_path):
    card = model_card.of_run(evaluated(untrained_runs["colour"], tmp_path), {})
    kept = {k: v for k, v in EVALUATION.items() if k not in ("split", "legacy")}
    assert card["metrics"] == {"test": kept}
    text = card_text.text(card)
    for row in (
        "| class            | Dice   | 95% interval     | IoU    | images |",
        "| class_1          | 0.2500 | 0.2000 to 0.3000 | -      | 3      |",
        "| class_2          | -      | -                | -      | 3      |",
        "| foreground, mean | 0.2500 | 0.1250 to 0.3750 | 0.1250 | 3      |",
        "test: 3 images, size original",
    ):
        assert f"\n{row}\n" in text
    assert "0.99" not in text


def test_a_damaged_evaluation_is_told(untrained_runs, tmp_path):
    run = evaluated(untrained_runs["colour"], tmp_path)
    path = tmp_path / "run" / "evaluation" / "test.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(FlexsegError, match=r"evaluation/test\.json is damaged"):
        model_card.of_run(run, {})


def dataset(folder):
    split = Split(
        examples=40,
        sources=8,
        groups=4,
        pixels=10,
        class_pixels=(5, 3, 2),
        class_examples=(40, 30, 7),
        class_sources=(8, 7, 2),
        channel_mean=(1.0, 1.0, 1.0),
        channel_std=(1.0, 1.0, 1.0),
        min_size=(32, 32),
        max_size=(32, 32),
        unmatched_pixels=0,
        shards=(Shard("train-00000-of-00001.tfrecord", 40, 9, "0" * 64),),
    )
    manifest = Manifest(
        folder=str(folder),
        label_map=label_maps.load("{(10,20,30):0,(255,0,0):1,(0,200,90):2}"),
        channels=3,
        preparation=Preparation(),
        options={},
        fingerprint="f" * 64,
        rejected=1,
        splits={"train": split, "test": dataclasses.replace(split, sources=3)},
    )
    folder.mkdir()
    (folder / manifests.FILENAME).write_text(manifests.dump(manifest))
    return manifest


def test_the_card_counts_what_it_was_trained_on(untrained_runs, tmp_path):
    manifest = dataset(tmp_path / "records")
    run = dataclasses.replace(
        untrained_runs["colour"],
        data=manifest.folder,
        dataset_fingerprint=manifest.fingerprint,
    )
    card = model_card.of_run(run, {})
    counts = {"sources": 8, "groups": 4, "examples": 40, "class_sources": [8, 7, 2]}
    assert card["data"] == {
        "name": "records",
        "rejected": 1,
        "splits": {"train": counts, "test": {**counts, "sources": 3}},
    }
    text = card_text.text(card)
    assert (
        "train: 8 images in 4 groups, 40 examples (background in 8, class_1 in 7, class_2 in 2)"
        in text
    )
    other = dataclasses.replace(run, dataset_fingerprint="e" * 64)
    assert model_card.of_run(other, {})["data"] is None, "another dataset stands there now"


def test_the_card_of_a_run_on_a_fold_counts_what_that_run_saw(untrained_runs, tmp_path):
    manifest = dataset(tmp_path / "records")
    train = manifest.splits["train"]
    parts = {f"fold{n}": dataclasses.replace(train, sources=8 + n) for n in range(3)}
    whole = dataclasses.replace(manifest, splits={**parts, "test": manifest.splits["test"]})
    (tmp_path / "records" / manifests.FILENAME).write_text(manifests.dump(whole))
    run = untrained_runs["colour"]
    keys = experiments.to_dict(run.experiment)
    keys["data"]["fold"] = 1
    run = dataclasses.replace(
        run,
        experiment=experiments.from_dict(keys),
        data=manifest.folder,
        dataset_fingerprint=folds.view(whole, 1).fingerprint,
    )
    splits = model_card.of_run(run, {})["data"]["splits"]
    assert {name: split["sources"] for name, split in splits.items()} == {
        "train": 8 + 10,
        "valid": 9,
        "test": 3,
    }
    assert splits["train"]["class_sources"] == [16, 14, 4]
    for other in (whole.fingerprint, folds.view(whole, 2).fingerprint):
        changed = dataclasses.replace(run, dataset_fingerprint=other)
        assert model_card.of_run(changed, {})["data"] is None


def test_a_format_is_told_with_what_it_costs_as_far_as_that_was_measured():
    plain = {"files": ["a.onnx", "a.json"], "bytes": 1_234_567}
    assert card_text.format_line("onnx", plain) == "onnx: a.onnx, a.json; 1.2 MB"
    parity = {"agreement": 0.5, "max_difference": 1e-3, "images": 2, "source": "drawn"}
    line = card_text.format_line("onnx", {**plain, "parity": parity})
    assert line.endswith("50.0000% of pixels alike; probabilities differ by at most 1.0e-03; "
                         "2 images: drawn")  # fmt: skip
    for lost, told in ((0.01234, "+0.0123"), (-0.5, "-0.5000"), (0.0, "+0.0000")):
        costly = {**plain, "parity": {**parity, "dice_lost": lost}}
        assert card_text.format_line("onnx", costly) == f"{line}; foreground Dice lost {told}"


RULES = "classes:\n- {id: 1, minimum_size: 7, fill_holes: 3}\nchosen: {split: valid}\n"


def test_post_processing_goes_along_and_the_card_says_who_applies_it(
    untrained_runs, tmp_path, monkeypatch
):
    run = copied(untrained_runs["colour"], tmp_path)
    (tmp_path / "run" / "postprocessing.yaml").write_text(RULES)
    monkeypatch.setattr(bundle, "_save", lambda *_: {})
    monkeypatch.setattr(bundle, "_check", lambda *_: bundle.Exported(""))
    bundle.write(run, str(tmp_path / "bundle"))
    assets = tmp_path / "bundle" / "assets"
    assert (assets / "postprocessing.yaml").read_text() == RULES
    card = json.loads((assets / "model_card.json").read_text())
    (rule,) = card["postprocessing"]["classes"]
    assert (rule["id"], rule["minimum_size"], rule["fill_holes"]) == (1, 7, 3)
    text = (assets / "model_card.md").read_text()
    assert "The signatures do not do that" in text
    assert "minimum_size 7" in text


def test_rules_that_do_nothing_are_none(untrained_runs, tmp_path):
    run = copied(untrained_runs["colour"], tmp_path)
    (tmp_path / "run" / "postprocessing.yaml").write_text("classes: []\n")
    assert model_card.of_run(run, {})["postprocessing"] is None


@pytest.mark.parametrize(
    ("preparation", "said", "unsaid"),
    [
        (Preparation(), ["Images are not scaled", "PNG files of 16 bits are refused"], []),
        (Preparation(scale=0.2), ["scaled by 0.2 first"], ["not scaled"]),
        (Preparation(image_size=(32, 48)), ["stretched to 32 x 48"], ["not scaled"]),
        (Preparation(intensity="window:40,80"), ["by window:40,80"], ["refused", "volume"]),
        (Preparation(intensity="percentile:1,99"), ["whole volume"], ["refused"]),
        (Preparation(intensity="minmax-slice"), ["by minmax-slice"], ["whole volume"]),
    ],
)
def test_the_limits_follow_from_the_preparation(untrained_runs, preparation, said, unsaid):
    run = dataclasses.replace(untrained_runs["colour"], preparation=preparation)
    limits = " ".join(model_card.of_run(run, {})["limits"])
    assert all(text in limits for text in said)
    assert not any(text in limits for text in unsaid)


def test_gray_networks_refuse_colours_and_say_so(untrained_runs):
    def limits(name):
        return " ".join(model_card.of_run(untrained_runs[name], {})["limits"])

    assert "Files with colours are refused" in limits("gray")
    assert "Files with colours are refused" not in limits("colour")
