"""The training step: one perturbation per micro-batch, on any mesh."""

from forgetsam.training._calibration import calibration_error, confidence_bins
from forgetsam.training._checked_step import check_batch
from forgetsam.training._eval_step import EvalStep, make_eval_step
from forgetsam.training._factored_gradient import factored_gradient
from forgetsam.training._mesh import (
  DATA_AXIS,
  check_mesh,
  has_more_axes,
  place,
  replicated,
  split_batch,
)
from forgetsam.training._metrics import (
  TokenMetrics,
  classification_metrics,
  regression_metrics,
)
from forgetsam.training._sharding import param_shardings
from forgetsam.training._train_state import TrainState, create_train_state
from forgetsam.training._train_step import make_train_step

__all__ = [
  "DATA_AXIS",
  "EvalStep",
  "TokenMetrics",
  "TrainState",
  "calibration_error",
  "check_batch",
  "check_mesh",
  "classification_metrics",
  "confidence_bins",
  "create_train_state",
  "factored_gradient",
  "has_more_axes",
  "make_eval_step",
  "make_train_step",
  "param_shardings",
  "place",
  "regression_metrics",
  "replicated",
  "split_batch",
]
