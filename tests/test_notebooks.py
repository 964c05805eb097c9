"""The notebooks of the documentation: short, stored with outputs and without errors, and executable from top to bottom."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
MISSING = [name for name in ("nbclient", "nbformat", "ipykernel") if importlib.util.find_spec(name) is None]


def cells(path: Path) -> list[dict]:
    """The cells as they are stored."""
    return json.loads(path.read_text())["cells"]


def test_notebooks_are_the_five():
    assert NAMES == [
        "offline_from_logs",
        "one_ensemble_eight_consumers",
        "pets_from_scratch",
        "reading_a_report",
        "writing_your_own_agent",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebooks_are_short_and_have_their_outputs(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert len(cells(path)) < 40
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert path.stat().st_size < 250_000


@pytest.mark.skipif(bool(MISSING), reason=f'{", ".join(MISSING)} missing: pip install "mbkit[docs]"')
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebooks_run(path, tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
