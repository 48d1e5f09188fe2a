"""Where a model uses its parameters, and which of them can be factored.

The gradient of m examples with respect to a matrix is a sum of products of the
layer's inputs and the cotangents of its outputs. That holds where all uses of
the matrix are products with activations: it may be cast, transposed or reshaped
before, be read at several places, or be one layer of a scanned stack.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp

from forgetsam.training.factored._program import (
  Equation,
  Program,
  Value,
  num_consts_and_carry,
  values,
)

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


class _Origin(NamedTuple):
  leaf: int
  axes: tuple[int, ...] | None  # the parameter's, in the present order
  scanned: tuple[int, ...]
  reshapes: tuple[tuple[Equation, ...], ...] = ((),)

  def after(self, equation: Equation, axes: Any) -> "_Origin":
    reshapes = self.reshapes
    if equation.name not in _CASTS:
      reshapes = (*reshapes[:-1], (*reshapes[-1], equation))
    return self._replace(axes=axes, reshapes=reshapes)


_CASTS = ("convert_element_type", "copy", "copy_p", "reduce_precision")
_UNKNOWN = "unknown"


class Uses(NamedTuple):
  """All uses of the parameters that products alone read; why others are not."""

  known: dict[int, tuple[Use, ...]]
  formed: dict[int, str]


def find_uses(program: Program, num_leaves: int) -> Uses:
  """Finds the uses of a program's first inputs, its parameters."""
  origins: dict[Value, _Origin] = {}
  for leaf, value in enumerate(program.inputs[:num_leaves]):
    axes = tuple(range(len(program.shapes[value].shape)))
    origins[value] = _Origin(leaf, axes, ())
  found: list[Use] = []
  unknown: dict[int, str] = {}
  _visit(program, origins, (), found, unknown)
  known: dict[int, tuple[Use, ...]] = {}
  for leaf in range(num_leaves):
    uses = tuple(use for use in found if use.leaf == leaf)
    if leaf in unknown:
      continue
    if not uses:
      unknown[leaf] = "nothing reads it"
    elif len(uses) > 1 and not _share_axes(uses):
      unknown[leaf] = "its uses sum over different axes"
    else:
      known[leaf] = uses
  return Uses(known, unknown)


def _visit(
  program: Program,
  origins: dict[Value, _Origin],
  site: Site,
  found: list[Use],
  unknown: dict[int, str],
) -> None:
  for i, equation in enumerate(program.equations):
    read = {
      k: origins[v]
      for k, v in enumerate(equation.inputs)
      if isinstance(v, Value) and v in origins
    }
    if not read:
      continue
    here = (*site, i)
    if equation.body is not None:
      inner = dict(_into_body(equation, equation.body, read, unknown))
      _visit(equation.body, inner, here, found, unknown)
      continue
    if len(read) == 1:
      ((operand, origin),) = read.items()
      if (axes := _same_numbers(equation, program, origin)) is not _UNKNOWN:
        origins[equation.outputs[0]] = origin.after(equation, axes)
        continue
      use = _product(equation, program, here, operand, origin)
      if use is not None:
        found.append(use)
        continue
    for origin in read.values():
      unknown.setdefault(origin.leaf, f"{equation.name} reads it")
  for value in values(program.outputs):
    if value in origins:
      unknown.setdefault(origins[value].leaf, "a block returns it")


def _into_body(
  equation: Equation,
  body: Program,
  read: dict[int, _Origin],
  unknown: dict[int, str],
) -> Iterator[tuple[Value, _Origin]]:
  for k, origin in read.items():
    if equation.is_remat:
      yield body.inputs[k], origin
      continue
    stacked = sum(num_consts_and_carry(equation))
    layers_first = origin.axes is None or origin.axes[:1] == (
      len(origin.scanned),
    )
    if k >= stacked and layers_first:
      axes = None if origin.axes is None else origin.axes[1:]
      length = equation.params["length"]
      yield (
        body.inputs[k],
        _Origin(
          origin.leaf,
          axes,
          (*origin.scanned, length),
          (*origin.reshapes, ()),
        ),
      )
    else:
      unknown.setdefault(origin.leaf, "a loop uses it again and again")


def _same_numbers(equation: Equation, program: Program, origin: _Origin) -> Any:
  """The axes after an operation that keeps every number of its input."""
  axes = origin.axes
  shape = equation.shapes[0].shape
  name = equation.name
  if name == "convert_element_type":
    real = jnp.issubdtype(equation.shapes[0].dtype, jnp.floating)
    return axes if real else _UNKNOWN
  if name in _CASTS:
    return axes
  if name == "transpose":
    order = equation.params["permutation"]
    return None if axes is None else tuple(axes[k] for k in order)
  before = program.shapes[equation.inputs[0]].shape
  moves = name in ("reshape", "squeeze", "expand_dims", "broadcast_in_dim")
  if moves and math.prod(shape) == math.prod(before):
    return None
  return _UNKNOWN


def _product(
  equation: Equation,
  program: Program,
  site: Site,
  operand: int,
  origin: _Origin,
) -> Use | None:
  """The use where an equation is a product that can be factored."""
  parameter = equation.inputs[operand]
  shape = program.shapes[parameter].shape
  if not jnp.issubdtype(program.shapes[parameter].dtype, jnp.floating):
    return None
  if equation.name == "dot_general":
    contracting, batch = equation.params["dimension_numbers"]
    if batch[operand]:
      return None
    contracted = tuple(contracting[operand])
    kind = "dot"
  elif equation.name == "conv_general_dilated" and operand == 1:
    if not _plain_convolution(equation.params):
      return None
    kind = "conv"
    out = equation.params["dimension_numbers"].rhs_spec[0]
    contracted = tuple(k for k in range(len(shape)) if k != out)
  elif equation.name == "gather" and operand == 0:
    if not _takes_rows(equation, shape):
      return None
    kind, contracted = "gather", (0,)
  else:
    return None
  free = tuple(k for k in range(len(shape)) if k not in contracted)
  width = math.prod(shape[k] for k in free)
  axes = origin.axes
  return Use(
    leaf=origin.leaf,
    site=site,
    kind=kind,
    operand=operand,
    contracted=None if axes is None else tuple(axes[k] for k in contracted),
    free=None if axes is None else tuple(axes[k] for k in free),
    shape=shape,
    sums=contracted,
    keeps=free,
    rows=math.prod(equation.shapes[0].shape) // max(width, 1),
    scanned=origin.scanned,
    reshapes=origin.reshapes,
  )


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


def _share_axes(uses: tuple[Use, ...]) -> bool:
  """Whether uses split the parameter's axes alike: their sums can be mixed."""
  if any(use.scanned or use.contracted is None for use in uses):
    return False
  if any(use.kind == "conv" for use in uses):
    return False
  return len({frozenset((use.contracted, use.free)) for use in uses}) == 1


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
