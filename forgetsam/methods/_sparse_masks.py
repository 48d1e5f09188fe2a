"""Masks that are renewed every so many updates, by ranks of entries.

A mask is made of arrays that a step has averaged over micro-batches and
devices, so that all have the same.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from forgetsam._arrays import cast_like
from forgetsam._checks import check_count, check_number, is_number
from forgetsam._typing import PyTree, Scalar


class SparseMaskState(NamedTuple):
  """State of `fisher_mask` and `dynamic_mask`.

  Attributes:
    count: of updates.
    age: of updates that perturb, in turns; see `_turns`.
    mask: 1 where an entry is perturbed, 0 elsewhere.
    scores: the last Fisher information; or the ascent gradient, scaled.
    weights: the perturbed weights, where the mask drops by them; else None.
  """

  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  age: Float[Array, ""]
  mask: PyTree
  scores: PyTree
  weights: PyTree | None = None


def check_mask(sparsity: Scalar, every: int) -> None:
  check_number("sparsity", sparsity, low=0, high=1)
  check_count("every", every)


def renewed(
  due: Array, old: PyTree, make: Callable[..., PyTree], *trees: PyTree
) -> PyTree:
  """Calls `make` on trees like `old` where due, and keeps `old` elsewhere.

  Zeros stand in for it: `old` may be the same on all devices, and it not.
  """
  made = jax.lax.cond(
    due,
    lambda *given: cast_like(make(*given), old),
    lambda first, *_: jax.tree.map(jnp.zeros_like, first),
    *trees,
  )
  return jax.tree.map(lambda new, o: jnp.where(due, new, o), made, old)


def is_largest(scores: Array, count: int | Array) -> Array:
  """Which of a vector's entries are the largest: so many, whatever is equal."""
  places = jnp.arange(scores.size, dtype=jnp.int32)
  # Not `jnp.argsort`, whose result counts as the same on all devices.
  _, order = jax.lax.sort((-scores, places), num_keys=1)
  _, ranks = jax.lax.sort((order, places), num_keys=1)
  return ranks < jnp.asarray(count).astype(jnp.int32)


def share(number: int, *factors: Any) -> Any:
  """So many whole entries of a number of them, a product rounded down.

  Rounded first: 10 (1 - 0.9) is a little less than 1.
  """
  if all(map(is_number, factors)):
    return int(round(math.prod(factors, start=number), 6))
  wide = [jnp.asarray(factor, jnp.float32) for factor in factors]
  return jnp.floor(math.prod(wide, start=number) + 1e-4)


def flat(tree: PyTree) -> Array:
  """All entries, in the widest dtype."""
  leaves = jax.tree.leaves(tree)
  if not leaves:
    return jnp.zeros(0)
  widest = max((x.dtype for x in leaves), key=lambda t: t.itemsize)
  return jnp.concatenate([jnp.ravel(x).astype(widest) for x in leaves])


def unflattened(vector: Array, like: PyTree) -> PyTree:
  leaves, structure = jax.tree.flatten(like)
  ends = np.cumsum([x.size for x in leaves])[:-1]
  parts = jnp.split(vector, ends)
  return jax.tree.unflatten(
    structure,
    [
      p.reshape(x.shape).astype(x.dtype)
      for p, x in zip(parts, leaves, strict=True)
    ],
  )


def booleans(mask: PyTree) -> PyTree:
  return jax.tree.map(lambda m: m > 0.5, mask)
