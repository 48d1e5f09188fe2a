"""Factories of components, and how a kind calls them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import optax

from forgetsam import _schedules
from forgetsam._optimizers import sgdw
from forgetsam.experiment.config._perturbing import slow_sgdw

Factory = Callable[..., Any]


def make_model(found: Factory, given: dict[str, Any]) -> Any:
  """Puts a model that draws its own weights, NNX's, in a Linen module's place.

  Its `rngs` are those of the run.
  """
  if "rngs" not in given:
    return found(**given)
  from flax import nnx

  from forgetsam import models

  own = {name: value for name, value in given.items() if name != "rngs"}
  make = functools.partial(found, **own)
  made = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
  return models.from_nnx(make) if isinstance(made, nnx.Module) else made


def make_schedule(found: Factory, given: dict[str, Any]) -> Any:
  """Of optax's schedules, those with a peak begin at zero."""
  if {"init_value", "peak_value"} <= given.keys():
    given = {**given, "init_value": 0.0}
  return found(**given)


def all_models() -> dict[str, Factory]:
  from forgetsam import models

  return {n: functools.partial(models.create, n) for n in models.names()}


def constant_rho(rho: Any) -> optax.Schedule:
  return optax.constant_schedule(rho)


def lr_proportional_rho(
  learning_rate: optax.Schedule,
  rho: Any,
  rho_min: Any,
  lr_max: Any,
  lr_min: Any,
) -> optax.Schedule:
  return _schedules.lr_proportional_rho(
    learning_rate, rho, rho_min, lr_max, lr_min
  )


@functools.cache
def all_optimizers() -> dict[str, Factory]:
  """All of optax that has a learning rate, and ours."""
  found_in_optax = {
    name: found
    for module in (optax.contrib, optax)
    for name, found in vars(module).items()
    if inspect.isfunction(found)
    and not name.startswith("_")
    and "learning_rate" in inspect.signature(found).parameters
  }
  return {**found_in_optax, "sgdw": sgdw, "slow_sgdw": slow_sgdw}
