"""Loaded weights for a model with another head or another image size."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import traverse_util

from forgetsam import models

Variables = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
_HEADS = (("params", "head"), ("params", "Head_0"))


class Adapted(NamedTuple):
  """Loaded variables that fit a model.

  Attributes:
    variables: "params" and, where the model has any, "batch_stats".
    changes: what was replaced or resized, one sentence each; empty where all
      was taken over as it is.
  """

  variables: Variables
  changes: tuple[str, ...]


def adapt(loaded: Variables, initial: Variables) -> Adapted:
  """Fits loaded variables to a model with another head or another image size.

  A head with another number of classes, or none, is replaced by the model's
  initial one; one with the same number is kept. Position embeddings for another
  number of patches are interpolated (both grids being square). Everything else
  must have the model's names and shapes.

  Args:
    loaded: variables of a model of the same kind, collections first.
    initial: the model's own variables, as `models.initialise` draws them:
      `{"params": params, **model_state}`.

  Returns:
    The variables, and a sentence for each change.

  Raises:
    ValueError: names or other shapes differ; the message lists them all.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> def variables(classes, seed):
    ...   module = models.create("mlp", classes, hidden=(4,))
    ...   key = jax.random.key(seed)
    ...   return {"params": models.initialise(module, key, (2, 2, 1))[0]}
    >>> adapted = adapt(variables(10, seed=0), variables(3, seed=1))
    >>> adapted.changes
    ('the head for 10 classes is replaced by a new one for 3',)
  """
  ours = traverse_util.flatten_dict(loaded)
  target = traverse_util.flatten_dict(initial)
  changes = []
  for path, leaf in list(ours.items()):
    wanted = target.get(path)
    if wanted is None or leaf.shape == wanted.shape:
      continue
    if path[:2] in _HEADS and leaf.shape[:-1] == wanted.shape[:-1]:
      ours[path] = wanted
      if path[-1] == "kernel":
        old, new = leaf.shape[-1], wanted.shape[-1]
        changes.append(
          f"the head for {old} classes is replaced by a new one for {new}"
        )
    elif path[-1] == "pos_embed" and leaf.shape[2:] == wanted.shape[2:]:
      old, new = _grid(leaf.shape[1]), _grid(wanted.shape[1])
      ours[path] = models.resize_positions(leaf, new, old)
      changes.append(
        f"the position embeddings are interpolated from {old} to {new} patches"
      )
  if not any(path[:2] in _HEADS for path in ours):
    head = {path: x for path, x in target.items() if path[:2] in _HEADS}
    ours |= head
    changes += ["there is no head, and a new one is taken"] if head else []
  check_shapes(_shapes(ours), _shapes(target), "the loaded model")
  return Adapted(traverse_util.unflatten_dict(ours), tuple(changes))


def _grid(tokens: int) -> tuple[int, int]:
  side = math.isqrt(tokens)
  if side * side != tokens:
    raise ValueError(
      f"pos_embed for {tokens} patches is not for a square image; interpolate "
      "it with models.resize_positions first."
    )
  return side, side


def _shapes(flat: dict[tuple[str, ...], Any]) -> dict[str, tuple[int, ...]]:
  return {"/".join(path): leaf.shape for path, leaf in flat.items()}


def check_shapes(given: Shapes, expected: Shapes, what: str) -> None:
  """Raises a ValueError that lists all names and shapes that differ."""
  missing = sorted(expected.keys() - given.keys())
  unexpected = sorted(given.keys() - expected.keys())
  mismatched = [
    f"{name} {tuple(given[name])} instead of {tuple(shape)}"
    for name, shape in sorted(expected.items())
    if name in given and tuple(given[name]) != tuple(shape)
  ]
  lists = {
    "missing": missing,
    "unexpected": unexpected,
    "of another shape": mismatched,
  }
  found = [
    f"{kind}: {', '.join(names)}" for kind, names in lists.items() if names
  ]
  if found:
    raise ValueError(f"{what} does not fit. " + "; ".join(found) + ".")
