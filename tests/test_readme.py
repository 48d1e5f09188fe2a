"""The README's Python runs exactly as printed, block after block."""

import re

from markdown_pages import ROOT, run_blocks

README = ROOT / "README.md"


def test_snippets_run_as_printed():
  namespace = run_blocks(README)
  assert namespace["value"] > 0
  metrics = namespace["metrics"]
  assert metrics["skipped"] == 0
  assert abs(metrics["perturbation_norm"] - 0.05) < 1e-4


def test_its_result_is_the_demos():
  page = (ROOT / "docs" / "demo.md").read_text()
  _, result, *_ = README.read_text().split("\n## ")
  rows = re.findall(r"^\|.*\|$", result, re.MULTILINE)
  assert len(rows) == 6
  assert "\n".join(rows) in page


def test_it_stays_short():
  assert len(README.read_text().splitlines()) <= 180
