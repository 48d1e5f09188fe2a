"""The data-parallel mesh: its axis, placement on it, averages over it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from forgetsam._arrays import is_float
from forgetsam._typing import PyTree

DATA_AXIS = "data"


def check_mesh(mesh: Mesh | None, *, shard: bool = False) -> None:
  """Refuses axes other than "data", of Auto, and sharding over no mesh."""
  if mesh is None:
    if shard:
      raise ValueError(
        "shard_opt_state=True is given without mesh: pass the mesh to shard "
        "over, or leave it out on one device"
      )
    return
  right = (
    f"it must have the one axis {DATA_AXIS!r}, of type Auto, as in "
    "jax.make_mesh((jax.device_count(),), ('data',), "
    "axis_types=(jax.sharding.AxisType.Auto,))"
  )
  if mesh.axis_names != (DATA_AXIS,):
    raise ValueError(f"mesh has the axes {mesh.axis_names}: {right}")
  if any(kind != AxisType.Auto for kind in mesh.axis_types):
    raise ValueError(f"mesh has axes of type {mesh.axis_types}: {right}")


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
  """Every device holds its consecutive share of the leading axis."""
  return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def spread(mesh: Mesh, tree: PyTree) -> PyTree:
  """Cuts each array along its longest axis that the devices divide, if any."""

  def cut(x: Any) -> NamedSharding:
    fits = [i for i, n in enumerate(x.shape) if n and n % mesh.size == 0]
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) or not fits:
      return replicated(mesh)
    axis = max(fits, key=lambda i: x.shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))

  return jax.tree.map(cut, tree)


def place(tree: PyTree, shardings: PyTree) -> PyTree:
  """Places arrays, the same ones in every process, in buffers of their own."""
  if all(s.is_fully_addressable for s in jax.tree.leaves(shardings)):
    return jax.device_put(tree, shardings)
  copies = jax.jit(
    lambda arrays: jax.tree.map(jnp.copy, arrays), out_shardings=shardings
  )
  return copies(tree)


def varying(tree: PyTree) -> PyTree:
  """Marks replicated arrays as each device's own, inside `shard_map`.

  A gradient with respect to a *replicated* array is silently summed over
  devices: a perturbation per device would be wrong.
  """

  def mark(x: Array) -> Array:
    return x if _varies(x) else jax.lax.pcast(x, DATA_AXIS, to="varying")

  return jax.tree.map(mark, tree)


def varying_floats(tree: PyTree) -> PyTree:
  return jax.tree.map(lambda x: varying(x) if is_float(x) else x, tree)


def average_over_devices(tree: PyTree) -> PyTree:
  """The devices' mean of floating-point arrays that differ, in one collective.

  Integers and keys that are marked as differing (they agree in value) are taken
  from the first device.
  """
  return _over_devices(tree, jax.lax.pmean, lambda: 0)


def sum_over_devices(tree: PyTree, counts: Array) -> PyTree:
  """As `average_over_devices`, but for sums, and the first device that counts.

  That has integers and keys which one without any weight lacks.
  """
  none = jax.lax.axis_size(DATA_AXIS)
  here = jnp.where(counts, jax.lax.axis_index(DATA_AXIS), none)
  first = lambda: jax.lax.pmin(here, DATA_AXIS)  # noqa: E731
  return _over_devices(tree, jax.lax.psum, first)


def _over_devices(
  tree: PyTree,
  reduce: Callable[..., Any],
  first: Callable[[], int | Array],
) -> PyTree:
  leaves, structure = jax.tree.flatten(tree)
  floats = [x for x in leaves if _varies(x) and is_float(x)]
  reduced = iter(reduce(floats, DATA_AXIS))

  def one(x: Array) -> Array:
    if not _varies(x):
      return x
    return next(reduced) if is_float(x) else _from_device(x, first())

  return jax.tree.unflatten(structure, [one(x) for x in leaves])


def _varies(x: Array) -> bool:
  kind = jax.typeof(x)
  # JAX has renamed this field between releases.
  varying_axes = kind.mat.varying if hasattr(kind, "mat") else kind.vma
  return DATA_AXIS in varying_axes


def _from_device(x: Array, device: int | Array) -> Array:
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    data = _from_device(jax.random.key_data(x), device)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
  if x.dtype == jnp.bool_:
    return _from_device(x.astype(jnp.int32), device).astype(jnp.bool_)
  mine = jax.lax.axis_index(DATA_AXIS) == device
  return jax.lax.psum(jnp.where(mine, x, jnp.zeros_like(x)), DATA_AXIS)
