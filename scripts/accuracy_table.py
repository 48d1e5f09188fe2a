"""Prints a Markdown table of runs: python scripts/accuracy_table.py FOLDER.

FOLDER holds a folder per variant, with a run's workdir per seed in each:
FOLDER/VARIANT/SEED/summary.json.
"""

import json
import statistics
import sys
from pathlib import Path

from forgetsam.experiment.sweep import mean_over_runs
from forgetsam.experiment.tables import markdown_table, mean_text


def row(variant: Path) -> list[str]:
  """Means and standard errors over a variant's runs."""
  runs = [json.loads(p.read_text()) for p in variant.glob("*/summary.json")]
  if len(runs) < 2:
    raise SystemExit(f"{variant} holds {len(runs)} complete runs, 2 needed")
  cells = [
    mean_text(*mean_over_runs([run[key] for run in runs]))
    for key in ("test/accuracy", "test/loss")
  ]
  seconds = statistics.median(run["wall_seconds"] for run in runs)
  return [f"`{variant.name}`", str(len(runs)), *cells, f"{seconds:.0f} s"]


if __name__ == "__main__":
  if len(sys.argv) != 2:
    raise SystemExit(__doc__)
  variants = sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir())
  header = ["variant", "seeds", "test accuracy", "test loss", "time of a run"]
  print(markdown_table(header, map(row, variants)), end="")
