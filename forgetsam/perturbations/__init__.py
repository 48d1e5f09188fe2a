"""Perturbations: optax transforms from ascent gradients to weight offsets."""

from forgetsam.perturbations._active_between import (
  ActiveBetweenState,
  active_between,
)
from forgetsam.perturbations._asam import asam, scale_by_magnitude
from forgetsam.perturbations._centralize import centralize
from forgetsam.perturbations._combine import (
  Combine,
  surrogate_gap,
  weighted,
  with_clean_gradient,
)
from forgetsam.perturbations._every_k import EveryKState, every_k
from forgetsam.perturbations._moving_average import (
  MovingAverageState,
  moving_average,
)
from forgetsam.perturbations._multi_step import multi_step
from forgetsam.perturbations._norm_layers import norm_layers
from forgetsam.perturbations._only import only
from forgetsam.perturbations._perturbed_gradient import (
  PerturbedGradientState,
  perturbed_gradient,
)
from forgetsam.perturbations._random import (
  GaussianDirectionState,
  gaussian_direction,
  random_perturbation,
)
from forgetsam.perturbations._random_mask import random_mask
from forgetsam.perturbations._sam import RadiusState, sam, scale_to_radius
from forgetsam.perturbations._sharpest_examples import sharpest_examples

__all__ = [
  "ActiveBetweenState",
  "Combine",
  "EveryKState",
  "GaussianDirectionState",
  "MovingAverageState",
  "PerturbedGradientState",
  "RadiusState",
  "active_between",
  "asam",
  "centralize",
  "every_k",
  "gaussian_direction",
  "moving_average",
  "multi_step",
  "norm_layers",
  "only",
  "perturbed_gradient",
  "random_mask",
  "random_perturbation",
  "sam",
  "scale_by_magnitude",
  "scale_to_radius",
  "sharpest_examples",
  "surrogate_gap",
  "weighted",
  "with_clean_gradient",
]
