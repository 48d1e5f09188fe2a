"""Tables and pictures of finished runs, for `scripts/known_bias_report.py`."""

from forgetsam.studies.known_bias._plot import draw_curves, draw_steps
from forgetsam.studies.known_bias._report import (
  EFFECTS,
  METRICS,
  Cell,
  Key,
  average_effects,
  cell,
  collapsed,
  group,
  markdown_cell,
  table,
)

__all__ = [
  "EFFECTS",
  "METRICS",
  "Cell",
  "Key",
  "average_effects",
  "cell",
  "collapsed",
  "draw_curves",
  "draw_steps",
  "group",
  "markdown_cell",
  "table",
]
