"""The notebook runs, and what it shows is from a run of it as it is."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks/quickstart.ipynb"
TINY = [
    "--config.num_epochs=1",
    "--config.train_images=224",
    "--config.design.stage_sizes=(1,1)",
    "--config.design.stage_channels=(4,8)",
    "--config.design.kernel_sizes=(3,3)",
    "--config.design.shortcut_kernels=(1,1)",
]


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def complaints(notebook: Any) -> list[Any]:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def execute(notebook: Any, folder: Path) -> None:
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    assert complaints(notebook) == []


def test_it_runs_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # one device
    notebook = read()
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    parameters.source = f"workdir = Path({str(tmp_path / 'run')!r})\noverrides = {TINY}"
    execute(notebook, NOTEBOOK.parent)
    assert (tmp_path / "run/digits.stablehlo").stat().st_size > 0


def test_it_finds_the_package_in_a_clone_too():
    notebook = read()
    notebook.cells = code_cells(notebook)[:1]
    execute(notebook, ROOT)


def test_its_stored_outputs_are_of_one_run_from_top_to_bottom():
    cells = code_cells(read())
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert complaints(read()) == []
    assert sum("image/png" in o.get("data", ()) for cell in cells for o in cell.outputs) == 4
    assert NOTEBOOK.stat().st_size < 200_000
