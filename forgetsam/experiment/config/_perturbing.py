"""The built-in names of perturbations, methods and combine rules."""

from collections.abc import Callable, Mapping
from typing import Any

import optax
from ml_collections import config_dict

from forgetsam._optimizers import sgdw
from forgetsam._typing import PyTree, Scalar
from forgetsam.methods import (
  bsam,
  cr_sam,
  eigen_sam,
  esam,
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
  zsharp,
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


def reads_previous(config: config_dict.ConfigDict) -> bool:
  """Whether steps take the batch before, beside their own."""
  return config.method.name in _READ_PREVIOUS


def reads_clean(config: config_dict.ConfigDict) -> bool:
  """Whether the combine rule reads the loss's own gradient."""
  minimizes_clean = config.combine.options.get("minimize") == "clean"
  return config.combine.name in _READ_CLEAN or minimizes_clean


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
  "gc_sam": gc_sam,
  "le_sam": le_sam,
  "sparse_sam": sparse_sam,
  "unified_sam": unified_sam,
  "zsharp": zsharp,
}

# In place of `perturbed_gradient`: from ascent to descent gradient. They are
# given `perturbation`, `combine`, `rho`, `seed`, `learning_rate` (a schedule)
# and `num_examples` (of the training set), where they name them.
METHODS: Factories = {
  "perturbed_gradient": perturbed_gradient,
  "bsam": bsam,
  "cr_sam": cr_sam,
  "look_sam": look_sam,
  "esam": esam,
  "look_layer_sam": look_layer_sam,
  "gam": gam,
  "lookbehind": lookbehind,
  "sampa": sampa,
}
_READ_PREVIOUS = ("sampa",)

COMBINE_RULES: Factories = {
  "none": nothing,
  "surrogate_gap": surrogate_gap,
  "weighted": weighted,
  "gnp": gnp,
  "stable_sam": stable_sam,
  "xsam": xsam,
  "polyak_step": polyak_step,
}
_READ_CLEAN = ("weighted", "gnp", "stable_sam")

NAMED: Mapping[str, Factories] = {
  "perturbation.name": PERTURBATIONS,
  "method.name": METHODS,
  "combine.name": COMBINE_RULES,
}


def hint_of_key(key: str, name: Any) -> str:
  """The key that a published method's name belongs to, where it is another."""
  if key not in NAMED or not isinstance(name, str):
    return ""
  found = [other for other in NAMED if name in NAMED[other]]
  if not found or key in found:
    return ""
  return f"; {name} is a choice of config.{found[0]}"


# Arguments that are a method's own, though another's key has their name.
OWN_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
  "fisher_sam": ("eta",),
  "gnp": ("alpha", "normalized"),
  "le_sam": ("sigma",),
}
