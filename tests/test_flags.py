"""The flags of all commands: their help, their forms, and what is said of wrong ones."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
from absl import flags

import flexseg
import flexseg_flags
from flexseg_errors import UsageError

COMMANDS = list(flexseg.COMMANDS)
UNIT = re.compile(
    r"\b(pixels?|share|factor|seed|degrees|steps?|images?|pictures|tiles?|classes|class|MB|GB|"
    r"probability|distance|folds?|shards?|slices a second|sources|channels|learning rate|scales?"
    r")\b",
    re.IGNORECASE,
)


def program_of(name):
    program = importlib.import_module(flexseg.COMMANDS[name].module)
    values = flags.FlagValues()
    program.define_flags(values)
    return program, values


def flags_of(name):
    return flexseg_flags.described(name, program_of(name)[1])


def examples_of(name):
    """The command lines in a program's docstring, whole, without what other programs do."""
    text = (program_of(name)[0].__doc__ or "").replace("\\\n", " ")
    lines = re.findall(rf"^  flexseg {name}\b(.*)$", text, re.MULTILINE)
    return [re.split(r" (?:#|>|&&) ?", line)[0] for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_for_people(command, name):
    result = command(name, "--help")
    assert result.status == 0
    assert result.err == ""
    assert result.out.startswith(f"Usage: flexseg {name}")
    own = flags_of(name)
    assert ("\nFlags:\n" in result.out) == bool(own)
    for switch in (*[flag.name for flag in own], *flexseg_flags.GENERAL):
        assert re.search(rf"^  --{re.escape(switch)}\b", result.out, re.MULTILINE)
    assert "--alsologtostderr" not in result.out, "no flag of absl's"
    assert "STRING" not in result.out
    assert max(map(len, result.out.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_its_parser_takes(name):
    examples = examples_of(name)
    assert len(examples) >= 2
    for example in examples:
        program, values = program_of(name)
        _, arguments = flexseg_flags.split_general(shlex.split(example))
        rest = flexseg_flags.parse(name, program, values, arguments)
        assert not [a for a in rest if a.startswith("-")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_says_what_it_is_for_its_unit_and_its_default(name):
    for flag in flags_of(name):
        assert flag.text.endswith("."), flag
        assert flag.text[0].isupper() or flag.text.startswith(("softmax:", "(", *flag.choices)), (
            flag
        )
        if flag.name.startswith("config."):
            continue  # keys say their default where they have one
        numbers = {"INT", "FLOAT", "PIXELS", "SHARE", "FACTOR"} & set(flag.stand_ins)
        if numbers or flag.form == "HEIGHT,WIDTH":
            assert UNIT.search(flag.text), flag
        told = re.search(r"\bdefault\b|Required", flag.text, re.IGNORECASE)
        assert not flag.form or flag.default or told, flag
        assert flag.form != "TEXT", "its form stands in flexseg_flags"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_plain_text_to_markdown_too(name):
    """Nothing that Markdown takes for a tag, for emphasis, for code or for a table's cell."""
    for flag in flags_of(name):
        assert not re.search(r"[<>`|]|\*.*\*|(?<!\w)_\S+_(?!\w)|\]\(", flag.text), flag
        assert "colour" not in flag.text, "spelt as the flags are"
    assert "colour" not in program_of(name)[0].__doc__


def test_a_flag_looks_the_same_in_all_commands_but_for_known_exceptions():
    forms = {}
    for name in COMMANDS:
        for flag in flags_of(name):
            if (name, flag.name) not in flexseg_flags._FORMS_OF:
                forms.setdefault(flag.name, {}).setdefault(flag.form, []).append(name)
    assert {k: v for k, v in forms.items() if len(v) > 1} == {}
    # An exception that is none any longer, or a form without a flag, is dead weight.
    for (name, flag), form in flexseg_flags._FORMS_OF.items():
        assert flag in [known.name for known in flags_of(name)]
        assert form != flexseg_flags._FORMS.get(flag)
    assert set(flexseg_flags._FORMS) <= set(forms)


def test_a_file_is_completed_as_a_file_and_a_folder_as_a_folder():
    for flag in [flag for name in COMMANDS for flag in flags_of(name)]:
        if re.match("(YAML|CSV|PNG|HTML) ", flag.text):
            assert flag.stand_ins[:1] == ("FILE",), flag
        if re.match("Folder ", flag.text):
            assert flag.stand_ins[:1] == ("FOLDER",), flag


def test_forms_name_the_values_that_programs_take():
    from export import other_formats
    from export.predictions import outputs, predict_flags
    from export.volumes import predict_volume
    from pipelines import masks, volumes

    forms = {flag.name: flag for flag in (*flags_of("predict"), *flags_of("export"))}
    assert set(forms["format"].choices) == {"saved_model", *other_formats.FORMATS}
    assert forms["mask_format"].choices == tuple(outputs.MASK_FORMATS)
    assert forms["maps"].choices == tuple(outputs.MAPS)
    assert forms["weights"].choices == predict_flags.WEIGHTS
    assert forms["blend"].choices == predict_flags.BLENDS
    assert forms["volume_pictures"].choices == tuple(predict_volume.PICTURES)
    assert forms["film_pictures"].choices == tuple(predict_volume.PICTURES)
    assert forms["volume_axis"].choices == tuple(volumes.AXES)
    assert {c.partition(":")[0] for c in forms["mask_kind"].choices} == {
        "colors",
        "index",
        "binary",
    }
    for choice in forms["mask_kind"].choices:
        masks.parse_kind(choice)


def test_keys_of_an_experiment_have_the_form_of_their_type():
    from train import experiment

    forms = experiment.forms()
    assert forms["train.epochs"] == "INT"
    assert forms["augment.rotation"] == "FLOAT"
    assert forms["augment.rotate90"] == "true|false"
    assert forms["data.crop_size"] == "none|HEIGHT,WIDTH"
    assert forms["optimizer.milestones"] == "FLOAT,..."
    assert forms["train.precision"] == "float32|mixed_bfloat16|mixed_float16"
    assert set(forms["model.variant"].split("|")) == {f"b{i}" for i in range(8)}, "of two networks"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_flag_that_is_called_required_is_asked_for_first(command, name):
    required = [f.name for f in flags_of(name) if re.search(r"Required\.$", f.text)]
    program, _ = program_of(name)
    arguments = ["x"] * len(getattr(program, "POSITIONAL", ()))
    for missing in required:
        given = [f"--{flag}=x" for flag in required if flag != missing and flag != "to"]
        given += ["--to=rgb"] if "to" in required and missing != "to" else []
        result = command(name, *arguments, *given)
        assert result.status == 2
        assert result.err == f"flexseg {name} needs --{missing}. See flexseg {name} --help.\n"
    if name not in ("demo", "models"):  # which would do their work
        given = [f"--{flag}=rgb" for flag in required]
        assert "needs --" not in command(name, *arguments, *given).err, "nothing else is"


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "prepare"])
def test_every_flag_is_the_nearest_to_its_own_misspelling(name):
    program, values = program_of(name)
    if getattr(program, "FOREIGN_FLAGS", False):
        pytest.skip("tells its unknown flags itself")
    known = [flag.name for flag in flags_of(name)]
    for flag in known:
        wrong = flag + "x"
        if len(flag) < 3 or wrong in known:
            continue
        with pytest.raises(UsageError, match=re.escape(f'has no flag "--{wrong}".')) as error:
            flexseg_flags.parse(name, program, values, [f"--{wrong}=1"])
        assert f'Did you mean "{flag}"?' in str(error.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_choice_gets_those_there_are_and_the_nearest(name):
    for flag in [f for own in program_of(name)[1].flags_by_module_dict().values() for f in own]:
        choices = [c for c in getattr(flag.parser, "enum_values", None) or () if len(c) > 2]
        for choice in choices:
            program, values = program_of(name)
            with pytest.raises(UsageError) as error:
                flexseg_flags.parse(name, program, values, [f"--{flag.name}={choice}x"])
            assert f"--{flag.name}={choice}x: expected " in str(error.value)
            assert all(c in str(error.value) for c in choices)
            assert f'Did you mean "{choice}"?' in str(error.value)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_help_is_as_narrow_as_the_terminal(command, monkeypatch, columns):
    """But for what must not be broken: commands to copy, and the heads of flags."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ("evaluate", "verify", "lr-find"):
        prose = [
            line
            for line in command(name, "--help").out.splitlines()
            if not re.match("(Usage: |  flexseg |  --|  [^ ])", line)
        ]
        assert len(prose) > 5
        assert max(map(len, prose)) <= columns
    assert all(len(line) <= 100 for line in command("evaluate", "--help").out.splitlines())


def test_help_on_a_wide_terminal_is_as_it_was_written(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("evaluate", "verify", "lr-find"):
        assert program_of(name)[0].__doc__.strip() in command(name, "--help").out


@pytest.mark.parametrize("value", ["-1", "many", "1.5"])
def test_a_number_below_its_bound_is_told_with_the_bound(command, value):
    done = command("report", f"--pictures={value}", "records")
    assert done.status == 2
    assert f"--pictures={value}: expected a whole number of at least 0. See" in done.err


def test_switches_of_every_command_stand_anywhere_before_two_dashes():
    split = flexseg_flags.split_general
    assert split(["-q", "verify", "x"]) == ({"quiet"}, ["verify", "x"])
    assert split(["verify", "x", "--verbose", "--debug"]) == ({"verbose", "debug"}, ["verify", "x"])
    assert split(["verify", "--", "--quiet"]) == (set(), ["verify", "--", "--quiet"])
    assert split(["verify", "quiet", "-h"]) == ({"help"}, ["verify", "quiet"])
