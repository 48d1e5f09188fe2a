"""Prints a Markdown table of runs: python scripts/accuracy_table.py FOLDER.

FOLDER holds a folder per variant, with a run's workdir per seed in each:
FOLDER/VARIANT/SEED/summary.json.
"""

import json
import statistics
import sys
from pathlib import Path


def main(folder: Path) -> None:
  """One row a variant: mean and standard error over its runs."""
  print("| variant | seeds | test accuracy | test loss | time of a run |")
  print("|---|---|---|---|---|")
  for variant in sorted(path for path in folder.iterdir() if path.is_dir()):
    runs = [json.loads(p.read_text()) for p in variant.glob("*/summary.json")]
    if len(runs) < 2:
      raise SystemExit(f"{variant} holds {len(runs)} complete runs, 2 needed")
    cells = [
      mean_and_error([run[key] for run in runs])
      for key in ("test/accuracy", "test/loss")
    ]
    seconds = statistics.median(run["wall_seconds"] for run in runs)
    print(
      f"| `{variant.name}` | {len(runs)} | {' | '.join(cells)} "
      f"| {seconds:.0f} s |"
    )


def mean_and_error(values: list[float]) -> str:
  """The mean with its standard error, over independent runs."""
  error = statistics.stdev(values) / len(values) ** 0.5
  return f"{statistics.mean(values):.4f} ± {error:.4f}"


if __name__ == "__main__":
  if len(sys.argv) != 2:
    raise SystemExit(__doc__)
  main(Path(sys.argv[1]))
