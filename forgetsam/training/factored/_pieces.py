r"""Gradients of a matrix as sums of products, and what is computed with them.

The gradient of one micro-batch is :math:`G = \sum_k L_k^\top R_k`, over the
uses k of the matrix, where the rows of L and R are layer inputs and cotangents
of outputs. A row of L or R that is a unit vector is given by its number. Then

.. math:: \langle G, G' \rangle = \sum_{k,l} \sum (L_k L_l'^\top) \odot
   (R_k R_l'^\top), \qquad x G = \sum_k (x L_k^\top) R_k.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, wide_dtype
from forgetsam.training.factored._patches import patches
from forgetsam.training.factored._products import Use
from forgetsam.training.factored._program import Equation

# Accelerators would multiply in TF32 or bfloat16, and lose a norm's digits.
_EXACT = jax.lax.Precision.HIGHEST


class Piece(NamedTuple):
  """The rows that one use contributes: `left` [rows, a], `right` [rows, b]."""

  left: Array
  right: Array


class Sum(NamedTuple):
  """An inner product, and the sum of its terms' absolute values."""

  value: Array
  absolute: Array


def contracts_left(use: Use) -> bool:
  """Whether the axes that a use sums over are the left ones of its piece."""
  if use.contracted is None or use.free is None:
    return True
  return use.contracted <= use.free


def make_piece(
  use: Use, equation: Equation, x: Array, cotangent: Array
) -> Piece:
  """The factors of one use, from its activations and its output's cotangent."""
  inputs = input_rows(use, equation, x)
  outputs = output_rows(use, equation, cotangent)
  pair = (inputs, outputs) if contracts_left(use) else (outputs, inputs)
  return Piece(*pair)


def inner(left: Sequence[Piece], right: Sequence[Piece]) -> Sum:
  """The inner product of two gradients of one matrix."""
  values, absolutes = [], []
  for a in left:
    for b in right:
      terms = _dots(a.left, b.left) * _dots(a.right, b.right)
      values.append(jnp.sum(terms))
      absolutes.append(jnp.sum(jnp.abs(terms)))
  return Sum(sum(values[1:], values[0]), sum(absolutes[1:], absolutes[0]))


def inner_with_matrix(pieces: Sequence[Piece], matrix: Array) -> Array:
  """The inner product of a gradient and a matrix [a, b]."""
  totals = []
  for left, right in pieces:
    rows = matrix[left] if _is_numbers(left) else _matmul(left, matrix)
    if _is_numbers(right):
      rows = jnp.take_along_axis(rows, right[:, None], axis=1)
      totals.append(jnp.sum(rows))
    else:
      totals.append(jnp.sum(rows * at_least_float32(right)))
  return sum(totals[1:], totals[0])


def apply(
  use: Use, rows: Array, pieces: Sequence[Piece], precision: Any
) -> Array:
  """Multiplies rows of activations by the gradient: [rows, width]."""
  totals = []
  for left, right in pieces:
    here = contracts_left(use)
    against, out = (left, right) if here else (right, left)
    scores = _dots(rows, against, precision)
    if _is_numbers(out):
      zeros = jnp.zeros((len(rows), use.width), scores.dtype)
      totals.append(zeros.at[:, out].add(scores))
    else:
      totals.append(_matmul(scores.astype(out.dtype), out, precision))
  return sum(totals[1:], totals[0])


def multiply(use: Use, rows: Array, operand: Array, precision: Any) -> Array:
  """Multiplies rows of activations by a product's operand: [rows, width]."""
  matrix = matrix_of(use, operand)
  matrix = matrix if contracts_left(use) else matrix.T
  if _is_numbers(rows):
    return matrix[rows]
  return _matmul(rows, matrix.astype(rows.dtype), precision)


def weighted_sum(
  pieces: Sequence[Piece], weights: Array, shape: tuple[int, int]
) -> Array:
  """The sum of several gradients, by weight; rows are [gradients, rows, ...].

  It takes one product as large as the layer's own.
  """
  totals = []
  for left, right in pieces:
    if _is_numbers(left):
      scaled = weights[:, None, None] * at_least_float32(right)
      totals.append(jnp.zeros(shape, scaled.dtype).at[left].add(scaled))
    elif _is_numbers(right):
      scaled = weights[:, None, None] * at_least_float32(left)
      zeros = jnp.zeros(shape[::-1], scaled.dtype)
      totals.append(zeros.at[right].add(scaled).T)
    else:
      scaled = weights[:, None, None] * at_least_float32(right)
      totals.append(
        jnp.einsum(
          "nra,nrb->ab",
          left,
          scaled.astype(left.dtype),
          preferred_element_type=scaled.dtype,
        )
      )
  return sum(totals[1:], totals[0])


def formed(pieces: Sequence[Piece], shape: tuple[int, int]) -> Array:
  """The gradient itself, [a, b]."""
  one = [jax.tree.map(lambda x: x[None], piece) for piece in pieces]
  dtype = next(
    at_least_float32(x).dtype
    for x in jax.tree.leaves(one)
    if not _is_numbers(x)
  )
  return weighted_sum(one, jnp.ones(1, dtype), shape)


def _is_numbers(side: Array) -> bool:
  return jnp.issubdtype(side.dtype, jnp.integer)


def _matmul(x: Array, y: Array, precision: Any = _EXACT) -> Array:
  return jnp.matmul(
    x,
    y,
    precision=precision,
    preferred_element_type=wide_dtype(x),
  )


def _dots(x: Array, y: Array, precision: Any = _EXACT) -> Array:
  """All inner products of two sets of rows."""
  if _is_numbers(x) and _is_numbers(y):
    return (x[:, None] == y[None, :]).astype(jnp.float32)
  if _is_numbers(x):
    return at_least_float32(jnp.take(y, x, axis=1)).T
  if _is_numbers(y):
    return at_least_float32(jnp.take(x, y, axis=1))
  if x.dtype != y.dtype:
    x, y = at_least_float32(x), at_least_float32(y)
  return _matmul(x, y.T, precision)


def input_rows(use: Use, equation: Equation, x: Array) -> Array:
  """The activations as rows [rows, depth] of numbers, or of row numbers."""
  if use.kind == "gather":
    numbers = x.reshape(-1)
    if equation.params["mode"] == jax.lax.GatherScatterMode.CLIP:
      numbers = jnp.clip(numbers, 0, use.depth - 1)
    return numbers
  if use.kind == "conv":
    return patches(use, equation.params, x)
  contracting, _ = equation.params["dimension_numbers"]
  contracted = tuple(contracting[1 - use.operand])
  rows = [k for k in range(x.ndim) if k not in contracted]
  return x.transpose(*rows, *contracted).reshape(-1, use.depth)


def output_rows(use: Use, equation: Equation, y: Array) -> Array:
  """Outputs, or their cotangents, as rows [rows, width]."""
  return y.transpose(_output_order(use, equation)).reshape(-1, use.width)


def output_of(use: Use, equation: Equation, rows: Array) -> Array:
  """Rows [rows, width] in the layout of the equation's output."""
  order = _output_order(use, equation)
  shape = equation.shapes[0].shape
  return _untransposed(rows, shape, order)


def _output_order(use: Use, equation: Equation) -> tuple[int, ...]:
  """Axes of the output: those of the rows, then those of the parameter."""
  axes = tuple(range(len(equation.shapes[0].shape)))
  if use.kind == "conv":
    spec = equation.params["dimension_numbers"].out_spec
    return (spec[0], *spec[2:], spec[1])
  if use.kind == "dot" and use.operand == 0:
    return (*axes[len(use.keeps) :], *axes[: len(use.keeps)])
  return axes


def matrix_of(use: Use, operand: Array) -> Array:
  """A product's operand as the matrix of its pieces, [a, b]."""
  matrix = operand.transpose(*use.sums, *use.keeps)
  matrix = matrix.reshape(use.depth, use.width)
  return matrix if contracts_left(use) else matrix.T


def operand_of(use: Use, matrix: Array) -> Array:
  """A matrix of pieces in the layout of the product's operand."""
  if not contracts_left(use):
    matrix = matrix.T
  return _untransposed(matrix, use.shape, (*use.sums, *use.keeps))


def matrix_shape(use: Use) -> tuple[int, int]:
  shape = (use.depth, use.width)
  return shape if contracts_left(use) else shape[::-1]


def _untransposed(
  x: Array, shape: tuple[int, ...], order: tuple[int, ...]
) -> Array:
  inverse = sorted(range(len(order)), key=order.__getitem__)
  return x.reshape([shape[k] for k in order]).transpose(inverse)
