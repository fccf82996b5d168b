"""The generated reference says all there is, and says it of what is there."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from absl import flags

import flexseg
from models import registry
from pipelines import augment, manifest, records
from tests.docs.markdown_pages import ROOT, inline_code
from tests.docs.test_commands import read_yaml
from train.experiment import Experiment
from train.old_config import networks, tables

GENERATE = ROOT / "docs" / "generate"


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """Path -> Markdown of every generated page, made by another process, as it imports no more."""
    code = (
        f"import sys, json; sys.path[:0] = [{str(ROOT)!r}, {str(GENERATE)!r}]\n"
        "import pages; found = pages.reference()\n"
        "heavy = [m for m in ('tensorflow', 'apache_beam', 'keras') if m in sys.modules]\n"
        "print(json.dumps([found, heavy]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    found, heavy = json.loads(result.stdout)
    assert heavy == [], "the reference is made without TensorFlow"
    return found


def codes(text: str) -> set[str]:
    """What stands in the first column of the tables of a page."""
    first = re.findall(r"^\| (.*?) \|", text, re.M)
    return {match for cell in first for match in re.findall(r"`([^`]+)`", cell)}


def sources() -> list[Path]:
    rooms = ("pipelines", "models", "train", "export")
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def test_every_command_has_a_page_with_every_flag(reference):
    for name, command in flexseg.COMMANDS.items():
        text = reference[f"reference/commands/{name}.md"]
        values = flags.FlagValues()
        importlib.import_module(command.module).define_flags(values)
        own = {f"--{flag}" for flag in values if not flag.startswith("config.")}
        assert codes(text) == own, name
        assert f"commands/{name}.md" in reference["reference/index.md"]


def test_every_key_of_an_experiment_is_there_with_its_default(reference):
    text = reference["reference/experiment.md"]
    keys = set()
    for section in dataclasses.fields(Experiment):
        config = getattr(Experiment(), section.name)
        for field in dataclasses.fields(config):
            if "doc" in field.metadata:
                keys.add(f"{section.name}.{field.name}")
    assert codes(text) == keys
    for line, default in (
        ("train.epochs", Experiment().train.epochs),
        ("optimizer.learning_rate", Experiment().optimizer.learning_rate),
        ("train.loss", Experiment().train.loss),
    ):
        row = next(row for row in text.splitlines() if row.startswith(f"| `{line}` |"))
        assert f"| `{default}` |" in row


def test_every_network_has_its_knobs(reference):
    parts = re.split(r"^## ", reference["reference/networks.md"], flags=re.M)[1:]
    assert [part.split()[0] for part in parts] == list(registry.ARCHITECTURES)
    for part, architecture in zip(parts, registry.ARCHITECTURES.values(), strict=True):
        knobs = {f"model.{f.name}" for f in dataclasses.fields(architecture.config)}
        assert codes(part) == knobs


def test_every_loss_is_there_with_its_parameters(reference):
    from train import losses

    text = reference["reference/losses.md"]
    legacy = {n for n, kind in losses.LOSSES.items() if not isinstance(kind, type)}
    assert legacy <= codes(text)
    for name, kind in losses.LOSSES.items():
        if name not in legacy:
            part = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
            assert part, name
            knobs = [f for f in dataclasses.fields(kind) if "doc" in f.metadata]
            assert codes(part[1]) == {f.name for f in knobs}, name
            for field in knobs:
                row = re.search(rf"^\| `{field.name}` \| `([^`]*)` \|", part[1], re.M)
                shown = {"true": True, "false": False}.get(row[1])
                value = eval_number(row[1]) if shown is None else shown
                assert value == field.default, f"{name}.{field.name}"
            takes = "Takes `train.class_weights`" in part[1]
            assert takes == hasattr(kind, "class_weights"), name


def eval_number(text: str) -> float:
    """A number, or a fraction such as 4 / 3."""
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


def test_every_figure_of_an_evaluation_is_there(reference):
    from train import calibration, intervals, metrics, surface

    shown = codes(reference["reference/metrics.md"])
    for kind in (
        metrics.ClassScores, metrics.ForegroundScores, metrics.OverallScores, metrics.ImageScores,
        metrics.Detection, calibration.Scores, intervals.Intervals, surface.BoundaryScores,
    ):  # fmt: skip
        names = {field.name for field in dataclasses.fields(kind)}
        assert names <= shown, f"{kind.__name__}: {sorted(names - shown)}"


def test_every_step_of_an_augmentation_is_there(reference):
    assert codes(reference["reference/augmentation.md"]) == set(augment.STEPS)


def test_files_names_every_feature_and_what_a_manifest_holds(reference):
    shown = codes(reference["reference/files.md"])
    features = {v for v in vars(records).values() if isinstance(v, str) and v.startswith("image/")}
    assert features <= shown
    for kind in (manifest.Manifest, manifest.Split):
        assert {field.name for field in dataclasses.fields(kind)} <= shown


def test_every_old_key_is_there_once_in_its_section(reference):
    text = reference["reference/older-keys.md"]
    for dialect, known in tables.TABLES.items():
        part = re.search(rf"^## .*{{ #{dialect} }}\n(.*?)(?=^## )", text, re.M | re.S)[1]
        rows = []
        for section in re.split(r"^### ", part, flags=re.M)[1:]:
            name = re.match(r"\[(\w+)\]", section)[1]
            rows += [(name, key) for key in re.findall(r"^\| `([^`]+)` \|", section, re.M)]
        assert sorted(rows) == sorted(known), dialect
    assert set(networks.MODELS) <= codes(text)


def test_every_yaml_in_the_reference_is_what_a_program_reads(reference):
    seen = 0
    for path, text in reference.items():
        for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S):
            read_yaml(yaml.safe_load(block), path)
            seen += 1
    assert seen > 12


@pytest.mark.parametrize("page", ["troubleshooting"])
def test_every_message_that_is_explained_is_one_of_the_programs(page):
    """A heading quotes a message; `...` stands for what differs. The words must be in the code."""
    texts = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    messages = re.findall(r"^### `(.*)` \{", text, re.M)
    assert len(messages) > 15
    for message in messages:
        words = [w.strip() for w in message.split("...") if w.strip()]
        assert any(all(w in known for w in words) for known in texts), message


def test_the_inline_code_of_the_readme_is_balanced():
    assert all("`" not in text for text in inline_code(ROOT / "README.md"))
