"""Means over micro-batches, of numbers and of combinations of gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, is_float
from forgetsam._combination import Terms
from forgetsam._typing import PyTree
from forgetsam.training.factored._gradient import Gradient, sum_of
from forgetsam.training.factored._network import Network
from forgetsam.training.factored._update import Moved


class Coefficients(NamedTuple):
  """Those of one array's `Combination`."""

  own: dict[str, Array]
  shared: list[Array]


def coefficients_of(
  moved: Moved, scales: dict[str, Array]
) -> list[Coefficients]:
  """Those of the gradients themselves, not of what `scales` divided."""
  return [
    Coefficients(
      {name: jnp.asarray(c) / scales[name] for name, c in own.items()},
      [jnp.asarray(d) for d, _ in terms],
    )
    for own, terms in zip(moved.coefficients, moved.shared, strict=True)
  ]


def shares_of(weights: Array | None, indices: Array) -> Array:
  """Each micro-batch's part of all weights; zeros where there are none."""
  count = len(indices)
  if weights is None:
    return jnp.full(count, 1 / count, jnp.float32)
  total = jnp.sum(weights)
  return weights / jnp.where(total == 0, 1, total)


def mean(tree: PyTree, shares: Array) -> PyTree:
  """The mean over micro-batches, exact where they agree."""

  def mean_of(x: Array) -> Array:
    if not is_float(x):
      return x[0]
    weights = shares.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    counts = jnp.where(weights == 0, 0, x - x[0])
    return x[0] + jnp.sum(weights * counts, axis=0)

  return jax.tree.map(mean_of, tree)


def total(
  network: Network,
  gradients: dict[str, Gradient],
  coefficients: list[Coefficients],
  shared: list[Terms],
  shares: Array,
  leaves: list[Any],
) -> list[Array]:
  """The mean over micro-batches of combinations, one for each array.

  Args:
    coefficients: of all micro-batches.
    shared: the first micro-batch's terms.
  """
  totals = []
  for k, w in enumerate(leaves):
    sum_ = zeros(w)
    weights = zip(coefficients[k].shared, shared[k], strict=True)
    for all_, (d, s) in weights:
      weight = d if isinstance(d, (int, float)) else mean(all_, shares)
      sum_ += times(weight, s).astype(sum_.dtype)
    totals.append(sum_)
  for name, gradient in gradients.items():
    scales = {
      k: shares * c.own[name]
      for k, c in enumerate(coefficients)
      if name in c.own
    }
    for k, part in sum_of(network, gradient, scales, leaves).items():
      totals[k] += part.astype(totals[k].dtype)
  return totals


def times(d: Any, s: Array) -> Array:
  if isinstance(d, (int, float)) and d == 1:
    return s
  return jnp.asarray(d).astype(s.dtype) * s


def zeros(w: Array) -> Array:
  return jnp.zeros_like(at_least_float32(w))
