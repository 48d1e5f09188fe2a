"""The built-in names of perturbations, methods and combine rules."""

from collections.abc import Callable, Mapping
from typing import Any

from forgetsam.methods import friendly_sam, look_sam, momentum_ascent
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


# From ascent gradient to delta.
PERTURBATIONS: Factories = {
  "none": nothing,
  "sam": sam,
  "asam": asam,
  "random": random_perturbation,
  "momentum": momentum_ascent,
  "friendly_sam": friendly_sam,
}

# In place of `perturbed_gradient`: from ascent to descent gradient. They are
# given `perturbation`, `combine`, `rho` and `seed`, where they name them.
METHODS: Factories = {
  "perturbed_gradient": perturbed_gradient,
  "look_sam": look_sam,
}

COMBINE_RULES: Factories = {
  "none": nothing,
  "surrogate_gap": surrogate_gap,
  "weighted": weighted,
}

# Arguments that are a method's own, though another's key has their name.
OWN_ARGUMENTS: Mapping[str, tuple[str, ...]] = {}
