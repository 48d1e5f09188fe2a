"""Calls of losses, signals and metrics, with weights, to one number each."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from forgetsam._arrays import at_least_float32
from forgetsam._labels import as_array, as_weights, mean
from forgetsam._typing import AscentSignal, Forward, Loss, PyTree

_F = TypeVar("_F", bound=Callable[..., Any])


def of_classes(function: _F) -> _F:
  """Marks a loss or a signal whose labels are classes: they have an accuracy.

  `functools.wraps` keeps the mark.
  """
  function.__dict__["of_classes"] = True
  return function


def is_of_classes(function: Any) -> bool:
  return getattr(function, "of_classes", False)


def apply(
  function: Callable[..., Any],
  name: str,
  outputs: PyTree,
  labels: PyTree,
  where: Any = None,
) -> Any:
  """Calls a loss or a signal; refuses weights that it does not take."""
  if where is None:
    return function(outputs, labels)
  if not takes_where(function):
    raise ValueError(
      f"{name} takes no `where`, so it cannot weigh examples by the mask: make "
      f"it {name}(logits, labels, where=None), or leave the mask out"
    )
  return function(outputs, labels, where=where)


def mean_loss(
  loss: Loss,
  outputs: PyTree,
  labels: PyTree,
  where: Any = None,
  name: str = "loss",
) -> Float[Array, ""]:
  """The loss as one number; one of each example or position is averaged.

  Such a loss is not given the weights: optax's `where` chooses classes.
  """
  given = where
  if where is not None and not _needs_where(loss):
    shapes = jax.tree.leaves(jax.eval_shape(lambda: loss(outputs, labels)))
    given = None if any(x.ndim for x in shapes) else where
  value = apply(loss, name, outputs, labels, given)
  value = mean_value(name, value, labels, where)
  if not jnp.issubdtype(value.dtype, jnp.floating):
    raise ValueError(
      f"{name} is {value.dtype}: it must be a floating-point number"
    )
  return value


def example_losses(
  loss: Loss, outputs: PyTree, labels: PyTree, where: Any = None
) -> Float[Array, " batch"]:
  """The loss of each example alone."""

  def alone(*example: PyTree) -> Array:
    return mean_loss(loss, *jax.tree.map(lambda x: x[None], example))

  return jax.vmap(alone)(outputs, labels, where)


def ascent_direction(
  signal: AscentSignal,
  name: str,
  outputs: PyTree,
  labels: PyTree,
  where: Any = None,
) -> PyTree:
  """The signal's cotangent, in the outputs' dtypes."""
  found = apply(signal, name, outputs, labels, where)
  shape, right = (jax.tree.map(jnp.shape, tree) for tree in (found, outputs))
  if shape != right:
    raise ValueError(
      f"{name} returns {shape} for outputs of {right}: it must return the "
      "gradient, a number for each of theirs"
    )

  def cotangent(x: Any, z: Array) -> Any:
    if not jnp.issubdtype(z.dtype, jnp.inexact):  # it has no gradient
      return np.zeros(z.shape, jax.dtypes.float0)
    return jnp.asarray(x).astype(z.dtype)

  return jax.tree.map(cotangent, found, outputs)


def run_forward(forward: Forward, *arguments: Any, **keywords: Any) -> Any:
  """Calls a model; names it where the model state is missing or another."""
  result = forward(*arguments, **keywords)
  if not isinstance(result, tuple) or len(result) != 2:
    raise ValueError(
      f"forward returns a {type(result).__name__}: it must return (outputs, "
      "model_state), such as (logits, {})"
    )
  before, after = (
    jax.tree.map(jnp.shape, s) for s in (arguments[1], result[1])
  )
  if keywords["train"] and before != after:
    raise ValueError(
      f"forward takes the model_state {before} and returns {after}: it must "
      "return arrays of the same names and shapes, and leave out what a pass "
      "adds"
    )
  return result


def mean_value(
  name: str, value: Any, labels: PyTree, where: Any = None
) -> Array:
  """The mean over examples or positions, by weight; a scalar is one already."""
  value = jnp.asarray(as_array(name, value))
  if not value.ndim:
    return value
  size = len(jax.tree.leaves(labels)[0])
  if len(value) != size:
    raise ValueError(
      f"{name} has the shape {value.shape}, for {size} examples: it must be one"
      f" number, or one of each example ({size},) or position"
    )
  if jnp.iscomplexobj(value):
    raise ValueError(f"{name} is {value.dtype}: it must be real")
  if not jnp.issubdtype(value.dtype, jnp.floating):
    value = value.astype(jnp.float32)
  if where is None:
    return value.mean()
  weights = as_weights(where, np.shape(where))
  axes = min(value.ndim, weights.ndim)
  value = at_least_float32(value)
  if value.shape[:axes] != weights.shape[:axes]:
    raise ValueError(
      f"{name} has the shape {value.shape} and the mask {weights.shape}: their "
      "leading axes must be the same"
    )
  weights = weights.sum(tuple(range(axes, weights.ndim)))
  value = value.mean(tuple(range(axes, value.ndim)))
  return mean(value, weights.astype(value.dtype))


def takes_where(function: Callable[..., Any]) -> bool:
  parameters = inspect.signature(function).parameters.values()
  return any(p.name == "where" or p.kind is p.VAR_KEYWORD for p in parameters)


def _needs_where(function: Callable[..., Any]) -> bool:
  parameter = inspect.signature(function).parameters.get("where")
  return parameter is not None and parameter.default is parameter.empty
