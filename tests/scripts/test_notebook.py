"""scripts/quickstart.ipynb: runs from top to bottom, draws its pictures, and is in git without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "scripts/quickstart.ipynb"


def test_it_is_short_and_without_outputs() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert text == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"  # as Jupyter saves it: small differences
    assert len(notebook["cells"]) <= 16
    for cell in notebook["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None and not cell["metadata"]


@pytest.mark.slow
def test_it_runs_and_draws() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    # How many steps, and how many timesteps of the correlation, does not matter here.
    for many, few in (
        ("settings = model.config.settings", 'settings = {**model.config.settings, "n_inv": 5, "n_gen": 5}'),
        ("range(0, 1000, 50)", "range(0, 1000, 300)"),
    ):
        (cell,) = (cell for cell in notebook.cells if many in cell.source)
        cell.source = cell.source.replace(many, few)
    here = {"metadata": {"path": str(NOTEBOOK.parent)}}  # where Jupyter starts it too
    # Without a limit: what takes a minute on an idle core may take ten on a busy machine.
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=here).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 6  # the inputs, gamma, omega, masks, the correlation, one's own
    said = "".join(output["text"] for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "million parameters" in said and "h is kept at" in said
