"""The notebooks are committed with what they print and draw."""

import json
from pathlib import Path

import pytest
from markdown_pages import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_committed(path: Path):
  cells = json.loads(path.read_text())["cells"]
  code = [cell for cell in cells if cell["cell_type"] == "code"]
  assert all(cell["execution_count"] for cell in code)
  outputs = [output for cell in code for output in cell["outputs"]]
  assert any("image/png" in output.get("data", {}) for output in outputs)
  assert not any(output["output_type"] == "error" for output in outputs)


def test_they_stay_small():
  assert sum(path.stat().st_size for path in NOTEBOOKS) < 1.5 * 2**20
