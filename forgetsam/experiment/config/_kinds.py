"""The kinds of components: their built-in names, and what each is given."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from forgetsam import _schedules
from forgetsam._ascent import loss_ascent, output_bias_forgetting
from forgetsam._losses import sigmoid_cross_entropy, softmax_cross_entropy
from forgetsam.experiment.config._factories import (
  Factory,
  all_models,
  all_optimizers,
  constant_rho,
  lr_proportional_rho,
  make_model,
  make_schedule,
)
from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._options import is_model_option
from forgetsam.experiment.config._perturbing import (
  COMBINE_RULES,
  METHODS,
  OWN_ARGUMENTS,
  PERTURBATIONS,
  nothing,
)
from forgetsam.perturbations import sam
from forgetsam.training import (
  TokenMetrics,
  classification_metrics,
  regression_metrics,
)


class Kind(NamedTuple):
  """A key that names a component, and the arguments that it may have.

  Attributes:
    key: the name's key.
    options: the group of its free options.
    builtin: gives the factories by name.
    gives: the arguments that a factory has from other keys, where it names
      them.
    offers: those that it has from the program, with examples for checks.
    own: by name, the arguments in `gives` that are others to its factory.
    needs: of an offer that a factory does not name, the values that keys then
      must have.
    takes: the arguments of the component itself, which may be a function.
    noun: what the component is.
    fits: whether something is one.
    make: calls a factory.
    ignores: the names whose components may leave keys in `gives` unread, and
      the keys that all may.
  """

  key: str
  options: str
  builtin: Callable[[], Mapping[str, Factory]]
  gives: Mapping[str, str] = {}
  offers: Mapping[str, Any] = {}
  own: Mapping[str, tuple[str, ...]] = {}
  needs: Mapping[str, Mapping[str, Any]] = {}
  takes: tuple[str, ...] = ()
  noun: str = "a function"
  fits: Callable[[Any], bool] = callable
  ignores: tuple[str, ...] = ()
  make: Callable[[Factory, dict[str, Any]], Any] = lambda found, given: found(
    **given
  )


def _is_transform(value: Any) -> bool:
  return isinstance(value, optax.GradientTransformation)


def _is_model(value: Any) -> bool:
  from flax import linen

  # Whoever made NNX's has imported it: alone, it takes a quarter of a second.
  nnx = sys.modules.get("flax.nnx")
  return isinstance(
    value, linen.Module if nnx is None else linen.Module | nnx.Module
  )


_RATE = optax.constant_schedule(1e-3)
_PEAK = "optimizer.learning_rate"
_LOW = "schedule.min_learning_rate"
_WITHOUT_CHANGES = {
  f"perturbation.{name}": KEYS[f"perturbation.{name}"].default
  for name in ("steps", "every_k", "layers", "start", "stop")
}
_TRANSFORM = "an optax.GradientTransformation"

KINDS: Mapping[str, Kind] = {
  "model": Kind(
    "model.name",
    "model.options",
    all_models,
    {key.removeprefix("model."): key for key in KEYS if is_model_option(key)},
    {"num_classes": 2, "rngs": None},
    noun="a Linen or NNX module",
    fits=_is_model,
    make=make_model,
  ),
  "augmentation": Kind(
    "augmentation.name",
    "augmentation.options",
    lambda: {"none": nothing},
    takes=("images", "key"),
  ),
  "loss": Kind(
    "loss.name",
    "loss.options",
    lambda: {
      "softmax_cross_entropy": softmax_cross_entropy,
      "sigmoid_cross_entropy": sigmoid_cross_entropy,
    },
    {"label_smoothing": "loss.label_smoothing"},
    {"num_classes": 2},
    takes=("logits", "labels"),
  ),
  "ascent": Kind(
    "ascent.name",
    "ascent.options",
    lambda: {
      "loss": loss_ascent,
      "output_bias_forgetting": output_bias_forgetting,
    },
    {name: f"ascent.{name}" for name in ("lam", "gamma", "activation")},
    {"loss": softmax_cross_entropy(), "num_classes": 2},
    takes=("logits", "labels"),
  ),
  "perturbation": Kind(
    "perturbation.name",
    "perturbation.options",
    lambda: PERTURBATIONS,
    {
      name: f"perturbation.{name}"
      for name in ("eta", "magnitude", "noise", "sigma", "decay")
    },
    {"rho": optax.constant_schedule(0.05), "seed": 0},
    own=OWN_ARGUMENTS,
    noun=_TRANSFORM,
    fits=_is_transform,
  ),
  "method": Kind(
    "method.name",
    "method.options",
    lambda: METHODS,
    offers={
      "perturbation": sam(0.05),
      "combine": None,
      "rho": optax.constant_schedule(0.05),
      "seed": 0,
      "learning_rate": _RATE,
      "num_examples": 1000,
    },
    needs={
      "perturbation": {"perturbation.name": "sam"} | _WITHOUT_CHANGES,
      "combine": {"combine.name": "none"},
    },
    noun=_TRANSFORM,
    fits=_is_transform,
  ),
  "rho_schedule": Kind(
    "perturbation.rho_schedule",
    "perturbation.rho_options",
    lambda: {"constant": constant_rho, "lr_proportional": lr_proportional_rho},
    {
      "rho": "perturbation.rho",
      "rho_min": "perturbation.rho_min",
      "lr_max": _PEAK,
      "lr_min": _LOW,
    },
    {"learning_rate": _RATE, "num_steps": 1000},
    takes=("step",),
    ignores=("perturbation.rho", _PEAK, _LOW),
  ),
  "combine": Kind(
    "combine.name",
    "combine.options",
    lambda: COMBINE_RULES,
    {name: f"combine.{name}" for name in ("alpha", "normalized", "gamma")},
    own=OWN_ARGUMENTS,
    takes=("ascent_grads", "delta", "grads"),
    fits=lambda value: callable(value) or _is_transform(value),
  ),
  "optimizer": Kind(
    "optimizer.name",
    "optimizer.options",
    all_optimizers,
    {
      "learning_rate": _PEAK,
      "weight_decay": "optimizer.weight_decay",
      "momentum": "optimizer.momentum",
    },
    {"learning_rate": _RATE, "mask": None, "weight_decay_mask": None},
    noun=_TRANSFORM,
    fits=_is_transform,
    ignores=("adamw", "sgdw", "slow_sgdw"),
  ),
  "schedule": Kind(
    "schedule.name",
    "schedule.options",
    lambda: {
      name: getattr(_schedules, name)
      for name in ("cosine", "linear", "constant", "wsd")
    },
    {
      # optax's names of the peak and of the end, too.
      **dict.fromkeys(
        ("learning_rate", "peak_value", "init_value", "value"), _PEAK
      ),
      **dict.fromkeys(("min_learning_rate", "end_value"), _LOW),
      "warmup_steps": "schedule.warmup_epochs",
    },
    {
      "warmup_steps": 100,
      "steps_per_epoch": 100,
      **dict.fromkeys(("num_steps", "decay_steps", "transition_steps"), 1000),
    },
    takes=("step",),
    ignores=(_PEAK,),
    make=make_schedule,
  ),
  "metric": Kind(
    "metric.name",
    "metric.options",
    lambda: {
      "classification": lambda: classification_metrics,
      "language_model": TokenMetrics,
      "regression": lambda: regression_metrics,
    },
    offers={"num_classes": 2},
    takes=("outputs", "labels", "where"),
  ),
  "data": Kind(
    "data.name",
    "data.options",
    dict,
    gives={"seed": "data.split_seed", "data_dir": "data.dir"},
    noun="a data set",
    fits=lambda value: value is not None and not callable(value),
    ignores=("data.split_seed", "data.dir"),
  ),
}
