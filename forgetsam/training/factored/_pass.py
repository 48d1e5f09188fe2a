"""One micro-batch's passes: clean, and at perturbed parameters."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import at_least_float32
from forgetsam._typing import PyTree
from forgetsam.training.factored._evaluate import (
  Products,
  evaluate,
  read,
  run_later,
)
from forgetsam.training.factored._gradient import (
  Gradient,
  over_scans,
  to_operand,
)
from forgetsam.training.factored._network import Network
from forgetsam.training.factored._pieces import (
  Piece,
  apply,
  input_rows,
  make_piece,
  multiply,
  output_of,
)
from forgetsam.training.factored._products import Site, Use
from forgetsam.training.factored._program import Equation, Program


class CleanPass(NamedTuple):
  """Outputs, the pullback to a `Gradient`, and parts of the new state."""

  outputs: PyTree
  pullback: Callable[[PyTree], Gradient]
  captured: list[Array]


class Offset(NamedTuple):
  """The offset of one micro-batch, of some arrays.

  Each is a scale times the gradient, and weights times `arrays` that all
  micro-batches share.
  """

  gradient: Gradient
  scales: dict[int, Array]
  weights: dict[int, list[Array]]
  arrays: dict[int, list[Array]]

  @property
  def formed(self) -> set[int]:
    """The arrays whose offset is added, not multiplied by."""
    return {*self.gradient.formed, *self.weights} - {*self.gradient.pieces}


NO_OFFSET = Offset(Gradient({}, {}), {}, {}, {})


def run_pass(
  network: Network,
  leaves: Sequence[Any],
  inputs: PyTree,
  key: jax.Array,
  state: Sequence[Any],
  *,
  taps: Mapping[Site, Array],
  offset: Offset = NO_OFFSET,
) -> CleanPass:
  """One micro-batch's pass whose pullback gives its gradient in factors.

  Args:
    taps: zeros of the shapes of `tap_shapes`.
  """
  moved = dict(enumerate(_moved(leaves, offset)))

  def tapped(
    taps: Mapping[Site, Array], formed: dict[int, Array]
  ) -> tuple[PyTree, Any]:
    here = moved | formed
    arrays = [here[k] for k in range(network.num_leaves)]
    outputs, captured, found = _run(
      network, arrays, inputs, key, state, taps, offset, network.formed
    )
    return outputs, (captured, found)

  formed = {k: moved[k] for k in network.formed}
  outputs, pull, (captured, found) = jax.vjp(
    tapped, dict(taps), formed, has_aux=True
  )

  def pullback(direction: PyTree) -> Gradient:
    cotangents, grads = pull(direction)
    pieces = {}
    for leaf, uses in network.uses.items():
      pieces[leaf] = tuple(
        over_scans(use, _piece_maker(network, use))(
          found[use.site], cotangents[use.site]
        )
        for use in uses
      )
    return Gradient(pieces, grads)

  return CleanPass(outputs, pullback, captured)


def perturbed_outputs(
  network: Network,
  leaves: Sequence[Any],
  inputs: PyTree,
  key: jax.Array,
  state: Sequence[Any],
  offset: Offset,
) -> PyTree:
  """Outputs at `leaves` plus the offset."""
  arrays = _moved(leaves, offset)
  own = offset.formed
  return _run(network, arrays, inputs, key, state, {}, offset, own)[0]


def _moved(leaves: Sequence[Any], offset: Offset) -> list[Any]:
  """Adds the formed part of the offset."""
  moved = list(leaves)
  for k in offset.formed:
    terms = list(
      zip(offset.weights.get(k, []), offset.arrays.get(k, []), strict=True)
    )
    if k in offset.gradient.formed:
      terms.append((offset.scales[k], offset.gradient.formed[k]))
    for scale, array in terms:
      wide = at_least_float32(array)
      step = scale.astype(wide.dtype) * wide
      moved[k] = at_least_float32(moved[k]) + step
  return moved


def _run(
  network: Network,
  leaves: Sequence[Any],
  inputs: PyTree,
  key: jax.Array,
  state: Sequence[Any],
  taps: Mapping[Site, Array],
  offset: Offset,
  own: Collection[int],
) -> tuple[PyTree, list[Array], dict[Site, Any]]:
  """`own` are the arrays that differ, or whose gradients do."""
  given: dict[Site, dict[str, Any]] = {}
  uses = {}
  for site, use in network.sites.items():
    extra: dict[str, Any] = {}
    if site in taps:
      extra["tap"] = taps[site]
    if use.leaf in offset.gradient.pieces:
      extra["pieces"] = offset.gradient.pieces[use.leaf]
      # Beside the pieces of each scanned layer.
      scale = offset.scales[use.leaf]
      extra["scale"] = jnp.broadcast_to(scale, use.scanned)
      extra["arrays"] = [
        (jnp.broadcast_to(weight, use.scanned), to_operand(use)(array))
        for weight, array in zip(
          offset.weights.get(use.leaf, []),
          offset.arrays.get(use.leaf, []),
          strict=True,
        )
      ]
    if extra or use.leaf in own:
      given[site] = extra
      uses[site] = use
  known, found = evaluate(
    network.program,
    [*leaves, *jax.tree.leaves(inputs), key, *state],
    Products(uses, _product),
    given,
    until=frozenset(network.later.equations),
  )
  outputs = read(known, network.program.outputs[: network.num_outputs])
  captured = [known[v] for v in network.later.reads]
  return network.structure.unflatten(outputs), captured, found


def _product(
  use: Use, equation: Equation, operands: list[Any], given: Any
) -> tuple[Array, Any]:
  x = operands[1 - use.operand]
  precision = equation.params.get("precision")
  if not given:
    # A convolution whose weights, or whose gradient, each micro-batch has.
    rows = input_rows(use, equation, x)
    y = multiply(use, rows, operands[use.operand], precision)
    return output_of(use, equation, y.astype(equation.shapes[0].dtype)), None
  (y,) = equation.bind(*operands)
  if "pieces" in given:
    rows = input_rows(use, equation, x)
    step = apply(use, rows, given["pieces"], precision)
    step = given["scale"].astype(step.dtype) * step
    for weight, operand in given["arrays"]:
      part = multiply(use, rows, operand, precision)
      step += weight.astype(step.dtype) * part
    step = output_of(use, equation, step)
    y = (at_least_float32(y) + step).astype(y.dtype)
  if "tap" not in given:
    return y, None
  return y + given["tap"], x


def tap_shapes(network: Network) -> dict[Site, jax.ShapeDtypeStruct]:
  """Shapes of the outputs that factors need the cotangents of."""
  found = {}
  for uses in network.uses.values():
    for use in uses:
      shape = equation_at(network.program, use.site).shapes[0]
      found[use.site] = jax.ShapeDtypeStruct(
        (*use.scanned, *shape.shape), shape.dtype
      )
  return found


def equation_at(program: Program, site: Site) -> Equation:
  first, *rest = site
  equation = program.equations[first]
  if not rest:
    return equation
  assert equation.body is not None
  return equation_at(equation.body, tuple(rest))


def _piece_maker(network: Network, use: Use) -> Callable[[Array, Array], Piece]:
  equation = equation_at(network.program, use.site)
  return lambda x, cotangent: make_piece(use, equation, x, cotangent)


def next_state(
  network: Network, captured: Sequence[Array], state: Sequence[Any]
) -> list[Array]:
  """The model's state after a micro-batch."""
  known = dict(zip(network.later.reads, captured, strict=True))
  first = len(network.program.inputs) - network.num_state
  known.update(zip(network.program.inputs[first:], state, strict=True))
  known = run_later(network.program, network.later, known)
  return read(known, network.program.outputs[network.num_outputs :])
