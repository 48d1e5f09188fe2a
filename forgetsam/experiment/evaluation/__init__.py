"""Scores of a model on a split, or on many."""

from forgetsam.experiment.evaluation._corruptions import (
  ALEXNET_ERRORS,
  mean_corruption_error,
)
from forgetsam.experiment.evaluation._evaluate import (
  FinishedStep,
  beside_ema,
  evaluate,
  evaluate_each,
  rank,
)
from forgetsam.experiment.evaluation._table import format_table

__all__ = [
  "ALEXNET_ERRORS",
  "FinishedStep",
  "beside_ema",
  "evaluate",
  "evaluate_each",
  "format_table",
  "mean_corruption_error",
  "rank",
]
