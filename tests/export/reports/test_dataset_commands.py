"""The commands on a dataset's page make the same dataset again."""

import dataclasses
import shlex

import pytest

from export.reports import dataset_commands
from pipelines import augment, shards
from pipelines import manifest as manifests
from tests.export.reports import made_datasets

CASES = {
    "plain": [],
    "sized": ["--image_size=32,48", "--split=train:0.7,test:0.3", "--split_seed=5"],
    "tiles": ["--tile_size=64", "--tile_overlap=8", "--empty_tiles=0.25", "--add_reduced"],
    "scaled": ["--scale=0.3", "--image_encoding=jpeg:90", "--empty_tiles_in=all"],
    "deep": ["--intensity=window:40,80", "--preprocessing=gamma=1.5,invert"],
    "folds": ["--folds=3", "--group_regex=^it's \\d{3}$", "--split_method=stable"],
    "masks": ["--mask_kind=binary:otsu", "--unmatched=ignore", "--color_tolerance=17.5"],
    "index": ["--mask_kind=index", "--mask_suffix=_EX"],
    "volumes": ["--volume_axis=1", "--volume_rotation=90", "--volume_dataset=a b"],
    "shards": ["--num_shards=3", "--max_pixels=12345", "--mask_dataset=/m"],
    "augment": ["--augment=default", "--shard_size_mb=7"],
}
LABEL_MAP = "{(0,0,0):0,(255,0,0):1}"


@pytest.mark.parametrize("case", CASES)
def test_the_flags_say_all_that_the_options_hold(dataset, tmp_path, monkeypatch, case):
    options = made_datasets.options_of([f"--label_map={LABEL_MAP}", *CASES[case]])
    told = dataset_commands.commands(made_datasets.manifest_of(dataset, options))
    monkeypatch.chdir(tmp_path)
    for name, lines in told.files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    program, command, *arguments = shlex.split(told.lines[0])
    assert (program, command) == ("flexseg", "prepare")
    assert made_datasets.options_of(arguments) == options
    assert len(arguments) <= 5 + len(CASES[case]), "what the defaults say need not be said"


def test_every_option_is_either_a_flag_or_told_to_be_needed(dataset):
    told = {
        *dataset_commands._PLAIN,
        *("label_map", "preparation", "groups_from_file", "split_from", "masks", "volumes"),
        "augment",
    }
    assert told == {field.name for field in dataclasses.fields(shards.Options)}


def test_what_a_dataset_does_not_remember_has_a_placeholder(dataset):
    options = made_datasets.options_of([f"--label_map={LABEL_MAP}", "--groups=some.csv"])
    options = dataclasses.replace(options, split_from="a checksum")
    told = dataset_commands.commands(made_datasets.manifest_of(dataset, options))
    assert set(told.placeholders) == {"SOURCES", "GROUPS.csv", "EARLIER_DATASET"}
    assert all(word in told.lines[0] for word in told.placeholders)


def test_the_plan_of_augmentation_is_written_in_full(dataset):
    options = made_datasets.options_of([f"--label_map={LABEL_MAP}", "--augment=seed-lung"])
    told = dataset_commands.commands(made_datasets.manifest_of(dataset, options))
    assert "--augment=augmentation.yaml" in told.lines[0]
    names = [v.name for v in augment.load("seed-lung").variants]
    text = "\n".join(told.files["augmentation.yaml"])
    assert all(f"name: {name}" in text for name in names)


def test_the_commands_make_the_same_bytes(dataset, tmp_path, monkeypatch, command):
    manifest = manifests.load(str(dataset))
    told = dataset_commands.commands(manifest)
    monkeypatch.chdir(tmp_path)
    for name, lines in told.files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in told.lines:
        words = shlex.split(line.replace("SOURCES", shlex.quote(str(dataset.parent))))
        assert command(*words[1:]).status == 0
    again = manifests.load(dataset_commands.OUTPUT)
    assert again.fingerprint == manifest.fingerprint
