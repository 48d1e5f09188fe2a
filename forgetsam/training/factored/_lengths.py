"""Inner products of factored gradients, as exact as those of formed ones."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import is_in_range
from forgetsam._typing import PyTree
from forgetsam.training.factored._gradient import (
  Gradient,
  form,
  is_zero,
  products,
)
from forgetsam.training.factored._network import Network

# Where an inner product is this much smaller than its terms, it is taken from
# the formed gradients.
_MOST_CANCELLED = 1e-4

Pair = tuple[str, str]
Needs = Mapping[Pair, Collection[int]]


class Lengths(NamedTuple):
  """Inner products, array by array, of gradients divided by their `scales`."""

  scales: dict[str, Array]
  products: dict[Pair, dict[int, Array]]


def lengths(
  network: Network,
  gradients: dict[str, Gradient],
  needs: Needs,
  varying: Callable[[PyTree], PyTree],
) -> Lengths:
  """Takes the inner products that an update reads, of each micro-batch.

  Sums of products of rows lose the digits of a gradient whose examples nearly
  cancel, and underflow: then, for all micro-batches here, one gradient after
  another is formed, and divided by its largest entry.
  """
  count = len(jax.tree.leaves(gradients)[0])
  ones = jnp.ones(count, _dtype(gradients))
  if not needs:
    return Lengths(dict.fromkeys(gradients, ones), {})

  def direct(of: dict[str, Gradient]) -> tuple[Lengths, Array]:
    found: dict[Pair, dict[int, Array]] = {}
    fine = jnp.array(True)
    for (left, right), arrays in needs.items():
      sums = products(network, of[left], of[right], sorted(arrays))
      found[left, right] = {k: total.value for k, total in sums.items()}
      total = jnp.asarray(sum(s.value for s in sums.values()))
      terms = sum(s.absolute for s in sums.values())
      here = jnp.abs(total) >= _MOST_CANCELLED * terms
      if left == right:
        here &= is_in_range(total)
      # Zero is no loss of digits.
      fine &= here | is_zero(of[left]) | is_zero(of[right])
    one = jnp.ones((), ones.dtype)
    return Lengths(dict.fromkeys(of, one), found), fine

  def exact(of: dict[str, Gradient]) -> Lengths:
    arrays = sorted({k for some in needs.values() for k in some})
    formed = {name: form(network, g, arrays) for name, g in of.items()}
    scales = {name: _largest(tree) for name, tree in formed.items()}
    scaled = {
      name: {k: g / scales[name].astype(g.dtype) for k, g in tree.items()}
      for name, tree in formed.items()
    }
    found = {
      (left, right): {
        k: jnp.sum(scaled[left][k] * scaled[right][k]).astype(ones.dtype)
        for k in some
      }
      for (left, right), some in needs.items()
    }
    return Lengths(
      {name: x.astype(ones.dtype) for name, x in scales.items()}, found
    )

  found, fine = jax.vmap(direct)(gradients)
  found = varying(jax.tree.map(lambda x: x.astype(ones.dtype), found))
  return one_of(
    jnp.all(fine),
    lambda: found,
    lambda: varying(jax.lax.map(exact, gradients)),
  )


def one_of(
  fine: Array, direct: Callable[[], Lengths], exact: Callable[[], Lengths]
) -> Lengths:
  return jax.lax.cond(fine, direct, exact)


def norm(found: Lengths, name: str) -> Array:
  """The gradients' norms, over the arrays whose products were taken."""
  square = sum(found.products[name, name].values())
  return found.scales[name] * jnp.sqrt(jnp.maximum(square, 0))


def _largest(tree: dict[int, Array]) -> Array:
  largest = jnp.max(
    jnp.stack([jnp.max(jnp.abs(g), initial=0.0) for g in tree.values()])
  )
  return jnp.where(largest > 0, largest, 1)


def _dtype(gradients: dict[str, Gradient]) -> jnp.dtype:
  leaves = jax.tree.leaves(gradients)
  wide = any(x.dtype == jnp.float64 for x in leaves)
  return jnp.dtype(jnp.float64 if wide else jnp.float32)
