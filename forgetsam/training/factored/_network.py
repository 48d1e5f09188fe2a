"""A model traced for one micro-batch, and how its parameters are taken."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

from forgetsam._objectives import run_forward
from forgetsam._typing import Forward, PyTree
from forgetsam.training.factored._evaluate import Later, later_part
from forgetsam.training.factored._products import Site, Use, is_cheaper_factored
from forgetsam.training.factored._program import (
  Equation,
  Program,
  flatten,
  values,
)
from forgetsam.training.factored._uses import find_uses


def same_structure(left: PyTree, right: PyTree) -> bool:
  structures = {jax.tree.structure(left), jax.tree.structure(right)}
  return len(structures) == 1


class CannotFactorError(Exception):
  """Why the micro-batches of a step have to be looped over."""


class Network(NamedTuple):
  """A forward pass of one micro-batch.

  Attributes:
    program: from parameters, inputs, key and model state to outputs and state.
    outputs: the outputs' structure, and how many there are.
    uses: those of the factored arrays.
    sites: the uses of factored arrays, and those that are done as products.
    known: the uses of all arrays that products alone read.
    how: of each array, "factored", or why it is formed.
  """

  program: Program
  structure: Any
  num_outputs: int
  num_leaves: int
  num_state: int
  uses: dict[int, tuple[Use, ...]]
  sites: dict[Site, Use]
  known: tuple[Use, ...]
  how: tuple[str, ...]
  later: Later

  @property
  def formed(self) -> list[int]:
    return [k for k in range(self.num_leaves) if k not in self.uses]


def trace_network(
  forward: Forward,
  params: PyTree,
  model_state: PyTree,
  inputs: PyTree,
  key: jax.Array,
) -> Network:
  """Traces the training pass of one micro-batch.

  Raises:
    CannotFactorError: the outputs depend on the model's state.
  """
  leaves, tree = jax.tree.leaves(params), jax.tree.structure(params)
  state_leaves = jax.tree.leaves(model_state)
  state_tree = jax.tree.structure(model_state)

  def run(leaves: list[Any], inputs: PyTree, key: Any, state: list[Any]) -> Any:
    params = jax.tree.unflatten(tree, leaves)
    model_state = jax.tree.unflatten(state_tree, state)
    arguments = params, model_state, inputs
    return run_forward(forward, *arguments, train=True, key=key)

  closed, shapes = jax.make_jaxpr(run, return_shape=True)(
    leaves, inputs, key, state_leaves
  )
  jaxpr, _ = partial_eval.dce_jaxpr(
    closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True
  )
  program = flatten(core.ClosedJaxpr(jaxpr, closed.consts))
  if _draws_otherwise(program):
    raise CannotFactorError(
      "its random keys are not of threefry: `vmap` would draw other numbers"
    )
  outputs, new_state = shapes
  if not same_structure(new_state, model_state):
    raise CannotFactorError("the model's state changes its structure")
  num_outputs = len(jax.tree.leaves(outputs))
  num_state = len(state_leaves)
  later = later_part(
    program,
    program.inputs[len(program.inputs) - num_state :],
    program.outputs[num_outputs:],
  )
  if not later.depends.isdisjoint(values(program.outputs[:num_outputs])):
    raise CannotFactorError("the outputs read the model's state in training")
  found = find_uses(program, len(leaves))
  if any(
    site[0] in later.equations
    for uses in found.known.values()
    for site in (use.site for use in uses)
  ):
    raise CannotFactorError("a parameter is multiplied by the model's state")
  how, uses = [], {}
  for k in range(len(leaves)):
    if k in found.formed:
      how.append(f"formed: {found.formed[k]}")
    elif is_cheaper_factored(found.known[k]):
      uses[k] = found.known[k]
      how.append("factored")
    else:
      how.append("formed: smaller than its factors")
  network = Network(
    program=program,
    structure=jax.tree.structure(outputs),
    num_outputs=num_outputs,
    num_leaves=len(leaves),
    num_state=num_state,
    uses={},
    sites={},
    known=tuple(use for uses in found.known.values() for use in uses),
    how=(),
    later=later,
  )
  return _with_uses(network, uses, tuple(how), found.known)


def _draws_otherwise(program: Program) -> bool:
  """Whether keys are read that draw other numbers under `vmap`."""
  same = jax.random.key(0, impl="threefry2x32").dtype

  def reads(equation: Equation) -> bool:
    dtypes = [x.dtype for x in equation.input_shapes if hasattr(x, "dtype")]
    keys = [d for d in dtypes if jnp.issubdtype(d, jax.dtypes.prng_key)]
    inside = equation.body is not None and _draws_otherwise(equation.body)
    return inside or any(d != same for d in keys)

  return any(map(reads, program.equations))


def _with_uses(
  network: Network,
  uses: dict[int, tuple[Use, ...]],
  how: tuple[str, ...],
  known: Mapping[int, tuple[Use, ...]],
) -> Network:
  # A convolution with weights of its own for every micro-batch is slow: it
  # becomes a product of patches.
  products = [
    use
    for k in known
    for use in known[k]
    if k in uses or (use.kind == "conv" and len(known[k]) == 1)
  ]
  sites = {use.site: use for use in products}
  return network._replace(uses=uses, how=how, sites=sites)


def agree(clean: Network, perturbed: Network) -> tuple[Network, Network]:
  """Factors what both passes can, so that one's factors serve the other."""

  def split(use: Use) -> Any:
    return use.contracted, use.free, use.shape, use.scanned

  both = {
    k
    for k in clean.uses
    if k in perturbed.uses
    and {split(use) for use in clean.uses[k]}
    == {split(use) for use in perturbed.uses[k]}
  }
  how = tuple(
    "factored"
    if k in both
    else "formed: the two passes use it differently"
    if h == "factored"
    else h
    for k, h in enumerate(clean.how)
  )

  def only_both(network: Network) -> Network:
    uses = {k: network.uses[k] for k in both}
    sites = {
      site: use
      for site, use in network.sites.items()
      if use.leaf in both or use.kind == "conv"
    }
    return network._replace(uses=uses, sites=sites, how=how)

  return only_both(clean), only_both(perturbed)
