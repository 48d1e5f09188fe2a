"""Products of a parameter with activations that can be factored."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from forgetsam.training.factored._program import Equation

Site = tuple[int, ...]  # the equation's number, in the body of each before it


class Use(NamedTuple):
  """A product of a parameter with activations.

  Attributes:
    leaf: which parameter.
    site: where the product is.
    kind: "dot", "conv" or "gather".
    operand: the parameter's place among the equation's inputs.
    contracted: the parameter's axes that the product sums over, and `free` the
      others, both in the order of the product's operand; `None` where a reshape
      came before.
    shape: of the product's operand.
    sums: the operand's axes that the product sums over, and `keeps` the others.
    rows: how many rows of `depth` numbers multiply it, in one micro-batch.
    scanned: the lengths of the scans over layers that it is in.
    reshapes: the operations that only move numbers, from the parameter to the
      operand: before the first scan, in its body, and so on.
  """

  leaf: int
  site: Site
  kind: str
  operand: int
  contracted: tuple[int, ...] | None
  free: tuple[int, ...] | None
  shape: tuple[int, ...]
  sums: tuple[int, ...]
  keeps: tuple[int, ...]
  rows: int
  scanned: tuple[int, ...]
  reshapes: tuple[tuple[Equation, ...], ...]

  @property
  def depth(self) -> int:
    return math.prod(self.shape[k] for k in self.sums)

  @property
  def width(self) -> int:
    return math.prod(self.shape[k] for k in self.keeps)


def product_of(
  equation: Equation, operand: int, weights: Any
) -> tuple[str, tuple[int, ...]] | None:
  """The kind of a product that can be factored, and the axes it sums over.

  Args:
    operand: the place of the weights among the equation's inputs.
    weights: their shape and dtype.
  """
  if not jnp.issubdtype(weights.dtype, jnp.floating):
    return None
  if equation.name == "dot_general":
    contracting, batch = equation.params["dimension_numbers"]
    return None if batch[operand] else ("dot", tuple(contracting[operand]))
  if equation.name == "conv_general_dilated" and operand == 1:
    if not _plain_convolution(equation.params):
      return None
    out = equation.params["dimension_numbers"].rhs_spec[0]
    axes = range(len(weights.shape))
    return "conv", tuple(k for k in axes if k != out)
  if equation.name == "gather" and operand == 0:
    return ("gather", (0,)) if _takes_rows(equation, weights.shape) else None
  return None


def _plain_convolution(params: dict[str, Any]) -> bool:
  return (
    params["feature_group_count"] == 1
    and params["batch_group_count"] == 1
    and all(k == 1 for k in params["lhs_dilation"])
    and all(low >= 0 and high >= 0 for low, high in params["padding"])
  )


def _takes_rows(equation: Equation, shape: tuple[int, ...]) -> bool:
  """Whether a gather is an embedding: whole rows of a matrix, by number."""
  numbers = equation.params["dimension_numbers"]
  last = len(equation.shapes[0].shape) - 1
  return (
    len(shape) == 2
    and tuple(numbers.offset_dims) == (last,)
    and tuple(numbers.collapsed_slice_dims) == (0,)
    and tuple(numbers.start_index_map) == (0,)
    and not numbers.operand_batching_dims
    and tuple(equation.params["slice_sizes"]) == (1, shape[1])
  )


def rows_of(uses: tuple[Use, ...]) -> int:
  return sum(use.rows for use in uses)


def is_cheaper_factored(uses: tuple[Use, ...]) -> bool:
  """Whether factors take less work than the matrix of one micro-batch.

  Products of r rows cost about 3 r^2 (D + H) operations; the formed gradient
  r D H, and D H numbers are written, read and multiplied as often again.
  """
  use = uses[0]
  rows = rows_of(uses)
  if use.kind == "gather" and len(uses) == 1:
    return rows < use.depth
  return 3 * rows * (use.depth + use.width) < 2 * use.depth * use.width
