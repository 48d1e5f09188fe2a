"""Pytrees of arrays: precision, `params + delta`, norms, inner products."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from forgetsam._typing import PyTree, Scalar

# Outside this range a sum of float32 squares has lost precision to underflow,
# or is about to overflow.
_SMALLEST, _LARGEST = 1e-30, 1e37


def is_float(x: Any) -> bool:
  return jnp.issubdtype(x.dtype, jnp.floating)


def at_least_float32(x: Array) -> Array:
  """Casts bfloat16 and float16 to float32; leaves wider types alone."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def wide_zeros(tree: PyTree) -> PyTree:
  return jax.tree.map(lambda x: jnp.zeros_like(at_least_float32(x)), tree)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
  return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def add_delta(params: PyTree, delta: PyTree, scale: Scalar = 1.0) -> PyTree:
  """`params + scale * delta`, in float32 where a dtype could swallow delta."""
  return jax.tree.map(
    lambda w, d: at_least_float32(w) + at_least_float32(scale * d),
    params,
    delta,
  )


def tree_norm(tree: PyTree) -> Float[Array, ""]:
  """Euclidean norm over all leaves in at least float32; 0 for an empty tree.

  Where the sum of squares under- or overflows, one `lax.cond` on the finished
  scalar divides by the largest entry first: other norms pay the plain price.
  """
  leaves = [at_least_float32(x) for x in jax.tree.leaves(tree)]
  if not leaves:
    return jnp.zeros((), jnp.float32)
  total = _sum_of_squares(leaves)
  in_range = (total >= _SMALLEST) & (total <= _LARGEST)
  return jax.lax.cond(
    in_range, lambda: jnp.sqrt(total), lambda: _scaled(leaves)
  )


def _sum_of_squares(leaves: list[Array]) -> Array:
  # Elementwise products: TPUs would multiply a `vdot` in bfloat16.
  return sum((jnp.sum(x * x) for x in leaves), jnp.zeros((), jnp.float32))


def _scaled(leaves: list[Array]) -> Array:
  maxima = [jnp.max(jnp.abs(x), initial=0.0) for x in leaves]
  largest = jnp.max(jnp.stack(maxima))
  divisor = jnp.where(largest > 0, largest, 1)
  return largest * jnp.sqrt(_sum_of_squares([x / divisor for x in leaves]))


def tree_dot(left: PyTree, right: PyTree) -> Float[Array, ""]:
  """Inner product of two trees, in float32 on every backend."""
  products = jax.tree.map(
    lambda a, b: jnp.sum(at_least_float32(a) * at_least_float32(b)),
    left,
    right,
  )
  return jax.tree.reduce(jnp.add, products, jnp.zeros((), jnp.float32))


def orthogonal(tree: PyTree, to: PyTree) -> PyTree:
  """A tree without its part along another, in at least float32."""
  direction = unit(to)
  along = tree_dot(tree, direction)
  return jax.tree.map(
    lambda x, d: at_least_float32(x) - along * d, tree, direction
  )


def plain_norm(tree: PyTree) -> Float[Array, ""]:
  """The norm without the fallback, whose branch would keep the tree in memory.

  For numbers that are only looked at: 0 or infinite out of float32's range.
  """
  leaves = [at_least_float32(x) for x in jax.tree.leaves(tree)]
  return jnp.sqrt(_sum_of_squares(leaves))


def to_length(tree: PyTree, length: Scalar) -> PyTree:
  """`length * tree / ||tree||` in at least float32; zero stays zero."""
  norm = tree_norm(tree)
  # One multiplication by length / norm would do, but for norms whose inverse
  # float32 cannot hold: those take a power of two first.
  power = jnp.where(norm < _SMALLEST, 2.0**100, 1.0)
  power = jnp.where(norm > 1 / _SMALLEST, 2.0**-100, power)
  factor = length / jnp.where(norm == 0, 1, norm * power)
  return jax.tree.map(lambda x: at_least_float32(x) * power * factor, tree)


def unit(tree: PyTree) -> PyTree:
  return to_length(tree, 1.0)
