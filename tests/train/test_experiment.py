"""An experiment means the same in Python, in YAML and on the command line."""

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml
from absl import flags

from flexseg_errors import FlexsegError
from models import registry
from train import experiment as experiments
from train.experiment import Experiment

ROOT = Path(__file__).parents[2]


def leaves():
    """Every key with its field, its type and its default, of every architecture."""
    found = {}
    for section in dataclasses.fields(Experiment):
        config = getattr(Experiment(), section.name)
        for part in [config, *network_configs(config)]:
            types = typing.get_type_hints(type(part))
            for field in dataclasses.fields(part):
                if field.name != "network":
                    key = f"{section.name}.{field.name}"
                    found[key] = (field, types[field.name], getattr(part, field.name))
    return found


def network_configs(config):
    if not hasattr(config, "network"):
        return []
    return [architecture.config() for architecture in registry.ARCHITECTURES.values()]


LEAVES = leaves()


def another_value(key):
    """A value that fits the key and is not its default, where there is one."""
    field, kind, default = LEAVES[key]
    if field.metadata["choices"]:
        return field.metadata["choices"][-1 if default == field.metadata["choices"][0] else 0]
    if kind is bool:
        return not default
    if kind is int:
        return default + 3
    if kind is float:
        return default / 2 + 0.0123
    if kind is str:
        return "0.5*ce+0.5*dice"
    if key == "data.fold":
        return 2
    item = typing.get_args(next((a for a in typing.get_args(kind) if typing.get_args(a)), kind))[0]
    if key == "data.crop_size":
        return (48, 40)
    return (item(0.25) or item(3),) * 5  # one for each level


def nested(key, value):
    section, name = key.split(".")
    return {section: {name: list(value) if isinstance(value, tuple) else value}}


def value_of(experiment, key):
    section, name = key.split(".")
    config = getattr(experiment, section)
    return getattr(config, name) if hasattr(config, name) else getattr(config.network, name)


def from_flags(*arguments):
    values = flags.FlagValues()
    experiments.define_flags(values)
    values(["train", *arguments])
    return experiments.load(None, experiments.overrides_from(values))


def as_text(value):
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "[]"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


@pytest.mark.parametrize("key", LEAVES)
@pytest.mark.parametrize("pick", ["default", "another"])
def test_every_key_survives_dict_yaml_and_flag(key, pick, tmp_path):
    value = LEAVES[key][2] if pick == "default" else another_value(key)
    made = experiments.from_dict(nested(key, value))
    assert value_of(made, key) == value
    assert type(value_of(made, key)) is type(value)
    assert experiments.from_dict(experiments.to_dict(made)) == made
    (tmp_path / "experiment.yaml").write_text(experiments.dump(made))
    assert experiments.load(str(tmp_path / "experiment.yaml")) == made
    assert from_flags(f"--config.{key}={as_text(value)}") == made


def test_every_key_has_a_flag_and_every_flag_a_key():
    values = flags.FlagValues()
    experiments.define_flags(values)
    assert {n.removeprefix("config.") for n in values if n.startswith("config.")} == set(LEAVES)


@pytest.mark.parametrize("key", LEAVES)
def test_every_key_is_documented_where_it_is_defined_and_in_its_flag(key):
    text = LEAVES[key][0].metadata["doc"]
    assert len(text) > 8
    assert text.endswith(".")
    values = flags.FlagValues()
    experiments.define_flags(values)
    assert text in values[f"config.{key}"].help


def test_the_dumped_experiment_is_complete():
    data = yaml.safe_load(experiments.dump(Experiment()))
    assert {f"{s}.{k}" for s, section in data.items() for k in section} == set(LEAVES)


@pytest.mark.parametrize(
    ("data", "wrong", "right"),
    [
        ({"modle": {}}, "modle", "model"),
        ({"optimizer": {"learning_rat": 1}}, "learning_rat", "learning_rate"),
        ({"model": {"base_filter": 1}}, "base_filter", "base_filters"),
        ({"model": {"nam": "flex_unet"}}, "nam", "name"),
    ],
)
def test_an_unknown_name_in_a_file_is_told_with_the_nearest(data, wrong, right, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(FlexsegError) as error:
        experiments.load(str(path))
    assert f'"{wrong}"' in str(error.value)
    assert f'Did you mean "{right}"?' in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("argument", "right"),
    [
        ("--config.model.base_filter=8", "config.model.base_filters"),
        ("--config.optimiser.learning_rate=1", "config.optimizer.learning_rate"),
        ("--config.train.epoch=3", "config.train.epochs"),
    ],
)
def test_an_unknown_name_in_a_flag_is_told_with_the_nearest(argument, right, capsys):
    import flexseg

    assert flexseg.main(["train", "--data=x", "--run=y", argument]) == 2
    message = capsys.readouterr().err
    assert argument.partition("=")[0] in message
    assert f'Did you mean "{right}"?' in message


def test_an_unknown_architecture_is_told_with_the_nearest():
    with pytest.raises(FlexsegError, match='Did you mean "flex_unet"'):
        experiments.from_dict({"model": {"name": "flexunet"}})


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("augment.rotate90", 1, "true or false"),
        ("augment.rotate90", "perhaps", "true or false"),
        ("data.batch_size", 1.5, "a whole number"),
        ("data.batch_size", "many", "a whole number"),
        ("data.batch_size", True, "a whole number"),
        ("data.batch_size", None, "a whole number"),
        ("data.batch_size", [8], "a whole number"),
        ("data.fold", 1.5, "a whole number"),
        ("data.fold", "last", "a whole number"),
        ("data.fold", True, "a whole number"),
        ("optimizer.learning_rate", "fast", "a number"),
        ("optimizer.learning_rate", False, "a number"),
        ("optimizer.learning_rate", None, "a number"),
        ("optimizer.learning_rate", {"start": 1}, "a number"),
        ("train.loss", ["ce", "dice"], "text"),
        ("train.loss", {"ce": 1}, "text"),
        ("data.crop_size", [1, 2, 3], "2 values"),
        ("data.crop_size", 32, "2 values"),
        ("data.crop_size", "32,wide", "a whole number"),
        ("model.kernels", [3, 3, 3, 3, 3.5], "a whole number"),
        ("model.dropouts", "0,0,0,0,lots", "a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_key_and_what_was_expected(key, value, wanted):
    with pytest.raises(FlexsegError) as error:
        experiments.from_dict(nested(key, value), "mine.yaml")
    message = str(error.value)
    assert "mine.yaml" in message
    assert key in message
    assert wanted in message


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("data.batch_size", 0, "at least 1"),
        ("data.fold", -1, "at least 0"),
        ("optimizer.beta_1", 1.0, "less than 1"),
        ("optimizer.learning_rate", float("nan"), "at least 0"),
        ("optimizer.clip", "global", 'Did you mean "global_norm"'),
        ("model.normalization", "bach", 'Did you mean "batch"'),
        ("model.kernels", [3, 3], "5 levels"),
    ],
)
def test_a_value_out_of_range_is_told_with_its_key(key, value, wanted):
    with pytest.raises(FlexsegError) as error:
        experiments.from_dict(nested(key, value), "mine.yaml")
    section, name = key.split(".")
    assert f"mine.yaml: {section}.{name}" in str(error.value)
    assert wanted in str(error.value)


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", "1E-3"])
def test_powers_of_ten_are_numbers_in_yaml_and_in_flags(text, tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(f"optimizer: {{learning_rate: {text}}}\n")
    assert experiments.load(str(path)).optimizer.learning_rate == 0.001
    flag = from_flags(f"--config.optimizer.learning_rate={text}")
    assert flag.optimizer.learning_rate == 0.001


@pytest.mark.parametrize("text", ["9,7,5", "[9, 7, 5]", "9, 7, 5"])
def test_tuples_are_read_from_commas_and_from_lists(text, tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(f"model: {{levels: 3, kernels: {text if '[' in text else repr(text)}}}\n")
    assert experiments.load(str(path)).model.network.kernels == (9, 7, 5)
    assert from_flags(
        "--config.model.levels=3", f"--config.model.kernels={text}"
    ).model.network.kernels == (9, 7, 5)


@pytest.mark.parametrize("text", ["none", "null", "~"])
def test_an_optional_value_can_be_taken_back(text, tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("data: {crop_size: [32, 48], fold: 3}\n")
    given = experiments.load(str(path)).data
    assert (given.crop_size, given.fold) == ((32, 48), 3)
    taken = experiments.load(str(path), {"data.crop_size": text, "data.fold": text}).data
    assert (taken.crop_size, taken.fold) == (None, None)


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("train: {epochs: 7, patience: 3}\n")
    made = experiments.load(str(path), {"train.epochs": "9", "model.levels": "3"})
    assert (made.train.epochs, made.train.patience) == (9, 3)
    assert made.model.network.levels == 3
    assert made.train.seed == Experiment().train.seed


def test_an_empty_file_is_the_defaults(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("# nothing yet\n")
    assert experiments.load(str(path)) == experiments.load(None) == Experiment()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("just words", "keys and values"),
        ("train: 3", "keys and values"),
        ("train: {epochs: 3", "not a YAML file"),
        ("\x00", "not a YAML file"),
    ],
)
def test_a_file_that_is_no_experiment_is_named(text, wanted, tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises(FlexsegError) as error:
        experiments.load(str(path))
    assert str(path) in str(error.value)
    assert wanted in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FlexsegError, match=r"nowhere\.yaml cannot be read: No such file"):
        experiments.load(str(tmp_path / "nowhere.yaml"))


def test_yaml_is_read_as_data_and_never_run(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(f"train: !!python/object/apply:os.mkdir [{tmp_path}/made]\n")
    with pytest.raises(FlexsegError, match="not a YAML file"):
        experiments.load(str(path))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("key", [k for k in LEAVES if another_value(k) != LEAVES[k][2]])
def test_differences_name_the_one_key_that_differs_and_both_values(key):
    value = another_value(key)
    found = experiments.differences(Experiment(), experiments.from_dict(nested(key, value)))
    plain = list(value) if isinstance(value, tuple) else value
    assert len(found) == 1
    assert found[0].startswith(f"{key}: ")
    assert found[0].endswith(f", now {plain!r}")


def test_equal_experiments_have_no_differences():
    assert experiments.differences(Experiment(), Experiment()) == []


@pytest.mark.parametrize("module", ["train.experiment", "train.train", "train.runs"])
def test_importing_the_configuration_loads_no_tensorflow(module):
    code = f"import sys, {module}; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_section_with_nothing_below_it_keeps_its_defaults(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("train:\nmodel:\n")
    assert experiments.load(str(path)) == experiments.Experiment()
    changed = experiments.load(str(path), {"train.epochs": "3"})
    assert changed.train.epochs == 3
