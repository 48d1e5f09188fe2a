"""Linear combinations of gradients that are never formed.

A perturbation that scales the ascent gradient, adds what all micro-batches
share, and reads nothing of it but norms and inner products, computes the same
with these in place of the gradient's arrays.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from forgetsam._typing import PyTree, Scalar

Terms = Sequence[tuple[Scalar, Array]]


class NotACombinationError(TypeError):
  """An operation needs the gradient's numbers, not only its direction."""


@runtime_checkable
class Products(Protocol):
  """Inner products of the gradients that combinations are of, array by array.

  Those of two gradients are given, and that of a gradient with an array.
  """

  def of_two(self, index: int, left: str, right: str) -> Float[Array, ""]: ...

  def with_array(
    self, index: int, gradient: str, array: Array
  ) -> Float[Array, ""]: ...


class Combination:
  r"""One array's part of :math:`\sum_k c_k g_k + \sum_j d_j s_j`.

  Attributes:
    index: which array of the parameters.
    coefficients: :math:`c_k` by the gradient's name.
    shared: :math:`(d_j, s_j)`, with arrays of the parameter's shape.
  """

  ndim: int
  __array_ufunc__ = None  # NumPy's operators give way to those below

  def __init__(
    self,
    products: Products,
    index: int,
    like: Any,
    coefficients: Mapping[str, Scalar],
    shared: Terms = (),
  ) -> None:
    self.products = products
    self.index = index
    self.shape: tuple[int, ...] = tuple(like.shape)
    self.dtype = like.dtype
    self.ndim = len(self.shape)
    self.size = math.prod(self.shape)
    self.coefficients = dict(coefficients)
    self.shared = tuple(shared)

  def _with(
    self, coefficients: Mapping[str, Scalar], shared: Terms
  ) -> "Combination":
    return Combination(self.products, self.index, self, coefficients, shared)

  def astype(self, dtype: Any) -> "Combination":
    shared = [(d, s.astype(dtype)) for d, s in self.shared]
    cast = self._with(self.coefficients, shared)
    cast.dtype = jnp.dtype(dtype)
    return cast

  def __mul__(self, factor: Any) -> "Combination":
    if isinstance(factor, Combination) or jnp.ndim(factor):
      raise NotACombinationError(
        "it multiplies the ascent gradient by an array, entry by entry"
      )
    return self._with(
      {k: _product(c, factor, self) for k, c in self.coefficients.items()},
      [(_product(d, factor, self), s) for d, s in self.shared],
    )

  __rmul__ = __mul__

  def __truediv__(self, divisor: Any) -> "Combination":
    if isinstance(divisor, Combination):
      raise NotACombinationError("it divides by the ascent gradient")
    return self * (1 / divisor)

  def where(self, condition: Array) -> "Combination":
    """This where a condition holds, and zeros elsewhere."""

    def choose(c: Scalar) -> Array:
      number = _number(c, self.dtype)
      return jnp.where(condition, number, jnp.zeros_like(number))

    return self._with(
      {k: choose(c) for k, c in self.coefficients.items()},
      [(choose(d), s) for d, s in self.shared],
    )

  def zeros(self) -> "Combination":
    return self._with({}, ())

  def __neg__(self) -> "Combination":
    return self * -1

  def __add__(self, other: Any) -> "Combination":
    if isinstance(other, Combination):
      found = dict(self.coefficients)
      for k, c in other.coefficients.items():
        found[k] = found[k] + c if k in found else c
      return self._with(found, (*self.shared, *other.shared))
    if jnp.shape(other) != self.shape:
      if isinstance(other, (int, float)) and other == 0:
        return self
      raise NotACombinationError(
        "it adds a number to the ascent gradient's entries"
      )
    term = (1.0, jnp.asarray(other).astype(self.dtype))
    return self._with(self.coefficients, (*self.shared, term))

  __radd__ = __add__

  def __sub__(self, other: Any) -> "Combination":
    return self + -1 * other

  def __rsub__(self, other: Any) -> "Combination":
    return -self + other


# What an array of a gradient may be given as.
Leaf: TypeAlias = Array | Combination


def is_combination(x: Any) -> bool:
  return isinstance(x, Combination)


def has_combination(tree: PyTree) -> bool:
  return any(map(is_combination, jax.tree.leaves(tree)))


def zeros_like(x: Any) -> Any:
  return x.zeros() if is_combination(x) else jnp.zeros_like(x)


def dot(left: PyTree, right: PyTree) -> Float[Array, ""]:
  """The inner product of two trees, of combinations or arrays."""
  pairs = list(zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))
  dtype = _widest([x for pair in pairs for x in pair])
  total = jnp.zeros((), dtype)
  for x, y in pairs:
    total += (_dot(x, y) if is_combination(x) else _dot(y, x)).astype(dtype)
  return total


def norm(tree: PyTree) -> Float[Array, ""]:
  """The Euclidean norm, whose square need not be in float32's range."""
  leaves = jax.tree.leaves(tree)
  if not all(is_combination(x) and not x.shared for x in leaves):
    # An array beside the gradients has a size of its own.
    return jnp.sqrt(jnp.maximum(dot(tree, tree), 0))
  dtype = _widest(leaves)
  sizes = [
    jnp.abs(_number(c, dtype)) for x in leaves for c in x.coefficients.values()
  ]
  largest = jnp.max(jnp.stack([jnp.zeros((), dtype), *sizes]))
  divisor = jnp.where(largest > 0, largest, 1)
  unit = jax.tree.map(lambda x: x / divisor, tree)
  return largest * jnp.sqrt(jnp.maximum(dot(unit, unit), 0))


def _dot(x: Any, y: Any) -> Array:
  dtype = _widest([x, y])
  of_x, shared_x = _parts(x)
  of_y, shared_y = _parts(y)
  total = jnp.zeros((), dtype)

  def add(c: Scalar, d: Scalar, product: Array) -> None:
    nonlocal total
    total += _number(c, dtype) * _number(d, dtype) * product.astype(dtype)

  known = x if is_combination(x) else y
  for k, c in of_x.items():
    for other, d in of_y.items():
      add(c, d, known.products.of_two(known.index, k, other))
  for of, shared in ((of_x, shared_y), (of_y, shared_x)):
    for k, c in of.items():
      for d, s in shared:
        add(c, d, known.products.with_array(known.index, k, s))
  for c, s in shared_x:
    for d, t in shared_y:
      add(c, d, jnp.sum(s.astype(dtype) * t.astype(dtype)))
  return total


def _parts(x: Any) -> tuple[dict[str, Scalar], Terms]:
  if is_combination(x):
    return x.coefficients, x.shared
  return {}, ((1.0, x),)


def _widest(leaves: list[Any]) -> Any:
  wide = any(x.dtype == jnp.float64 for x in leaves)
  return jnp.dtype(jnp.float64 if wide else jnp.float32)


def _number(c: Scalar, dtype: Any) -> Array:
  return jnp.asarray(c).astype(_at_least_float32(dtype))


def _at_least_float32(dtype: Any) -> Any:
  return jnp.float64 if dtype == jnp.float64 else jnp.float32


def _product(c: Scalar, factor: Any, like: Combination) -> Scalar:
  if isinstance(c, (int, float)) and isinstance(
    factor, (int, float, np.number)
  ):
    return c * float(factor)
  return _number(c, like.dtype) * _number(factor, like.dtype)
