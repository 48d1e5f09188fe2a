"""Perturbations: optax transforms from ascent gradients to weight offsets."""

from forgetsam.perturbations._combine import Combine, surrogate_gap
from forgetsam.perturbations._magnitude import scale_by_magnitude
from forgetsam.perturbations._multi_step import multi_step
from forgetsam.perturbations._noise import (
  GaussianDirectionState,
  gaussian_direction,
)
from forgetsam.perturbations._only import only
from forgetsam.perturbations._perturbed_gradient import (
  PerturbedGradientState,
  perturbed_gradient,
)
from forgetsam.perturbations._radius import RadiusState, scale_to_radius
from forgetsam.perturbations._recipes import asam, random_perturbation, sam

__all__ = [
  "Combine",
  "GaussianDirectionState",
  "PerturbedGradientState",
  "RadiusState",
  "asam",
  "gaussian_direction",
  "multi_step",
  "only",
  "perturbed_gradient",
  "random_perturbation",
  "sam",
  "scale_by_magnitude",
  "scale_to_radius",
  "surrogate_gap",
]
