"""Who may import whom, as the design has it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("pipelines", "models", "train", "export")
MAY_IMPORT = {
    "pipelines": {"pipelines"},
    "models": {"models"},
    "train": {"train", "pipelines", "models"},
    "export": {"export", "train", "pipelines", "models"},
    # What the command line is made of: programs are imported when they are called.
    "flexseg": set(),
    "flexseg_calls": {"export", "train", "pipelines", "flexseg"},
    "flexseg_completion": {"train", "pipelines", "models", "flexseg"},
    "flexseg_console": set(),
    "flexseg_errors": set(),
    "flexseg_flags": {"train"},
}
FILES = [
    *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))),
    *sorted(ROOT.glob("*.py")),
]


def imported(tree: ast.AST) -> set[str]:
    """The modules that are imported anywhere in a file, in full."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide whom they mean"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def at_import(path: Path) -> set[str]:
    """The modules that a file imports as soon as it is imported itself."""
    body = ast.parse(path.read_text()).body
    plain = [n for n in body if isinstance(n, (ast.Import, ast.ImportFrom))]
    return {name.partition(".")[0] for name in imported(ast.Module(plain, []))}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_import_only_those_below_them(path):
    room = name_of(path).partition("/")[0].removesuffix(".py")
    tops = {name.partition(".")[0] for name in imported(ast.parse(path.read_text()))}
    ours = tops & {*ROOMS, "flexseg", "tests"}
    assert ours <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=name_of)
def test_the_command_line_imports_no_program_before_it_is_called(path):
    assert at_import(path) & {*ROOMS, "absl", "tensorflow", "apache_beam"} == set()


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.parent.name == "models" and p.stem != "sliding_window"],
    ids=name_of,
)
def test_networks_are_backend_neutral(path):
    tops = {name.partition(".")[0] for name in imported(ast.parse(path.read_text()))}
    assert tops & {"tensorflow", "torch", "jax"} == set()


def test_a_beam_worker_starts_without_tensorflow():
    for name in ("shards", "materialize", "records", "readers", "label_map", "manifest", "sources"):
        assert "tensorflow" not in at_import(ROOT / "pipelines" / f"{name}.py")


def test_no_file_is_a_drawer_for_what_has_no_subject():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [name_of(p) for p in FILES if p.stem in drawers]
