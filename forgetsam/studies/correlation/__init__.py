"""The correlation study: does forgetting predict generalisation?

The pieces of `main.py --job=study`: what to train, what to measure of it, and
statistics that do not mistake a hyper-parameter for a predictor.
"""

from forgetsam.studies.correlation._associations import (
  Interval,
  Query,
  associate,
  bootstrap_intervals,
  cluster_counts,
  holm,
)
from forgetsam.studies.correlation._figures import (
  plot_along_training,
  plot_associations,
  plot_forgetting_and_sharpness,
  plot_networks,
)
from forgetsam.studies.correlation._functions import Functions
from forgetsam.studies.correlation._jiang import (
  ConditionalIndependence,
  conditional_independence,
  granulated_kendall,
  permuted_score,
)
from forgetsam.studies.correlation._measures import Measures
from forgetsam.studies.correlation._names import LABELS, label
from forgetsam.studies.correlation._networks import (
  AXES,
  Networks,
  choose,
  collect_networks,
  read_networks,
  write_networks,
)
from forgetsam.studies.correlation._plan import Arm, plan_study
from forgetsam.studies.correlation._rank_correlation import (
  kendall_matrix,
  partial_correlation,
  spearman_matrix,
)
from forgetsam.studies.correlation._report import (
  report_arm,
  write_report,
  write_study,
)
from forgetsam.studies.correlation._runs import run_network, run_study

__all__ = [
  "AXES",
  "LABELS",
  "Arm",
  "ConditionalIndependence",
  "Functions",
  "Interval",
  "Measures",
  "Networks",
  "Query",
  "associate",
  "bootstrap_intervals",
  "choose",
  "cluster_counts",
  "collect_networks",
  "conditional_independence",
  "granulated_kendall",
  "holm",
  "kendall_matrix",
  "label",
  "partial_correlation",
  "permuted_score",
  "plan_study",
  "plot_along_training",
  "plot_associations",
  "plot_forgetting_and_sharpness",
  "plot_networks",
  "read_networks",
  "report_arm",
  "run_network",
  "run_study",
  "spearman_matrix",
  "write_networks",
  "write_report",
  "write_study",
]
