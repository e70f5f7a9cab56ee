"""The notebook of the guide runs from top to bottom, as a reader runs it."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import robustloss

NOTEBOOK = Path(robustloss.__file__).parent / "guide" / "quickstart.ipynb"


def test_the_notebook_runs_and_shows_its_results(tmp_path, monkeypatch):
    commands = str(Path(sys.executable).parent)  # as in an environment that is active
    monkeypatch.setenv("PATH", commands + os.pathsep + os.environ["PATH"])
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = {cell.source.splitlines()[-1]: cell.outputs for cell in cells}
    assert "<table" in shown["outcome"][-1].data["text/html"]
    assert any("image/png" in cell.outputs[-1].get("data", {}) for cell in cells if cell.outputs)
    tried = shown["robustloss try cosine.py:CosineSoftmax --against runs/digits"]
    told = "".join(output.text for output in tried if output.name == "stdout")
    assert "CosineSoftmax minus each other loss" in told
    assert "\x1b[1A" not in "".join(output.text for output in tried)  # no bars in a notebook
    assert "<table" in cells[-1].outputs[-1].data["text/html"]
