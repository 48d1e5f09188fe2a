"""Where the arrays of a training state lie on a mesh of several axes."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax.core import meta, spmd
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from forgetsam._arrays import path_matches, path_name
from forgetsam._typing import PyTree
from forgetsam.training._mesh import (
  DATA_AXIS,
  FSDP_AXIS,
  axes_of,
  check_mesh,
  divided,
)

Rules = Sequence[Any]  # pairs of an expression and a PartitionSpec


def param_shardings(
  params: PyTree, mesh: Mesh, rules: Rules = (), *, smallest: int = 0
) -> PyTree:
  """Chooses how each parameter is divided over a mesh.

  Tensor parallelism comes from the first rule that matches a parameter's path,
  else from the partitioning metadata that Flax modules give their parameters;
  Linen's logical names become axes by `flax.linen.logical_axis_rules`. Then
  "fsdp", where the mesh has it, divides the longest axis that is left and
  divisible. What neither divides lies whole on every device.

  Args:
    params: arrays, or `jax.ShapeDtypeStruct`, as `jax.eval_shape` makes them.
    mesh: a mesh with the axis "data", and others such as "fsdp" and "model".
    rules: pairs of a regular expression and a `PartitionSpec`. It matches a
      path such as `block0/mlp1/kernel` from its start, and to a slash or its
      end.
    smallest: the numbers that an array must have for "fsdp" to divide it.

  Returns:
    A `NamedSharding` for each parameter, in the structure of params without
    Linen's boxes.

  Raises:
    ValueError: a rule is no such pair, matches no parameter, or does not fit
      one that it matches; the mesh has no axis "data".

  Example:
    >>> mesh = jax.make_mesh(
    ...   (1, 1), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    ... )
    >>> tuple(param_shardings({"w": jax.numpy.ones((2, 4))}, mesh)["w"].spec)
    (None, 'fsdp')

  References:
    Rajbhandari et al., *ZeRO*, 2020 (stage 3), for "fsdp".
    Shoeybi et al., *Megatron-LM*, 2019, for rules of an axis "model".
  """
  check_mesh(mesh)
  named = _named_specs(params, mesh)
  leaves, structure = jax.tree_util.tree_flatten_with_path(unboxed(params))
  paths = [path_name(path) for path, _ in leaves]
  ruled = _ruled_specs(rules, paths)
  chosen = []
  for (_, x), path, name in zip(leaves, paths, named, strict=True):
    spec = ruled.get(path, name)
    _check_fits(f"params[{path!r}]", x, mesh, spec)
    if x.size >= smallest:
      spec = divided(x, mesh, spec, FSDP_AXIS)
    chosen.append(NamedSharding(mesh, spec))
  return jax.tree.unflatten(structure, chosen)


def _ruled_specs(rules: Rules, paths: list[str]) -> dict[str, PartitionSpec]:
  specs: dict[str, PartitionSpec] = {}
  for rule in rules:
    kinds = [type(part) for part in rule] if isinstance(rule, tuple) else []
    if kinds != [str, PartitionSpec]:
      raise ValueError(
        f"rules have {rule!r}: each must be a pair of an expression for paths "
        "and a PartitionSpec, as ('mlp1/kernel', PartitionSpec(None, 'model'))"
      )
    expression, spec = rule
    matched = [path for path in paths if path_matches(expression, path)]
    if not matched:
      raise ValueError(
        f"rules have {expression!r}, which matches none of {', '.join(paths)}"
      )
    for path in matched:
      specs.setdefault(path, spec)
  return specs


def _named_specs(params: PyTree, mesh: Mesh) -> list[PartitionSpec]:
  """Axes of each array, as Flax's modules say them of their parameters."""
  specs = []
  for x in jax.tree.leaves(params, is_leaf=_has_metadata):
    names: Any = ()
    rules: Any = ()
    if hasattr(x, "get_metadata"):  # an NNX variable
      about = x.get_metadata()
      names, rules = about.get("out_sharding"), about.get("sharding_rules")
    elif meta.is_axis_metadata(x):
      names, rules = getattr(x, "names", ()), getattr(x, "rules", ())
    axes = dict([*(rules or ()), *spmd.get_logical_axis_rules()][::-1])
    parts: list[Any] = []
    for name in names or ():
      part = axes.get(name, name)
      # No axis twice, nor a name that this mesh does not have.
      used = [axis for other in parts for axis in axes_of(other)]
      known = [a for a in axes_of(part) if a in mesh.axis_names]
      parts.append(tuple(a for a in known if a not in used) or None)
    specs += [PartitionSpec(*parts)] * len(jax.tree.leaves(x))
  return specs


def _has_metadata(x: Any) -> bool:
  return meta.is_axis_metadata(x) or hasattr(x, "get_metadata")


def unboxed(params: PyTree) -> PyTree:
  """Params without the boxes in which Linen names their arrays' axes."""

  def take_out(x: Any) -> Any:
    return jax.tree.leaves(x)[0] if meta.is_axis_metadata(x) else x

  return jax.tree.map(take_out, params, is_leaf=meta.is_axis_metadata)


def as_shardings(shardings: PyTree, params: PyTree, mesh: Mesh) -> PyTree:
  """A checked `NamedSharding` for each parameter, of what a caller gives."""
  is_leaf = lambda x: isinstance(x, (PartitionSpec, NamedSharding))  # noqa: E731
  leaves, structure = jax.tree_util.tree_flatten_with_path(params)
  given = jax.tree.leaves(shardings, is_leaf=is_leaf)
  have: Any = jax.tree.structure(shardings, is_leaf=is_leaf)
  if have != structure:
    raise ValueError(
      "shardings must be a tree like params, of NamedSharding or PartitionSpec,"
      f" as param_shardings(params, mesh) makes it: {have} is not {structure}"
    )
  specs = []
  for (path, x), sharding in zip(leaves, given, strict=True):
    name = f"shardings {path_name(path)}"
    if not is_leaf(sharding):
      raise ValueError(
        f"{name} is {sharding!r}: it must be a NamedSharding or PartitionSpec"
      )
    if isinstance(sharding, NamedSharding):
      if sharding.mesh != mesh:
        raise ValueError(f"{name} is of another mesh than the one given")
      sharding = sharding.spec
    _check_fits(name, x, mesh, sharding)
    specs.append(NamedSharding(mesh, sharding))
  return jax.tree.unflatten(structure, specs)


def shardings_like(
  state: PyTree, params: PyTree, shardings: PyTree, mesh: Mesh
) -> PyTree:
  """Each array of a state lies as the parameter that it belongs to.

  It ends its path with the parameter's, and has its shape. Others, such as
  counts and factored moments, are divided by "fsdp" alone.
  """
  flat = jax.tree_util.tree_leaves_with_path(params)
  placed = zip(flat, jax.tree.leaves(shardings), strict=True)
  known = {(path, x.shape): at for (path, x), at in placed}

  def find(path: tuple[Any, ...], x: Any) -> NamedSharding:
    for start in range(len(path) + 1):
      if found := known.get((path[start:], x.shape)):
        return found
    return NamedSharding(mesh, divided(x, mesh, PartitionSpec(), FSDP_AXIS))

  return jax.tree_util.tree_map_with_path(find, state)


def divide_over_data(tree: PyTree, shardings: PyTree, mesh: Mesh) -> PyTree:
  """Divides arrays over "data" as well, along an axis that is left."""

  def divide(x: Any, at: NamedSharding) -> NamedSharding:
    return NamedSharding(mesh, divided(x, mesh, at.spec, DATA_AXIS))

  return jax.tree.map(divide, tree, shardings)


def _check_fits(name: str, x: Any, mesh: Mesh, spec: PartitionSpec) -> None:
  """Refuses a spec of other axes, of more of them, or that does not divide."""
  axes = [axis for part in spec for axis in axes_of(part)]
  problem = None
  if strange := [axis for axis in axes if axis not in mesh.axis_names]:
    problem = f"which names {strange[0]!r}, no axis of {mesh.axis_names}"
  elif len(axes) > len(set(axes)):
    problem = "which names an axis twice"
  elif len(spec) > x.ndim:
    problem = f"of more axes than its shape {x.shape}"
  else:
    for size, part in zip(x.shape, spec, strict=False):
      count = math.prod(mesh.shape[axis] for axis in axes_of(part))
      if size % count:
        problem = f"whose {count} devices must divide {size} of {x.shape}"
  if problem is not None:
    raise ValueError(f"{name} has {spec}, {problem}")
