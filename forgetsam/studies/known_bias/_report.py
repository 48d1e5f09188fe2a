"""Reads finished runs and writes their tables and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetsam.experiment.tables import csv_text
from forgetsam.studies.known_bias._conditions import CURVE_SEEDS, REPORT_SEEDS
from forgetsam.studies.known_bias._figures import draw_curves, draw_steps
from forgetsam.studies.known_bias._tables import (
  CONDITION,
  METRICS,
  Groups,
  Run,
  average_effects,
  condition_rows,
  group_runs,
  rank_table,
  results_table,
)

_RUN = (*CONDITION, "seed", *METRICS)


def write_report(workdir: Path, docs: Path) -> None:
  """Writes the tables (CSV, Markdown) and pictures (PNG) of a finished study.

  Args:
    workdir: the folder of `run_study`.
    docs: where to.
  """
  runs = _read_lines(workdir / "runs.jsonl")
  effects = average_effects(_read_lines(workdir / "one_step.jsonl"))
  curve, final = split_runs(runs)
  chosen = list(final)
  _write_csv(docs / "curve.csv", *condition_rows(curve, chosen[0]))
  _write_csv(docs / "report.csv", *condition_rows(final, chosen[0]))
  _write_csv(
    docs / "runs.csv", *(_RUN, *([run.get(n) for n in _RUN] for run in runs))
  )
  header = list(effects[0])
  _write_csv(
    docs / "one_step.csv", header, *([e[n] for n in header] for e in effects)
  )
  text = markdown_tables(runs, effects)
  (docs / "tables.md").write_text(text)
  print(text)
  radii = {k: v for k, v in curve.items() if k[0] != "plain" or k == chosen[0]}
  draw_curves(docs / "curve.png", radii, chosen[0], chosen)
  draw_steps(docs / "one_step.png", effects, curve, 128)
  print(f"{sum(run['seconds'] for run in runs):.0f} s in {len(runs)} runs")


def split_runs(runs: Sequence[Run]) -> tuple[Groups, Groups]:
  """The curve's runs, at plain training's weight decay, and the final ones.

  Args:
    runs: all of a study's.

  Returns:
    Both as `group_runs` gives them, plain training first in the second.
  """
  final = group_runs(run for run in runs if run["seed"] in REPORT_SEEDS)
  decay = next(iter(final))[2]
  curve = group_runs(
    run
    for run in runs
    if run["seed"] in CURVE_SEEDS
    and (run["method"] == "plain" or run["weight_decay"] == decay)
  )
  return curve, final


def markdown_tables(runs: Sequence[Run], effects: Sequence[Run]) -> str:
  """The final results, those without weight decay, and the rank correlations.

  Args:
    runs: all of a study's.
    effects: as `average_effects` gives them.
  """
  curve, final = split_runs(runs)
  no_decay = group_runs(run for run in runs if run["weight_decay"] == 0)
  tables = results_table(final), results_table(no_decay)
  return "\n".join((*tables, rank_table(effects, curve)))


def _read_lines(path: Path) -> list[dict[str, Any]]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def _write_csv(path: Path, *rows: Sequence[Any]) -> None:
  """A header and rows; numbers to six digits."""
  header, *lines = (
    [f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows
  )
  path.write_text(csv_text(header, lines))
