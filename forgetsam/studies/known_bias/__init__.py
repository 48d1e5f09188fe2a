"""Training where the bias is known: what is measured, and the comparison.

`python -m forgetsam.studies.known_bias --help` has the commands.
"""

from forgetsam.studies.known_bias._conditions import (
  ADDED,
  CURVE_SEEDS,
  MICRO_BATCHES,
  RADII,
  REPORT_SEEDS,
  WEIGHT_DECAYS,
  Condition,
  choose_rho,
  curve_conditions,
  plain_conditions,
)
from forgetsam.studies.known_bias._figures import draw_curves, draw_steps
from forgetsam.studies.known_bias._influence import (
  ImagePairs,
  Influence,
  accuracy,
  influence,
  make_pairs,
)
from forgetsam.studies.known_bias._one_step import (
  LogChange,
  StepEffect,
  step_effect,
)
from forgetsam.studies.known_bias._report import (
  markdown_tables,
  split_runs,
  write_report,
)
from forgetsam.studies.known_bias._scoring import SPLITS, Scorer
from forgetsam.studies.known_bias._tables import (
  EFFECTS,
  METRICS,
  Cell,
  average_effects,
  cell,
  collapsed,
  condition_rows,
  group_runs,
  markdown_cell,
)

__all__ = [
  "ADDED",
  "CURVE_SEEDS",
  "EFFECTS",
  "METRICS",
  "MICRO_BATCHES",
  "RADII",
  "REPORT_SEEDS",
  "SPLITS",
  "WEIGHT_DECAYS",
  "Cell",
  "Condition",
  "ImagePairs",
  "Influence",
  "LogChange",
  "Scorer",
  "StepEffect",
  "accuracy",
  "average_effects",
  "cell",
  "choose_rho",
  "collapsed",
  "condition_rows",
  "curve_conditions",
  "draw_curves",
  "draw_steps",
  "group_runs",
  "influence",
  "make_pairs",
  "markdown_cell",
  "markdown_tables",
  "plain_conditions",
  "split_runs",
  "step_effect",
  "write_report",
]
