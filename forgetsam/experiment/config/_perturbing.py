"""The built-in names of perturbations, methods and combine rules."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from forgetsam._optimizers import sgdw
from forgetsam._typing import PyTree, Scalar
from forgetsam.methods import (
  eigen_sam,
  esam,
  fisher_sam,
  friendly_sam,
  gam,
  gnp,
  layer_sam,
  look_layer_sam,
  look_sam,
  lookbehind,
  momentum_ascent,
  polyak_step,
  slow_weights,
  stable_sam,
  vasso,
  xsam,
)
from forgetsam.perturbations import (
  asam,
  perturbed_gradient,
  random_perturbation,
  sam,
  surrogate_gap,
  weighted,
)

Factories = Mapping[str, Callable[..., Any]]


def nothing() -> None:
  """The choice of none."""


def slow_sgdw(
  learning_rate: optax.Schedule,
  k: int,
  momentum: Scalar = 0.9,
  weight_decay: Scalar = 0.0,
  mask: Callable[[PyTree], PyTree] | None = None,
  alpha: Scalar = 0.5,
) -> optax.GradientTransformation:
  """The optimizer that takes `lookbehind`'s k gradients, at one rate."""
  rate = lambda count: learning_rate(count // k)  # noqa: E731
  return slow_weights(sgdw(rate, momentum, weight_decay, mask), alpha)


# From ascent gradient to delta.
PERTURBATIONS: Factories = {
  "none": nothing,
  "sam": sam,
  "asam": asam,
  "random": random_perturbation,
  "momentum": momentum_ascent,
  "friendly_sam": friendly_sam,
  "vasso": vasso,
  "fisher_sam": fisher_sam,
  "eigen_sam": eigen_sam,
  "layer_sam": layer_sam,
}

# In place of `perturbed_gradient`: from ascent to descent gradient. They are
# given `perturbation`, `combine`, `rho` and `seed`, where they name them.
METHODS: Factories = {
  "perturbed_gradient": perturbed_gradient,
  "look_sam": look_sam,
  "esam": esam,
  "look_layer_sam": look_layer_sam,
  "gam": gam,
  "lookbehind": lookbehind,
}

COMBINE_RULES: Factories = {
  "none": nothing,
  "surrogate_gap": surrogate_gap,
  "weighted": weighted,
  "gnp": gnp,
  "stable_sam": stable_sam,
  "xsam": xsam,
  "polyak_step": polyak_step,
}

# Arguments that are a method's own, though another's key has their name.
OWN_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
  "fisher_sam": ("eta",),
  "gnp": ("alpha", "normalized"),
}
