"""The mask of normalisation layers, for perturbing nothing else."""

from typing import Any

import jax

from forgetsam._typing import PyTree


def norm_layers(params: PyTree) -> PyTree:
  r"""A mask that chooses normalisation layers, for `only`.

  It chooses the arrays of every layer that has one named `scale`: what Flax
  Linen and NNX call the scale of BatchNorm, LayerNorm, GroupNorm and RMSNorm,
  and of no other layer; its bias comes with it. `only(sam(rho), norm_layers)`
  is then SAM-ON, where the norm too runs over these layers. The ascent pass
  still costs a whole forward pass, and a backward one down to the first such
  layer.

  Args:
    params: nested dicts of arrays, or another pytree with named leaves.

  Returns:
    A pytree of booleans with params' structure.

  Raises:
    ValueError: no layer has a scale.

  Example:
    >>> norm_layers({"dense": {"kernel": 1.0}, "norm": {"scale": 1.0}})
    {'dense': {'kernel': False}, 'norm': {'scale': True}}

  References:
    Mueller et al., *Normalization Layers Are All That SAM Needs*, NeurIPS 2023.
  """
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  layers = {path[:-1] for path in paths if path and _name(path[-1]) == "scale"}
  if not layers:
    names = sorted({jax.tree_util.keystr(path) for path in paths})
    raise ValueError(
      "norm_layers found no array named 'scale' in params, only "
      f"{', '.join(names)}: pass only a mask of your own"
    )
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[:-1] in layers, params
  )


def _name(key: Any) -> Any:
  """The last part of a path, from a dict or from an object."""
  return getattr(key, "key", getattr(key, "name", None))
