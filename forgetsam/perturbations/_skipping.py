"""Ascent passes that run in some steps and are really skipped in the others.

Idle steps still update the perturbation: its clocks (integers and keys) go on,
so that a schedule of rho counts steps; floating-point arrays wait.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from forgetsam._arrays import cast_like, is_float
from forgetsam._combination import is_combination
from forgetsam._typing import GradFn, PyTree


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
