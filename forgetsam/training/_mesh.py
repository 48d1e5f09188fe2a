"""The mesh: its axes, placement on it, averages over "data"."""

from collections.abc import Callable
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from forgetsam._arrays import is_float
from forgetsam._typing import PyTree

DATA_AXIS = "data"
# Its devices divide parameters, and the examples of each micro-batch.
FSDP_AXIS = "fsdp"


def check_mesh(mesh: Mesh | None, *, shard: bool = False) -> None:
  """Refuses meshes without "data", axes not of Auto, sharding over no mesh."""
  if mesh is None:
    if shard:
      raise ValueError(
        "shard_opt_state=True is given without mesh: pass the mesh to shard "
        "over, or leave it out on one device"
      )
    return
  right = (
    f"it must have the axis {DATA_AXIS!r}, of type Auto as all others, as in "
    "jax.make_mesh((jax.device_count(),), ('data',), "
    "axis_types=(jax.sharding.AxisType.Auto,))"
  )
  if DATA_AXIS not in mesh.axis_names:
    raise ValueError(f"mesh has the axes {mesh.axis_names}: {right}")
  if any(kind != AxisType.Auto for kind in mesh.axis_types):
    raise ValueError(f"mesh has axes of type {mesh.axis_types}: {right}")


def has_more_axes(mesh: Mesh | None) -> TypeGuard[Mesh]:
  """Whether the compiler, too, divides arrays, over axes besides "data"."""
  return mesh is not None and mesh.axis_names != (DATA_AXIS,)


def group_size(mesh: Mesh | None) -> int:
  """The devices that share each micro-batch's examples."""
  return 1 if mesh is None else mesh.shape.get(FSDP_AXIS, 1)


def batch_shards(mesh: Mesh | None) -> int:
  """The parts that a batch is split into."""
  return 1 if mesh is None else mesh.shape[DATA_AXIS] * group_size(mesh)


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
  """Every device holds its consecutive share of the leading axis.

  Devices along other axes than "data" and "fsdp" hold the same.
  """
  both = (DATA_AXIS, FSDP_AXIS) if FSDP_AXIS in mesh.axis_names else DATA_AXIS
  return NamedSharding(mesh, PartitionSpec(both))


def axes_of(part: Any) -> tuple[str, ...]:
  """The mesh's axes that one entry of a `PartitionSpec` names."""
  if part is None:
    return ()
  return part if isinstance(part, tuple) else (part,)


def divided(
  x: Any, mesh: Mesh, spec: PartitionSpec, axis: str
) -> PartitionSpec:
  """Lets one more axis divide an array's longest that is free and divisible."""
  parts = [*spec, *[None] * (len(x.shape) - len(spec))]
  count = mesh.shape.get(axis)
  fits = [i for i, n in enumerate(x.shape) if not parts[i] and n]
  fits = [i for i in fits if count and x.shape[i] % count == 0]
  is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  if is_key or not fits or axis in [a for p in parts for a in axes_of(p)]:
    return spec
  longest = max(fits, key=lambda i: x.shape[i])
  last = max([longest + 1, len(spec)])
  parts[longest] = axis
  return PartitionSpec(*parts[:last])


def spread(mesh: Mesh, tree: PyTree) -> PyTree:
  """Cuts each array along its longest axis that the devices divide, if any."""

  def cut(x: Any) -> NamedSharding:
    return NamedSharding(mesh, divided(x, mesh, PartitionSpec(), DATA_AXIS))

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
