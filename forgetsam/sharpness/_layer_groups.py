"""The same questions about one group of layers at a time."""

from typing import Any

import jax
import jax.numpy as jnp

from forgetsam._checks import check_count
from forgetsam._typing import PyTree
from forgetsam.sharpness._dataset_loss import DatasetLoss


def layer_groups(params: PyTree, depth: int = 1) -> dict[str, PyTree]:
  """Masks that split the parameters by module.

  Args:
    params: the model's parameters.
    depth: how many levels of the tree name a group; 1 takes the top-level
      modules.

  Returns:
    For each group's name, in the tree's order, a tree of booleans with params'
    structure; every array is in one group.

  Raises:
    ValueError: depth is below 1.

  Example:
    >>> import jax.numpy as jnp
    >>> params = {"body": {"kernel": jnp.ones(3)}, "head": jnp.ones(2)}
    >>> layer_groups(params)["head"]
    {'body': {'kernel': False}, 'head': True}
  """
  check_count("depth", depth)

  def name(path: tuple) -> str:
    return jax.tree_util.keystr(path[:depth], simple=True, separator="/")

  names = jax.tree_util.tree_map_with_path(lambda path, _: name(path), params)
  return {
    group: jax.tree.map(lambda n, g=group: n == g, names)
    for group in dict.fromkeys(jax.tree.leaves(names))
  }


def restrict(
  loss: DatasetLoss, params: PyTree, mask: PyTree
) -> tuple[DatasetLoss, PyTree]:
  """A loss as a function of the chosen arrays, the others held at params.

  Its Hessian is the group's diagonal block.

  Args:
    loss: as `dataset_loss` builds it.
    params: the model's parameters.
    mask: booleans with params' structure, such as one of `layer_groups`.

  Returns:
    The restricted loss, and the chosen arrays: params with `None` in place of
    the others.

  Raises:
    ValueError: the mask chooses nothing, or has another structure.

  Example:
    >>> import forgetsam as fs, jax.numpy as jnp
    >>> from forgetsam.sharpness import dataset_loss, gradient_norm
    >>> forward = lambda p, s, x, **_: (x @ p["kernel"] + p["bias"], s)
    >>> batches = [{"image": jnp.eye(2), "label": jnp.array([0, 0])}]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    >>> bias, chosen = restrict(loss, params, layer_groups(params)["bias"])
    >>> chosen
    {'bias': Array([0., 0.], dtype=float32), 'kernel': None}
    >>> round(float(gradient_norm(bias, chosen)), 4)  # (-1/2, 1/2)
    0.7071
  """
  found: Any = jax.tree.structure(mask)
  wanted: Any = jax.tree.structure(params)
  if found != wanted:
    raise ValueError(
      f"mask has the structure {found}: it must be that of params, {wanted}"
    )
  if not any(jax.tree.leaves(mask)):
    raise ValueError("mask must choose at least one array")
  zeros = jax.tree.map(jnp.zeros_like, params)

  def choose(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda keep, x: x if keep else None, mask, tree)

  def fill(chosen: PyTree, others: PyTree) -> PyTree:
    pick = lambda keep, x, other: x if keep else other  # noqa: E731
    return jax.tree.map(pick, mask, chosen, others)

  def restricted(whole: DatasetLoss) -> DatasetLoss:
    def value_and_gradient(chosen: PyTree) -> tuple[jax.Array, PyTree]:
      value, gradient = whole.value_and_gradient(fill(chosen, params))
      return value, choose(gradient)

    return DatasetLoss(
      value=lambda chosen: whole.value(fill(chosen, params)),
      value_and_gradient=value_and_gradient,
      hessian_vector_product=lambda chosen, v: choose(
        whole.hessian_vector_product(fill(chosen, params), fill(v, zeros))
      ),
      gauss_newton_vector_product=lambda chosen, v: choose(
        whole.gauss_newton_vector_product(fill(chosen, params), fill(v, zeros))
      ),
      num_examples=whole.num_examples,
      parts=tuple(restricted(part) for part in whole.parts),
    )

  return restricted(loss), choose(params)
