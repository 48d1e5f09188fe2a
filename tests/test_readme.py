"""The README's Python runs exactly as printed, block after block."""

import csv
import re

from markdown_pages import ROOT, run_blocks

README = ROOT / "README.md"


def test_snippets_run_as_printed():
  namespace = run_blocks(README)
  assert namespace["value"] > 0
  metrics = namespace["metrics"]
  assert metrics["skipped"] == 0
  assert abs(metrics["perturbation_norm"] - 0.05) < 1e-4


def test_its_result_is_the_benchmarks():
  with (ROOT / "docs" / "m_sharpness" / "times.csv").open() as file:
    times = {
      row["how"]: float(row["time"])
      for row in csv.DictReader(file)
      if (row["model"], row["m"]) == ("mlp", "1")
    }
  _, result, *_ = README.read_text().split("\n## ")
  said = re.findall(r"takes ([\d.]+)\s+times", result)
  assert said == [f"{times[how]:.2g}" for how in ("factored", "loop")]


def test_it_stays_short():
  assert len(README.read_text().splitlines()) <= 180
