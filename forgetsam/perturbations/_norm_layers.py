"""The mask of normalisation layers, for SAM-ON."""

from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from forgetsam._typing import PyTree

_Path = tuple[str, ...]


def norm_layers(params: PyTree, names: Collection[str] | None = None) -> PyTree:
  """The mask of normalisation layers, for `only`: a pytree of booleans.

  `only(sam(rho), norm_layers)` is SAM-ON. Arrays are of one layer where their
  names differ in the last part alone; names are paths of containers, or keys
  such as "block.norm.weight" and "block/norm/gamma". A layer normalises where

  - it has an array called `scale`, as in Flax Linen and NNX,
  - or a `weight` or `gamma` of the shape of its `bias` or `beta`, as in
    Equinox, Keras and PyTorch,
  - or one with one axis and no bias, in a layer called *norm*, as in RMSNorm.

  Args:
    params: a pytree of arrays, or of their shapes, with names.
    names: what to choose instead: layers, or arrays, by any part of their
      names, as in `functools.partial(norm_layers, names=("bn1", "bn2"))`.

  Raises:
    ValueError: there is no such layer, or nothing of one of the names.

  Example:
    >>> norm_layers({"dense": {"kernel": 1.0}, "norm": {"scale": 1.0}})
    {'dense': {'kernel': False}, 'norm': {'scale': True}}

  References:
    Mueller et al., *Normalization Layers Are All That SAM Needs*, NeurIPS 2023.
  """
  if names is not None:
    return _by_name(params, {names} if isinstance(names, str) else set(names))
  layers: dict[_Path, dict[str, Any]] = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    *layer, name = _words(path)
    layers.setdefault(tuple(layer), {})[name] = leaf
  chosen = {path for path in layers if _normalises(path, layers[path])}
  if not chosen:
    raise ValueError(
      "norm_layers found no array named 'scale' in params, nor a weight with "
      f"the shape of its bias, {_only_others(params)}"
    )
  return jax.tree_util.tree_map_with_path(
    lambda path, _: tuple(_words(path)[:-1]) in chosen, params
  )


def _by_name(params: PyTree, names: set[str]) -> PyTree:
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  absent = names.difference(*map(_words, paths))
  if absent or not names:
    raise ValueError(
      f"norm_layers with names={sorted(names)} found no "
      f"{' or '.join(sorted(absent))} in params, {_only_others(params)}"
    )
  return jax.tree_util.tree_map_with_path(
    lambda path, _: not names.isdisjoint(_words(path)), params
  )


def _words(path: tuple[Any, ...]) -> list[str]:
  # NNX has each array as the `value` of a variable.
  if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
    path = path[:-1]
  joined = jax.tree_util.keystr(path, simple=True, separator="/")
  return joined.replace(".", "/").split("/")


def _normalises(path: _Path, arrays: dict[str, Any]) -> bool:
  if "scale" in arrays:
    return True
  shapes = {name: np.shape(x) for name, x in arrays.items()}
  scale = shapes.get("weight", shapes.get("gamma"))
  shift = shapes.get("bias", shapes.get("beta"))
  if scale is None or shift is not None:
    return scale is not None and scale == shift
  return len(scale) == 1 and bool(path) and "norm" in path[-1].lower()


def _only_others(params: PyTree) -> str:
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  found = ", ".join(sorted(map(jax.tree_util.keystr, paths)))
  return (
    f"only {found}: name the layers, functools.partial(norm_layers, "
    "names=(...)), or pass only a mask of your own"
  )
