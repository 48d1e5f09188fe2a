"""Gradient passes: which are given, which run, and which are really skipped.

Idle steps still update the perturbation: its clocks (integers and keys) go on,
so that a schedule of rho counts steps; floating-point arrays wait, and so what
tells the age of one of them is a float.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from forgetsam._arrays import cast_like, is_float, is_masked
from forgetsam._checks import check_params
from forgetsam._combination import is_combination
from forgetsam._typing import GradFn, PyTree, ValueAndGradFn


def gate(due: Bool[Array, ""], ascent_fn: GradFn) -> GradFn:
  """`ascent_fn` where `due`, and zeros without its pass elsewhere."""

  def gated(point: PyTree) -> PyTree:
    return jax.lax.cond(
      due,
      lambda p: cast_like(ascent_fn(p), p),
      lambda p: jax.tree.map(jnp.zeros_like, p),
      point,
    )

  return gated


def zeros_unless(due: Bool[Array, ""], tree: PyTree) -> PyTree:
  """The tree where `due`, and zeros elsewhere."""

  def choose(x: Any) -> Any:
    if is_combination(x):
      return x.where(due)
    return jnp.where(due, x, jnp.zeros_like(x))

  return jax.tree.map(choose, tree)


def keep_memory(due: Bool[Array, ""], new: Any, old: Any) -> Any:
  """The new state where `due`; elsewhere its clocks with the old arrays."""
  return jax.tree.map(
    lambda n, o: jnp.where(due, n, o) if is_float(n) else n, new, old
  )


def value_and_grad(
  name: str,
  params: PyTree | None,
  grad_fn: GradFn | None,
  value_and_grad_fn: ValueAndGradFn | None,
) -> ValueAndGradFn:
  """`value_and_grad_fn` where given, or else `grad_fn` with a loss of 0."""
  check_params(name, params, ", grad_fn=grad_fn")
  if value_and_grad_fn is not None:
    return value_and_grad_fn
  return LossUnknown(needed_grad_fn(name, params, grad_fn))


class LossUnknown:
  """A function `params -> (loss, gradient)` with 0 for the loss."""

  def __init__(self, grad_fn: GradFn) -> None:
    self.grad_fn = grad_fn

  def __call__(self, params: PyTree) -> tuple[Array, PyTree]:
    return jnp.zeros((), jnp.float32), self.grad_fn(params)


def needed_grad_fn(
  name: str, params: PyTree | None, grad_fn: GradFn | None
) -> GradFn:
  """`grad_fn`, or an error that says how to pass it."""
  check_params(name, params, ", grad_fn=grad_fn")
  if grad_fn is None:
    raise ValueError(
      f"{name} needs grad_fn, the function params -> gradient of the training "
      "loss on the current batch: call update(ascent_grads, state, params, "
      "grad_fn=grad_fn). In make_train_step, which provides it, pass it as "
      "perturb and not as a part of optimizer."
    )
  return grad_fn


def needed_ascent_fn(
  name: str, params: PyTree | None, ascent_fn: GradFn | None
) -> GradFn:
  """`ascent_fn`, or an error that says how to pass it."""
  check_params(name, params, ", ascent_fn=ascent_fn")
  if ascent_fn is None:
    raise ValueError(
      f"{name} needs ascent_fn, the function params -> ascent gradient on "
      "the current batch: call update(ascent_grads, state, params, "
      "grad_fn=grad_fn, ascent_fn=ascent_fn). make_train_step provides it."
    )
  return ascent_fn


def check_unmasked(name: str, tree: PyTree, instead: str) -> None:
  """Raises a `ValueError` where an outer mask left arrays out of a tree."""
  if any(is_masked(x) for x in jax.tree.leaves(tree, is_leaf=is_masked)):
    raise ValueError(
      f"{name} stands under optax.masked or optax.partition, where it cannot "
      f"evaluate the gradient of the whole model. {instead}"
    )


def loss_function(
  name: str, value_and_grad_fn: ValueAndGradFn | None
) -> Callable[[PyTree], Array]:
  """The training loss at a point, whose gradient a compiled step leaves out."""
  if value_and_grad_fn is None or isinstance(value_and_grad_fn, LossUnknown):
    raise missing_loss(name)
  return lambda p: value_and_grad_fn(p)[0]


def missing_loss(name: str) -> ValueError:
  return ValueError(
    f"{name} needs value_and_grad_fn, the function params -> (training loss, "
    "gradient) on the current batch: call update(ascent_grads, state, params, "
    "value_and_grad_fn=value_and_grad_fn). make_train_step provides it."
  )
