"""Comparing methods over seeds: the pieces of `main.py --job=sweep`."""

from forgetsam.experiment.sweep._choice import choose
from forgetsam.experiment.sweep._comparison import (
  Row,
  compare,
  comparison_csv,
  comparison_markdown,
  draw_comparison,
)
from forgetsam.experiment.sweep._grid import Setting, parse_grid, settings
from forgetsam.experiment.sweep._plan import Trial, check_trials, plan_trials
from forgetsam.experiment.sweep._progress import Progress
from forgetsam.experiment.sweep._records import Record, Records
from forgetsam.experiment.sweep._reports import (
  read_settings,
  report_comparison,
  report_tuning,
)
from forgetsam.experiment.sweep._runner import Outcome, Runner
from forgetsam.experiment.sweep._statistics import (
  Difference,
  Mean,
  holm_p_values,
  mean_over_runs,
  paired_difference,
  paired_p_value,
)

__all__ = [
  "Difference",
  "Mean",
  "Outcome",
  "Progress",
  "Record",
  "Records",
  "Row",
  "Runner",
  "Setting",
  "Trial",
  "check_trials",
  "choose",
  "compare",
  "comparison_csv",
  "comparison_markdown",
  "draw_comparison",
  "holm_p_values",
  "mean_over_runs",
  "paired_difference",
  "paired_p_value",
  "parse_grid",
  "plan_trials",
  "read_settings",
  "report_comparison",
  "report_tuning",
  "settings",
]
