"""Steps on meshes with further axes: arrays stay where their state lies.

Over "data" a step is written out, one program for each group of devices. All
other axes are the compiler's, which is told how parameters are divided, and
that each pass gathers them over "fsdp".
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from forgetsam._typing import Forward, PyTree
from forgetsam.training._mesh import (
  DATA_AXIS,
  FSDP_AXIS,
  axes_of,
  group_size,
  replicated,
  split_batch,
)


class PlacedStep:
  """A jitted step, whose first arguments lie as they come and stay so.

  The step takes one argument more, the shardings of these arguments' arrays, or
  None where they are traced. The batch follows them, divided in any way.
  """

  def __init__(
    self, step: Callable[..., Any], mesh: Mesh, placed: int, **options: Any
  ) -> None:
    self._mesh, self._placed = mesh, placed

    def placed_step(a: Any, b: Any, c: Any, leaves: Any = None) -> Any:
      structure = jax.tree.structure((a, b, c)[:placed])
      shardings = leaves and jax.tree.unflatten(structure, leaves)
      return step(a, b, c, shardings)

    self._jitted = jax.jit(placed_step, static_argnums=3, **options)

  def __call__(self, *arguments: Any) -> Any:
    shardings = self._shardings(arguments)
    given = list(arguments)
    given[self._placed] = jax.tree.map(self._divided, given[self._placed])
    return self._jitted(*given, shardings)

  def lower(self, *arguments: Any) -> Any:
    """As of `jax.jit`; shapes may have shardings in place of arrays."""
    return self._jitted.lower(*arguments, self._shardings(arguments))

  def __getattr__(self, name: str) -> Any:
    if name == "_jitted":  # a copy in the making has no attributes yet
      raise AttributeError(name)
    return getattr(self._jitted, name)

  def _shardings(self, arguments: Any) -> tuple[NamedSharding, ...] | None:
    leaves = jax.tree.leaves(arguments[: self._placed])
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
      return None
    return tuple(self._sharding(getattr(x, "sharding", None)) for x in leaves)

  def _divided(self, x: Any) -> Any:
    """An array of the batch as the step takes it; others `jax.jit` divides."""
    if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array):
      return x
    right = split_batch(self._mesh)
    divided = not x.committed or x.sharding.is_equivalent_to(right, x.ndim)
    return x if divided else jax.device_put(x, right)

  def _sharding(self, given: Any) -> NamedSharding:
    here = isinstance(given, NamedSharding) and given.mesh == self._mesh
    return given if here else replicated(self._mesh)


def constrained(tree: PyTree, shardings: PyTree) -> PyTree:
  """Keeps arrays where they lie, also in a group's own part of the program."""
  context = jax.sharding.get_abstract_mesh()
  inside = DATA_AXIS in context.manual_axes

  def keep(x: Any, sharding: NamedSharding) -> Any:
    if inside:
      spec = _without(DATA_AXIS, sharding).spec
      sharding = NamedSharding(context, spec)
    return jax.lax.with_sharding_constraint(x, sharding)

  return jax.tree.map(keep, tree, shardings)


def over_group(tree: PyTree, mesh: Mesh | None, axis: int) -> PyTree:
  """Lets the devices of a group share an axis of examples that they divide."""
  size = group_size(mesh)
  if mesh is None or size == 1:
    return tree
  at = NamedSharding(mesh, PartitionSpec(*[None] * axis, FSDP_AXIS))

  def share(x: Any) -> Any:
    return constrained(x, at) if x.shape[axis] % size == 0 else x

  return jax.tree.map(share, tree)


def gathering(forward: Forward, shardings: PyTree, mesh: Mesh) -> Forward:
  """The model, each pass of which gathers the parameters over "fsdp".

  Else the compiler would rather move activations. Gradients are divided again.
  """
  whole = jax.tree.map(functools.partial(_without, FSDP_AXIS), shardings)

  def gathered(
    params: PyTree,
    model_state: PyTree,
    inputs: Any,
    *,
    train: bool,
    key: jax.Array | None,
  ) -> tuple[Any, PyTree]:
    if train:  # of a micro-batch they may be the first, of one device
      inputs = over_group(inputs, mesh, axis=0)

    def run(params: PyTree, model_state: PyTree, inputs: Any) -> Any:
      moved = constrained(constrained(params, shardings), whole)
      return forward(moved, model_state, inputs, train=train, key=key)

    if train and _gathers_again(mesh):
      run = jax.checkpoint(run, policy=_is_no_move)
    return run(params, model_state, inputs)

  return gathered


def _gathers_again(mesh: Mesh) -> bool:
  """Whether the backward pass gathers anew, so that no device holds the whole.

  A CPU's compiler would keep what the first gathered all the same.
  """
  return mesh.devices.flat[0].platform != "cpu"


def _is_no_move(primitive: Any, *_: Any, **__: Any) -> bool:
  """Of what the forward pass computes, all is kept but what was gathered."""
  return primitive.name != "sharding_constraint"


def _without(axis: str, sharding: NamedSharding) -> NamedSharding:
  parts = [tuple(a for a in axes_of(p) if a != axis) for p in sharding.spec]
  spec = PartitionSpec(*[part or None for part in parts])
  return NamedSharding(sharding.mesh, spec)
