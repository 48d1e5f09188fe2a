"""Pytrees of arrays: precision, `params + delta`, norms, inner products.

A complex number counts as the pair of its real and its imaginary part.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, overload

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from forgetsam import _combination
from forgetsam._combination import Leaf, has_combination, is_combination
from forgetsam._typing import NDArray, PyTree, Scalar

# Outside this range a sum of float32 squares has lost precision to underflow,
# or is about to overflow.
_SMALLEST, _LARGEST = 1e-30, 1e37


@contextlib.contextmanager
def usual_promotion() -> Iterator[None]:
  """JAX's default promotion for others' code, such as optax's, in strict modes.

  Ours needs none: it runs under JAX_NUMPY_DTYPE_PROMOTION=strict and
  JAX_NUMPY_RANK_PROMOTION=raise as it is.
  """
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    yield


def is_float(x: Any) -> bool:
  """Whether an array holds real or complex floating-point numbers."""
  return jnp.issubdtype(x.dtype, jnp.inexact)


def is_masked(node: Any) -> bool:
  """Whether a node stands for what `optax.masked` left out of a tree."""
  return isinstance(node, optax.MaskedNode)


def path_name(path: tuple[Any, ...]) -> str:
  """A leaf's path, such as `block0/attention/query/kernel`."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def path_matches(expression: str, name: str) -> bool:
  """Whether an expression matches a path's start, to a slash or its end."""
  return re.match(rf"(?:{expression})(?:/|$)", name) is not None


@overload
def at_least_float32(x: NDArray) -> Array: ...
@overload
def at_least_float32(x: Any) -> Any: ...
def at_least_float32(x: Any) -> Any:
  """Casts bfloat16 and float16 to float32; leaves wider types alone."""
  if not is_combination(x):
    x = jnp.asarray(x)
  return x.astype(wide_dtype(x))


def wide_zeros(tree: PyTree) -> PyTree:
  """Zeros in at least float32, of arrays or of their shapes and dtypes."""
  return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=wide_dtype(x)), tree)


def conj(tree: PyTree) -> PyTree:
  """From JAX's gradient of a real function to the direction of its ascent.

  For a slope of (a, b) in (re, im), JAX gives a - bi, and optax takes a + bi.
  """
  return jax.tree.map(lambda x: jnp.conj(x) if jnp.iscomplexobj(x) else x, tree)


def wide_dtype(x: Any) -> Any:
  """An array's dtype, or float32 where that is wider."""
  # No `promote_types`, which strict dtype promotion refuses.
  dtype = x.dtype if is_combination(x) else jnp.result_type(x)
  wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits >= 32
  return dtype if wide else jnp.dtype(jnp.float32)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
  return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def add_delta(params: PyTree, delta: PyTree, scale: Scalar = 1.0) -> PyTree:
  """`params + scale * delta`, in float32 where a dtype could swallow delta."""

  def add(w: Array, d: Leaf) -> Leaf:
    step = at_least_float32(d)
    return at_least_float32(w) + jnp.asarray(scale).astype(step.dtype) * step

  return jax.tree.map(add, params, delta)


def tree_norm(tree: PyTree) -> Float[Array, ""]:
  """Euclidean norm over all leaves in at least float32; 0 for an empty tree.

  Where the sum of squares under- or overflows, one `lax.cond` on the finished
  scalar divides by the largest entry first: other norms pay the plain price.
  """
  if has_combination(tree):
    return _combination.norm(tree)
  leaves = _real_leaves(tree)
  if not leaves:
    return jnp.zeros((), jnp.float32)
  total = _dot(leaves, leaves)
  return jax.lax.cond(
    is_in_range(total), lambda: jnp.sqrt(total), lambda: _scaled(leaves)
  )


def is_in_range(total: Float[Array, ""]) -> Bool[Array, ""]:
  """Whether a sum of squares has all of float32's digits."""
  return (total >= _SMALLEST) & (total <= _LARGEST)


def is_zero(tree: PyTree) -> Bool[Array, ""]:
  """Whether no entry of a tree differs from zero."""
  found = [jnp.any(x != 0) for x in jax.tree.leaves(tree)]
  return ~jnp.any(jnp.stack(found)) if found else jnp.asarray(True)


def _real_leaves(tree: PyTree) -> list[Array]:
  """The leaves in one dtype of at least float32, the two parts apart."""
  leaves = [at_least_float32(x) for x in jax.tree.leaves(tree)]
  parts = [part for x in leaves for part in _parts(x)]
  widest = max((x.dtype for x in parts), key=lambda t: t.itemsize, default=None)
  return [x.astype(widest) for x in parts]


def _parts(x: Any) -> tuple[Any, ...]:
  if is_combination(x):
    return (x,)
  return (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)


def on_parts(f: Callable[..., Any], *arrays: Leaf) -> Any:
  """A function of arrays of one dtype, of the two parts apart where complex."""
  results = [f(*parts) for parts in zip(*map(_parts, arrays), strict=True)]
  return jax.lax.complex(*results) if len(results) == 2 else results[0]


def _dot(left: list[Array], right: list[Array]) -> Array:
  # Elementwise products: TPUs would multiply a `vdot` in bfloat16.
  pairs = zip(left, right, strict=True)
  zero = jnp.zeros((), left[0].dtype if left else jnp.float32)
  return sum((jnp.sum(a * b) for a, b in pairs), zero)


def _scaled(leaves: list[Array]) -> Array:
  maxima = [jnp.max(jnp.abs(x), initial=0.0) for x in leaves]
  largest = jnp.max(jnp.stack(maxima))
  divisor = jnp.where(largest > 0, largest, 1)
  scaled = [x / divisor for x in leaves]
  return largest * jnp.sqrt(_dot(scaled, scaled))


def tree_dot(left: PyTree, right: PyTree) -> Float[Array, ""]:
  """Real inner product of two trees, in float32 on every backend."""
  if has_combination(left) or has_combination(right):
    return _combination.dot(left, right)
  return _dot(_real_leaves(left), _real_leaves(right))


def orthogonal(tree: PyTree, to: PyTree) -> PyTree:
  """A tree without its part along another, each array in at least float32."""
  direction = unit(to)
  along = tree_dot(tree, direction)

  def subtract(x: Leaf, d: Leaf) -> Leaf:
    return x - along.astype(x.dtype) * d

  return jax.tree.map(
    lambda x, d: on_parts(subtract, at_least_float32(x), d), tree, direction
  )


def plain_norm(tree: PyTree) -> Float[Array, ""]:
  """The norm without the fallback, whose branch would keep the tree in memory.

  For numbers that are only looked at: 0 or infinite out of float32's range.
  """
  if has_combination(tree):
    return _combination.norm(tree)
  leaves = _real_leaves(tree)
  return jnp.sqrt(_dot(leaves, leaves))


def to_length(tree: PyTree, length: Scalar) -> PyTree:
  """`length * tree / ||tree||`, in at least float32; zero stays zero."""
  norm = tree_norm(tree)
  # One multiplication by length / norm would do, but for norms whose inverse
  # float32 cannot hold: those take a power of two first.
  power = jnp.where(norm < _SMALLEST, 2.0**100, 1.0)
  power = jnp.where(norm > 1 / _SMALLEST, 2.0**-100, power)
  length = jnp.asarray(length).astype(norm.dtype)
  factor = length / jnp.where(norm == 0, 1, norm * power)

  def scale(x: Leaf) -> Leaf:
    return (x.astype(norm.dtype) * power * factor).astype(x.dtype)

  return jax.tree.map(lambda x: on_parts(scale, at_least_float32(x)), tree)


def unit(tree: PyTree) -> PyTree:
  return to_length(tree, 1.0)
