"""Tables and pictures of scripts/known_bias.py.

python scripts/known_bias_report.py runs/known_bias docs/known_bias
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from forgetsam.experiment._tables import csv_text, markdown_table
from forgetsam.studies.known_bias import SPLITS, report

SHOWN = (
  "test/accuracy",
  *(f"{split}/accuracy" for split in SPLITS),
  "influence/ratio",
)
FIRST = ("plain", "curve")


def main(workdir: Path, docs: Path) -> None:
  """Reads the runs, writes what is in docs."""
  runs = read_lines(workdir / "runs.jsonl")
  chosen = [
    (c["method"], c["micro_batch_size"], c["weight_decay"], c["rho"])
    for c in json.loads((workdir / "chosen.json").read_text())
  ]
  curve = report.group(run for run in runs if run["stage"] in FIRST)
  final = report.group(run for run in runs if run["stage"] == "report")
  final = {key: final[key] for key in chosen}
  write_csv(
    docs / "curve.csv", report.table(curve, list(report.METRICS), chosen[0])
  )
  write_csv(
    docs / "report.csv", report.table(final, list(report.METRICS), chosen[0])
  )
  names = ["method", "micro_batch_size", "weight_decay", "rho", "seed"]
  names += list(report.METRICS)
  rows = [[run.get(name) for name in names] for run in runs]
  write_csv(docs / "runs.csv", [names, *rows])
  text = results_table(final, chosen)
  no_decay = report.group(run for run in runs if run["weight_decay"] == 0)
  text += "\n" + results_table(no_decay, list(no_decay))
  effects = report.average_effects(read_lines(workdir / "one_step.jsonl"))
  header = list(effects[0])
  write_csv(
    docs / "one_step.csv", [header, *([e[n] for n in header] for e in effects)]
  )
  text += "\n" + rank_table(effects, curve)
  (docs / "tables.md").write_text(text)
  print(text)
  radii = {k: v for k, v in curve.items() if k[0] != "plain" or k == chosen[0]}
  report.draw_curves(docs / "curve.png", radii, chosen[0], chosen)
  report.draw_steps(docs / "one_step.png", effects, curve, 128)
  print(f"{sum(run['seconds'] for run in runs):.0f} s in {len(runs)} runs")


def results_table(final: Any, chosen: list[report.Key]) -> str:
  """The results in Markdown; the first condition is plain training."""
  header = ["method", "m", "rho", *(report.METRICS[name] for name in SHOWN)]
  rows = []
  for key in chosen:
    plain = None if key == chosen[0] else final[chosen[0]]
    cells = [
      report.markdown_cell(
        report.cell(final[key], name, plain), percent=name.endswith("accuracy")
      )
      for name in SHOWN
    ]
    rows.append([key[0], str(key[1]), f"{key[3]:g}", *cells])
  return markdown_table(header, rows)


def rank_table(effects: list[dict[str, Any]], curve: Any) -> str:
  """Kendall's tau between one-step balances and the ratio after training."""
  header = ["epoch", "m", "settings", "tau, forgotten", "tau, learned"]
  rows = []
  for epoch in sorted({effect["epoch"] for effect in effects}):
    for m in sorted({effect["micro_batch_size"] for effect in effects}):
      found = [
        effect
        for effect in effects
        if effect["epoch"] == epoch
        and (effect["method"] == "plain" or effect["micro_batch_size"] == m)
        and not report.collapsed(trained_with(effect, curve))
      ]
      trained = [trained_with(effect, curve) for effect in found]
      cells = [report.cell(runs, "influence/ratio", None) for runs in trained]
      ratios = [cell.mean.mean for cell in cells if cell.mean]
      taus = [
        f"{kendalltau([e[name] for e in found], ratios)[0]:+.2f}"
        for name in ("forgotten_balance", "learned_balance")
      ]
      rows.append([str(epoch), str(m), str(len(found)), *taus])
  return markdown_table(header, rows)


def trained_with(effect: dict[str, Any], curve: Any) -> Any:
  """The runs that were trained with the effect's setting, by seed."""
  names = ("method", "micro_batch_size", "weight_decay", "rho")
  return curve[tuple(effect[name] for name in names)]


def read_lines(path: Path) -> list[dict[str, Any]]:
  """Records, one a line."""
  return [json.loads(line) for line in path.read_text().splitlines()]


def write_csv(path: Path, rows: Iterable[list[Any]]) -> None:
  """A header and rows; numbers to six digits."""
  header, *lines = rows
  short = [
    [f"{v:.6g}" if isinstance(v, float | np.floating) else v for v in line]
    for line in lines
  ]
  path.write_text(csv_text(header, short))


if __name__ == "__main__":
  if len(sys.argv) != 3:
    raise SystemExit(__doc__)
  main(Path(sys.argv[1]), Path(sys.argv[2]))
