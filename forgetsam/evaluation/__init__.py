"""How good a model is on a split, or on many."""

from forgetsam.evaluation._corruptions import (
  ALEXNET_ERRORS,
  mean_corruption_error,
)
from forgetsam.evaluation._evaluate import evaluate, evaluate_each
from forgetsam.evaluation._table import format_table

__all__ = [
  "ALEXNET_ERRORS",
  "evaluate",
  "evaluate_each",
  "format_table",
  "mean_corruption_error",
]
