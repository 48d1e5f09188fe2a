"""One micro-batch's gradient, in factors, and what is computed with it."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import at_least_float32
from forgetsam.training.factored._network import Network
from forgetsam.training.factored._pieces import (
  Piece,
  Sum,
  formed,
  inner,
  inner_with_matrix,
  matrix_of,
  matrix_shape,
  operand_of,
  weighted_sum,
)
from forgetsam.training.factored._products import Use
from forgetsam.training.factored._program import Equation


class Gradient(NamedTuple):
  """One micro-batch's gradient: factors of some arrays, others as they are."""

  pieces: dict[int, tuple[Piece, ...]]
  formed: dict[int, Array]


def over_scans(use: Use, function: Callable[..., Any]) -> Callable[..., Any]:
  for _ in use.scanned:
    function = jax.vmap(function)
  return function


def products(
  network: Network, left: Gradient, right: Gradient, which: Collection[int]
) -> dict[int, Sum]:
  """Inner products of two gradients, array by array."""
  found = {}
  for k in which:
    if k in network.uses:
      alone = over_scans(network.uses[k][0], inner)
      sums = alone(left.pieces[k], right.pieces[k])
      found[k] = jax.tree.map(jnp.sum, sums)
    else:
      terms = at_least_float32(left.formed[k])
      terms = terms * at_least_float32(right.formed[k])
      found[k] = Sum(jnp.sum(terms), jnp.sum(jnp.abs(terms)))
  return found


def is_zero(gradient: Gradient) -> Array:
  """Whether each array's gradient is surely zero, not only too small."""
  zero = jnp.array(True)
  for x in gradient.formed.values():
    zero &= ~jnp.any(x != 0)
  for pieces in gradient.pieces.values():
    for piece in pieces:
      both = jnp.any(piece.left != 0) & jnp.any(piece.right != 0)
      zero &= ~both
  return zero


def product_with_array(
  network: Network, k: int, gradient: Gradient, array: Array
) -> Array:
  """The inner product of one array's gradient with an array of its shape."""
  if k not in network.uses:
    return jnp.sum(at_least_float32(gradient.formed[k]) * array)
  use = network.uses[k][0]
  operand = to_operand(use)(array)

  def alone(pieces: tuple[Piece, ...], operand: Array) -> Array:
    return inner_with_matrix(pieces, matrix_of(use, operand))

  return jnp.sum(over_scans(use, alone)(gradient.pieces[k], operand))


def form(
  network: Network, gradient: Gradient, which: Collection[int]
) -> dict[int, Array]:
  """The gradient of one micro-batch, as matrices or arrays, in float32."""
  found = {}
  for k in which:
    if k not in network.uses:
      found[k] = at_least_float32(gradient.formed[k])
      continue
    use = network.uses[k][0]
    alone = functools.partial(formed, shape=matrix_shape(use))
    found[k] = over_scans(use, alone)(gradient.pieces[k])
  return found


def sum_of(
  network: Network,
  gradients: Gradient,
  weights: Mapping[int, Array],
  leaves: Sequence[Any],
) -> dict[int, Array]:
  """Sums over micro-batches, by weight, for the arrays that have weights."""
  found = {}
  for k in weights:
    if k not in network.uses:
      g = at_least_float32(gradients.formed[k])
      found[k] = jnp.tensordot(weights[k].astype(g.dtype), g, 1)
      continue
    use = network.uses[k][0]

    def alone(pieces: tuple[Piece, ...], use: Use = use, k: int = k) -> Array:
      return operand_of(
        use, weighted_sum(pieces, weights[k], matrix_shape(use))
      )

    # Scanned layers come after the micro-batches.
    pieces = jax.tree.map(
      functools.partial(_micro_batches_last, use), gradients.pieces[k]
    )
    operand = over_scans(use, alone)(pieces)
    like = leaves[k].astype(operand.dtype)
    (found[k],) = jax.linear_transpose(to_operand(use), like)(operand)
  return found


def _micro_batches_last(use: Use, x: Array) -> Array:
  return jnp.moveaxis(x, 0, len(use.scanned))


def to_operand(use: Use) -> Callable[[Array], Array]:
  """From a parameter to its product's operand, stacked along the scans."""

  def run(x: Array) -> Array:
    for depth, equations in enumerate(use.reshapes):
      step = _chain(equations)
      for _ in range(depth):
        step = jax.vmap(step)
      x = step(x)
    return x

  return run


def _chain(equations: Sequence[Equation]) -> Callable[[Array], Array]:
  def run(x: Array) -> Array:
    for equation in equations:
      (x,) = equation.bind(x)
    return x

  return run
