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


class Leaf(typing.NamedTuple):
    """A key of the experiment; `architecture` is whose it is, "" for all."""

    architecture: str
    key: str
    field: dataclasses.Field
    kind: typing.Any
    default: typing.Any


def leaves():
    """Every key with its field, its type and its default, of every architecture."""
    found = []
    for section in dataclasses.fields(Experiment):
        found += of_config("", section.name, getattr(Experiment(), section.name))
    for architecture in registry.ARCHITECTURES.values():
        found += of_config(architecture.name, "model", architecture.config())
    return {f"{leaf.architecture}:{leaf.key}".lstrip(":"): leaf for leaf in found}


def of_config(architecture, section, config):
    types = typing.get_type_hints(type(config))
    return [
        Leaf(architecture, f"{section}.{f.name}", f, types[f.name], getattr(config, f.name))
        for f in dataclasses.fields(config)
        if f.name != "network"
    ]


LEAVES = leaves()


def another_value(leaf):
    """A value that fits the key and is not its default, where there is one."""
    for value in candidates(leaf):
        try:
            experiments.from_dict(nested(leaf, value))
        except FlexsegError:
            continue
        if value != leaf.default:
            return value
    return leaf.default


def candidates(leaf):
    _, key, field, kind, default = leaf
    if field.metadata["choices"]:
        return field.metadata["choices"]
    if kind is bool:
        return [not default]
    if kind is int:
        return [default + 3, default * 2, default + 1, default - 1]
    if kind is float:
        return [default / 2 + 0.0123]
    if key == "train.monitor":
        return ["val_loss"]
    if kind is str:
        return ["0.5*ce+0.5*dice"]
    if key == "data.fold":
        return [2]
    if key == "data.crop_size":
        return [(48, 40)]
    if key == "optimizer.beta_2":
        return [0.99]
    item = typing.get_args(next((a for a in typing.get_args(kind) if typing.get_args(a)), kind))[0]
    of_levels = [(item(0.25) or item(3),) * n for n in (5, 4, 3, 2, 6)]
    return [tuple(2 * v for v in default), tuple(v + 1 for v in default), *of_levels]


def nested(leaf, value):
    section, name = leaf.key.split(".")
    value = list(value) if isinstance(value, tuple) else value
    whose = {"name": leaf.architecture} if leaf.architecture else {}
    return {section: {**whose, name: value}}


def of_key(key, value):
    section, name = key.split(".")
    return {section: {name: value}}


def test_nearly_every_key_has_another_value():
    """Or the tests below would test little."""
    stuck = [name for name, leaf in LEAVES.items() if another_value(leaf) == leaf.default]
    assert len(stuck) < len(LEAVES) / 10, stuck


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


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("pick", ["default", "another"])
def test_every_key_survives_dict_yaml_and_flag(name, pick, tmp_path):
    leaf = LEAVES[name]
    value = leaf.default if pick == "default" else another_value(leaf)
    made = experiments.from_dict(nested(leaf, value))
    assert value_of(made, leaf.key) == value
    assert type(value_of(made, leaf.key)) is type(value)
    assert experiments.from_dict(experiments.to_dict(made)) == made
    (tmp_path / "experiment.yaml").write_text(experiments.dump(made))
    assert experiments.load(str(tmp_path / "experiment.yaml")) == made
    whose = [f"--config.model.name={leaf.architecture}"] if leaf.architecture else []
    assert from_flags(*whose, f"--config.{leaf.key}={as_text(value)}") == made


def test_every_key_has_a_flag_and_every_flag_a_key():
    values = flags.FlagValues()
    experiments.define_flags(values)
    known = {leaf.key for leaf in LEAVES.values()}
    assert {n.removeprefix("config.") for n in values if n.startswith("config.")} == known


def test_every_key_is_documented_where_it_is_defined_and_in_its_flag():
    values = flags.FlagValues()
    experiments.define_flags(values)
    for name, leaf in LEAVES.items():
        text = leaf.field.metadata["doc"]
        assert len(text) > 8, name
        assert text.endswith("."), name
        said = values[f"config.{leaf.key}"].help
        assert text in said, name
        assert leaf.architecture in said, name


def test_the_dumped_experiment_is_complete():
    data = yaml.safe_load(experiments.dump(Experiment()))
    wanted = {x.key for x in LEAVES.values() if x.architecture in ("", data["model"]["name"])}
    assert {f"{s}.{k}" for s, section in data.items() for k in section} == wanted


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
        experiments.from_dict(of_key(key, value), "mine.yaml")
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
        experiments.from_dict(of_key(key, value), "mine.yaml")
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


CHANGED = [
    name
    for name, leaf in LEAVES.items()
    if another_value(leaf) != leaf.default
    and name != "model.name"  # another architecture has other keys
]


@pytest.mark.parametrize("name", CHANGED)
def test_differences_name_the_one_key_that_differs_and_both_values(name):
    leaf = LEAVES[name]
    value = another_value(leaf)
    before = experiments.from_dict(nested(leaf, leaf.default))
    (found,) = experiments.differences(before, experiments.from_dict(nested(leaf, value)))
    plain = list(value) if isinstance(value, tuple) else value
    assert found.startswith(f"{leaf.key}: ")
    assert found.endswith(f", now {plain!r}")


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


@pytest.mark.parametrize("text", ["%d/mini_test", "@new", "`x`", "a: b: c", "[mini", "'mini"])
def test_a_flag_that_is_no_yaml_is_text(text):
    made = from_flags(f"--config.train.preview_folder={text}")
    assert made.train.preview_folder == text


@pytest.mark.parametrize(
    ("text", "folder"), [("null", "none"), ("~", "none"), ("yes", "true"), ("2024", "2024")]
)
def test_text_may_look_like_something_else(text, folder, tmp_path):
    """As YAML reads it; what is null is the "none" of keys that have one."""
    path = tmp_path / "e.yaml"
    path.write_text(f"train: {{preview_folder: {text}}}\n")
    assert experiments.load(str(path)).train.preview_folder == folder
    assert experiments.load(str(path)).train.has_preview_folder == (folder != "none")
