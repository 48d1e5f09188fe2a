"""Perturbed forgetting and sharpness-aware training as optax transforms."""

import importlib
from typing import TYPE_CHECKING, Any

from forgetsam._ascent import (
  ascent_and_descent,
  loss_ascent,
  output_bias_forgetting,
  pseudo_loss,
)
from forgetsam._losses import sigmoid_cross_entropy, softmax_cross_entropy
from forgetsam._optimizers import (
  ParamsEmaState,
  averaged_params,
  params_ema,
  sgdw,
  shrink_and_perturb,
)
from forgetsam._schedules import lr_proportional_rho
from forgetsam.methods import (
  bsam,
  cr_sam,
  decoupled_wsam,
  dynamic_mask,
  eigen_sam,
  esam,
  fisher_mask,
  fisher_sam,
  friendly_sam,
  gam,
  gc_sam,
  gnp,
  layer_sam,
  le_sam,
  look_layer_sam,
  look_sam,
  lookbehind,
  momentum_ascent,
  polyak_step,
  sampa,
  slow_weights,
  sparse_sam,
  stable_sam,
  unified_sam,
  vasso,
  xsam,
  z_score_filter,
  zsharp,
)
from forgetsam.perturbations import (
  PerturbedGradientState,
  active_between,
  asam,
  centralize,
  every_k,
  gaussian_direction,
  moving_average,
  multi_step,
  norm_layers,
  only,
  perturbed_gradient,
  random_mask,
  random_perturbation,
  sam,
  scale_by_magnitude,
  scale_to_radius,
  sharpest_examples,
  surrogate_gap,
  weighted,
  with_clean_gradient,
)
from forgetsam.training import (
  TrainState,
  create_train_state,
  factored_gradient,
  make_eval_step,
  make_train_step,
  param_shardings,
)

__version__ = "0.2.0"

__all__ = [
  "ParamsEmaState",
  "PerturbedGradientState",
  "TrainState",
  "active_between",
  "asam",
  "ascent_and_descent",
  "averaged_params",
  "bsam",
  "centralize",
  "cr_sam",
  "create_train_state",
  "data",
  "decoupled_wsam",
  "dynamic_mask",
  "eigen_sam",
  "esam",
  "every_k",
  "factored_gradient",
  "fisher_mask",
  "fisher_sam",
  "forgetting",
  "friendly_sam",
  "gam",
  "gaussian_direction",
  "gc_sam",
  "gnp",
  "interop",
  "layer_sam",
  "le_sam",
  "load_run",
  "look_layer_sam",
  "look_sam",
  "lookbehind",
  "loss_ascent",
  "lr_proportional_rho",
  "make_eval_step",
  "make_train_step",
  "models",
  "momentum_ascent",
  "moving_average",
  "multi_step",
  "norm_layers",
  "only",
  "output_bias_forgetting",
  "param_shardings",
  "params_ema",
  "perturbed_gradient",
  "polyak_step",
  "pseudo_loss",
  "random_mask",
  "random_perturbation",
  "sam",
  "sampa",
  "scale_by_magnitude",
  "scale_to_radius",
  "sgdw",
  "sharpest_examples",
  "sharpness",
  "shrink_and_perturb",
  "sigmoid_cross_entropy",
  "slow_weights",
  "softmax_cross_entropy",
  "sparse_sam",
  "stable_sam",
  "surrogate_gap",
  "unified_sam",
  "vasso",
  "weighted",
  "with_clean_gradient",
  "xsam",
  "z_score_filter",
  "zsharp",
]


# On first use, as is load_run: together they take seconds to import.
_PACKAGES = ("data", "forgetting", "interop", "models", "sharpness")

if TYPE_CHECKING:  # to which a function would say that any name exists
  from forgetsam import data, forgetting, interop, models, sharpness
  from forgetsam.experiment.build import load_run
else:

  def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
      return importlib.import_module(f"{__name__}.{name}")
    if name == "load_run":
      from forgetsam.experiment.build import load_run

      return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
