"""Every notebook is stored without outputs and runs from start to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert cells
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # the kernel's own machinery warns; our code's warnings fail inside the kernel
def test_runs(path):
    nbformat = pytest.importorskip("nbformat", reason="needs pip install '.[notebooks]'")
    nbclient = pytest.importorskip("nbclient", reason="needs pip install '.[notebooks]'")
    notebook = nbformat.read(path, as_version=4)
    strict = nbformat.v4.new_code_cell(
        "import warnings; from scalefit import ScalefitWarning\nwarnings.simplefilter('error')"
    )
    notebook.cells.insert(0, strict)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    assert all(output.output_type != "error" for cell in notebook.cells for output in cell.get("outputs", []))
