"""The notebook runs from top to bottom, and lies in the repository without what it printed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with what each cell printed and showed, run in a folder of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
        patch.setenv("IPYTHONDIR", str(folder / ".ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / ".jupyter"))
        patch.setenv("JUPYTER_DATA_DIR", str(folder / ".jupyter"))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        client = nbclient.NotebookClient(
            notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": folder}}
        )
        client.execute()
    return folder, notebook


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def shown(cell):
    """What the last line of a cell is, as text."""
    return next(o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result")


def cell_with(notebook, text):
    found = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
    assert len(found) == 1, text
    return found[0]


@pytest.mark.slow
def test_every_step_of_the_notebook_does_what_it_says(executed):
    folder, notebook = executed
    work = folder / "quickstart"
    splits = ast.literal_eval(shown(cell_with(notebook, "flexseg.prepare(")))
    assert splits.keys() == {"train", "valid", "test"}
    assert sum(splits.values()) == 24
    evaluation = json.loads((work / "run/evaluation/test.json").read_text())
    dice, macro = ast.literal_eval(shown(cell_with(notebook, 'c["name"]')))
    assert dice == {c["name"]: c["dice"] for c in evaluation["classes"]}
    assert macro == evaluation["foreground"]["dice_macro"]
    assert macro > 0.5, "it learnt something in its minute"
    assert len(list((work / "masks").glob("*.png"))) == 2 * 24
    assert shown(cell_with(notebook, "segmenter.probabilities")).startswith("((96, 96, 3), array([")
    assert shown(cell_with(notebook, "saved_model.load")) == "True", (
        "the bundle's mask is the run's"
    )
    assert shown(cell_with(notebook, "flexseg.report")) == "'quickstart/run.html'"
    assert 'no flag "--splt". Did you mean "split"?' in printed(cell_with(notebook, "splt="))


@pytest.mark.slow
def test_it_draws_and_does_not_drown_the_reader(executed):
    _, notebook = executed
    pictures = [
        cell for cell in notebook.cells
        if any("image/png" in o.get("data", {}) for o in cell.get("outputs", ()))
    ]  # fmt: skip
    assert len(pictures) == 3
    for cell in notebook.cells:
        if cell.cell_type == "code":
            text = printed(cell)
            assert len(text.splitlines()) < 60, cell.source
            assert "\r" not in text, "no bar that is rewritten"
            assert "Warning" not in text, text


def test_the_repository_has_it_stripped_and_for_any_machine():
    text = NOTEBOOK.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert '"/' not in cell.source, "no absolute path"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}, "of no release of Python"
