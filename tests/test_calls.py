"""Every command as a Python function: the same words, the same work, the same errors."""

from __future__ import annotations

import inspect
import json
import keyword
import logging
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from absl import flags

import flexseg
import flexseg_calls
from flexseg_errors import FlexsegError, UsageError
from pipelines import convert_masks, prepare
from tests.train import old_config_texts

ROOT = pathlib.Path(__file__).parents[1]
NAMES = flexseg_calls.names(list(flexseg.COMMANDS))
LITERAL = "{(0,0,0):0,(255,0,0):1}"


def flags_of(name):
    module = flexseg.COMMANDS[NAMES[name]].module
    values = flags.FlagValues()
    sys.modules[module].define_flags(values)
    return values


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(6):
        mask = np.zeros((20, 24, 3), np.uint8)
        mask[4 : 8 + number, 5:15, 2] = 255
        noise = rng.integers(0, 256, mask.shape, np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), noise)
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    return folder


@pytest.fixture
def given(monkeypatch):
    """What convert-masks would have been run with, as its flags hold it."""
    seen = []
    monkeypatch.setattr(convert_masks, "run", lambda values, rest: seen.append((values, rest)))

    def call(**keywords):
        flexseg_calls.function("convert_masks", "convert-masks")(**keywords)
        return seen[-1][0]

    return call


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_a_function_of_its_flags(name):
    function = getattr(flexseg, name)
    parameters = inspect.signature(function).parameters
    values = flags_of(name)
    own = {flag.removesuffix("_") for flag in parameters}
    missing = [flag for flag in values if not flag.startswith("config.") and flag not in own]
    assert not missing
    assert ("config" in parameters) == any(flag.startswith("config.") for flag in values)
    assert {"quiet", "verbose"} <= set(parameters)
    for flag in values:
        shown = parameters.get(flag)
        assert shown is None or shown.default == values[flag].default
        assert f" {flag.removeprefix('config.')}" in function.__doc__
    assert function.__name__ == name
    assert getattr(flexseg, name) is function, "made once"
    assert not any(map(keyword.iskeyword, parameters))


def test_importing_flexseg_makes_no_function_and_loads_no_program():
    code = (
        "import sys, flexseg; names = dir(flexseg); "
        "print({'absl', 'pipelines', 'train'} & set(sys.modules), "
        f"{list(NAMES)} == [n for n in {list(NAMES)} if n in names and n not in vars(flexseg)])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "set() True\n"


def test_a_name_that_is_no_command_is_no_attribute():
    with pytest.raises(AttributeError, match=r'no attribute \'trian\'\. Did you mean "train"\?'):
        _ = flexseg.trian  # type: ignore[attr-defined]
    assert not hasattr(flexseg, "xyzzy")


def test_prepare_writes_the_same_bytes_as_the_command_line(command, pictures, tmp_path, capsys):
    manifest = flexseg.prepare(
        dataset=pictures,
        output=tmp_path / "python",
        label_map={(0, 0, 0): 0, (255, 0, 0): 1},
        image_size=(16, 16),
        split={"train": 0.5, "valid": 0.25, "test": 0.25},
        image_encoding="raw",
        direct_num_workers=1,
    )
    arguments = ["--label_map=" + LITERAL, "--image_size=16,16", "--image_encoding=raw",
                 "--split=train:0.5,valid:0.25,test:0.25", "--direct_num_workers=1"]  # fmt: skip
    outcome = command("prepare", f"--dataset={pictures}", f"--output={tmp_path}/shell", *arguments)
    assert outcome.status == 0, outcome.err
    found = {
        where: {
            path.relative_to(tmp_path / where).as_posix(): path.read_bytes()
            for path in sorted((tmp_path / where).rglob("*.*"))
            if path.is_file() and ".shards" not in path.parts
        }
        for where in ("python", "shell")
    }
    assert len(found["python"]) > 3
    assert found["python"] == found["shell"]
    assert manifest.folder == str(tmp_path / "python")
    assert manifest.fingerprint == json.loads(found["shell"]["dataset.json"])["fingerprint"]
    assert flexseg.verify(manifest.folder) == flexseg.verify(dataset=tmp_path / "python")
    assert flexseg.inspect(manifest.folder) + "\n" == command("inspect", manifest.folder).out
    capsys.readouterr()
    flexseg.verify(manifest.folder, quiet=True)
    assert capsys.readouterr() == ("", "")
    flexseg.verify(manifest.folder)
    assert "6 records" in capsys.readouterr().out
    page = flexseg.report(manifest.folder, output=tmp_path / "page.html", quiet=True)
    assert (page, b"<html" in pathlib.Path(page).read_bytes()) == (f"{tmp_path}/page.html", True)
    files = flexseg.extract(manifest.folder, output=tmp_path / "files", split=["train", "valid"])
    assert sorted(p.name for p in pathlib.Path(files).iterdir() if p.is_dir()) == ["train", "valid"]


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"masks": pathlib.Path("a") / "b"}, {"masks": "a/b"}),
        ({"masks": "with, comma and = sign"}, {"masks": "with, comma and = sign"}),
        ({"masks": "--to=onehot"}, {"masks": "--to=onehot", "to": None}),
        ({"masks": None, "output": None}, {"masks": None, "output": None}),
        ({"from_": "index"}, {"from": "index"}),
        ({"color_tolerance": 0.1}, {"color_tolerance": 0.1}),
        ({"color_tolerance": np.float32(0.5)}, {"color_tolerance": 0.5}),
        ({"color_tolerance": np.int64(3)}, {"color_tolerance": 3.0}),
        ({"ignore_color": (128, 0, 7)}, {"ignore_color": "128,0,7"}),
        ({"label_map": {(0, 0, 0): 0}}, {"label_map": "{(0, 0, 0): 0}"}),
    ],
)
def test_a_value_of_python_becomes_what_the_command_line_would_be_given(given, keywords, expected):
    values = given(**keywords)
    assert {name: values[name].value for name in expected} == expected


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"levels": 3}, "train": {"loss": "ce+dice", "deterministic": True}},
        {"model.levels": 3, "train.loss": "ce+dice", "train": {"deterministic": True}},
    ],
)
def test_an_experiment_is_given_by_its_keys_flat_or_nested(monkeypatch, config):
    from train import train

    seen = []
    monkeypatch.setattr(train, "run", lambda values, rest: seen.append(values))
    monkeypatch.setattr(flexseg_calls, "_result", lambda *_: None)
    both = {**config, "data": {"crop_size": (64, 32), "fold": None}}
    flexseg_calls.function("train", "train")(config=both)
    text = {
        f.name: f.value for f in (seen[0][n] for n in seen[0]) if f.value and "config." in f.name
    }
    assert text == {
        "config.model.levels": "3",
        "config.train.loss": "ce+dice",
        "config.train.deterministic": "true",
        "config.data.crop_size": "64,32",
        "config.data.fold": "null",
    }
    experiment = train.old_config.load_experiment(None, train.experiments.overrides_from(seen[0]))
    assert experiment.data.crop_size == (64, 32)
    assert experiment.data.fold is None
    assert experiment.model.network.levels == 3
    assert experiment.train.deterministic is True


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 2)), "masks is ndarray: expected text, a number"),
        ({1, 2}, "masks is set: expected"),
        (["a,b"], "masks holds 'a,b': what is in a list can have no comma."),
    ],
)
def test_a_value_that_no_flag_could_have_is_refused(given, value, message):
    with pytest.raises(UsageError, match=message):
        given(masks=value)


@pytest.mark.parametrize(
    ("name", "paths", "keywords", "arguments"),
    [
        ("verify", [], {}, []),
        ("verify", ["nowhere"], {}, ["nowhere"]),
        ("verify", ["a", "b"], {}, ["a", "b"]),
        ("train", [], {"dta": "x"}, ["--dta=x"]),
        ("train", [], {"config": {"modle.levels": 3}}, ["--config.modle.levels=3"]),
        ("evaluate", [], {}, []),
        ("predict", [], {"overlays": True}, ["--overlays=true"]),
        ("export", [], {"run": "nowhere", "output": "x"}, ["--run=nowhere", "--output=x"]),
        ("prepare", [], {"split_method": "fair"}, ["--split_method=fair"]),
        (
            "prepare",
            [],
            {"output": "x", "dataset": "x", "label_map": LITERAL, "lable": 1},
            ["--output=x", "--dataset=x", "--label_map=" + LITERAL, "--lable=1"],
        ),
    ],
)
def test_errors_are_those_of_the_command_line(
    command, tmp_path, monkeypatch, name, paths, keywords, arguments
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlexsegError) as caught:
        getattr(flexseg, name)(*paths, **keywords)
    outcome = command(NAMES[name], *arguments)
    assert outcome.status == (2 if isinstance(caught.value, UsageError) else 1)
    assert outcome.err.rstrip("\n").endswith(str(caught.value))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "keywords", "expected"),
    [
        ("tune_postprocessing", {"run": "lung"}, "lung/postprocessing.yaml"),
        ("tune_postprocessing", {"run": "lung", "dry_run": True}, None),
        ("train", {"run": "lung"}, "the run lung"),
        ("train", {"run": "lung", "dry_run": True}, None),
        ("evaluate", {"run": "lung", "split": "valid"}, {"split": "valid"}),
        ("export", {"run": "lung", "output": "bundle"}, "bundle"),
    ],
)
def test_what_a_command_leaves_comes_back(monkeypatch, tmp_path, name, keywords, expected):
    from train import runs

    class Run(str):
        def path(self, *parts):
            return "/".join((self.removeprefix("the run "), *parts))

    (tmp_path / "lung" / "evaluation").mkdir(parents=True)
    (tmp_path / "lung" / "evaluation" / "valid.json").write_text('{"split": "valid"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "load", lambda folder: Run(f"the run {folder}"))
    call = flexseg_calls.function(name, NAMES[name])
    seen = []
    program = sys.modules[flexseg.COMMANDS[NAMES[name]].module]
    monkeypatch.setattr(program, "run", lambda values, rest: seen.append(values))
    assert call(**keywords) == expected
    assert seen[0].flag_values_dict().items() >= keywords.items()


def test_a_converted_config_comes_back_as_the_folder_of_its_files(tmp_path):
    config = tmp_path / "project.config"
    config.write_text(old_config_texts.ini(old_config_texts.FLEX))
    folder = flexseg.convert_config(str(config), quiet=True)
    assert folder == str(tmp_path / "project")
    assert (pathlib.Path(folder) / "experiment.yaml").is_file()
    assert flexseg.convert_config(str(config), output=tmp_path / "own") == f"{tmp_path}/own"
    for file in pathlib.Path(folder).iterdir():
        assert (tmp_path / "own" / file.name).is_file()


def test_a_text_that_was_asked_for_is_returned_and_not_printed(capfd):
    text = flexseg.inspect(model="flex_unet", quiet=True)
    assert "flex_unet" in text
    assert capfd.readouterr() == ("", "")
    assert flexseg.inspect(None, model="flex_unet") == text, "a folder left out"
    assert flexseg.inspect(path=None, model="flex_unet") == text


def test_beam_is_told_of_no_notebook_while_a_job_is_made_and_only_then(monkeypatch):
    from apache_beam.utils import interactive_utils

    monkeypatch.setitem(sys.modules, "IPython", pathlib)  # any module will do
    before = interactive_utils.is_in_ipython
    with flexseg_calls._outside_notebooks(prepare):
        assert interactive_utils.is_in_ipython is not before
        assert not interactive_utils.is_in_ipython()
    assert interactive_utils.is_in_ipython is before


def test_what_libraries_warn_of_is_kept_back_unless_somebody_asked(monkeypatch):
    root = logging.getLogger()
    seen = []
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(convert_masks, "run", lambda *_: seen.append(root.getEffectiveLevel()))
    call = flexseg_calls.function("convert_masks", "convert-masks")
    for level in (logging.WARNING, logging.INFO):
        monkeypatch.setattr(root, "level", level)
        call()
        assert root.level == level
    assert seen == [logging.ERROR, logging.INFO]
