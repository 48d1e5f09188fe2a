"""From `config.optimizer.train_only` to the parameters that train."""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import config_dict

from forgetsam._arrays import path_matches, path_name
from forgetsam._typing import Forward, PyTree
from forgetsam.experiment.config import ConfigError, refusal


def build_trained(config: config_dict.ConfigDict) -> Callable[[PyTree], PyTree]:
  """Marks the parameters that train, by their paths.

  An expression matches a path such as `block0/attention/query/kernel` from its
  start, and to a slash or its end.

  Args:
    config: a checked configuration.

  Returns:
    A function from params to a tree of booleans of their structure. It raises a
    ConfigError where an expression matches nothing.
  """
  wanted = config.optimizer.train_only

  def trained(params: PyTree) -> PyTree:
    if wanted is None:
      return jax.tree.map(lambda _: True, params)
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [path_name(path) for path, _ in leaves]
    marks = [False] * len(paths)
    for expression in wanted.split(","):
      matches = [path_matches(expression, path) for path in paths]
      if not any(matches):
        allowed = (
          f"expressions that match a parameter each; {expression!r} matches "
          f"none of {', '.join(paths)}"
        )
        raise ConfigError(
          refusal("config.optimizer.train_only", wanted, allowed)
        )
      marks = [a or b for a, b in zip(marks, matches, strict=True)]
    return jax.tree.unflatten(structure, marks)

  return trained


def freeze_others(forward: Forward, config: config_dict.ConfigDict) -> Forward:
  """The model, without gradients of the parameters that do not train.

  Norms and products of gradients, as in clipping, GSAM and LookSAM, are then
  over the others alone, and the backward pass leaves out what only they need.
  """
  if config.optimizer.train_only is None:
    return forward
  trained = build_trained(config)

  def frozen(params: PyTree, *args: Any, **kwargs: Any) -> Any:
    marked = trained(params)
    params = jax.tree.map(
      lambda w, train: w if train else jax.lax.stop_gradient(w), params, marked
    )
    return forward(params, *args, **kwargs)

  return frozen
