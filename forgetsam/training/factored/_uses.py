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

from forgetsam.training.factored._products import Site, Use, product_of
from forgetsam.training.factored._program import (
  Equation,
  Program,
  Value,
  num_consts_and_carry,
  values,
)


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
      use = _use(equation, program, here, operand, origin)
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


def _use(
  equation: Equation,
  program: Program,
  site: Site,
  operand: int,
  origin: _Origin,
) -> Use | None:
  weights = program.shapes[equation.inputs[operand]]
  found = product_of(equation, operand, weights)
  if found is None:
    return None
  kind, contracted = found
  shape, axes = weights.shape, origin.axes
  free = tuple(k for k in range(len(shape)) if k not in contracted)
  width = math.prod(shape[k] for k in free)
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


def _share_axes(uses: tuple[Use, ...]) -> bool:
  """Whether uses split the parameter's axes alike: their sums can be mixed."""
  if any(use.scanned or use.contracted is None for use in uses):
    return False
  if any(use.kind == "conv" for use in uses):
    return False
  return len({frozenset((use.contracted, use.free)) for use in uses}) == 1
