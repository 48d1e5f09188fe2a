"""The loss over a plane through the weights."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float

from forgetsam._arrays import add_delta, tree_dot, tree_norm, unit
from forgetsam._typing import PyTree


def orthonormal(first: PyTree, second: PyTree) -> tuple[PyTree, PyTree]:
  r"""Two directions of length 1, at right angles, that span the same plane.

  .. math:: d_1 = a / \lVert a \rVert, \qquad
     d_2 \propto b - \langle b, d_1 \rangle\, d_1

  A picture along them has no distortion, and distances in it are distances of
  weights.

  Args:
    first: a; its direction is kept.
    second: b, a tree like a.

  Returns:
    Trees like params, in at least float32.

  Raises:
    ValueError: one is zero, or they point the same way.

  Example:
    >>> import jax.numpy as jnp
    >>> orthonormal(jnp.array([2.0, 0.0]), jnp.array([3.0, 3.0]))[1]
    Array([0., 1.], dtype=float32)
  """
  d1, d2 = unit(first), unit(second)
  for _ in range(2):  # once more, for what rounding left
    d2 = unit(add_delta(d2, d1, -tree_dot(d2, d1)))
  if not tree_norm(d1) * tree_norm(d2) > 0.5 or abs(tree_dot(d1, d2)) > 1e-3:
    raise ValueError(
      "first and second must be two different directions: one is zero, or "
      "they point the same way"
    )
  return d1, d2


def loss_surface(
  value: Callable[[PyTree], Array],
  params: PyTree,
  directions: tuple[PyTree, PyTree],
  grid: Float[Array | np.ndarray, " n"],
) -> Float[np.ndarray, "n n"]:
  r"""The loss on a grid in the plane of two directions.

  .. math:: S_{ij} = L(w + t_j d_1 + t_i d_2)

  The first direction runs along the columns, as a picture's horizontal axis.
  Directions are taken as given: :func:`orthonormal` makes them fit for a
  picture. The loss's ascent direction is its gradient; OBF's is the gradient
  of `dataset_loss(forward, pseudo_loss(output_bias_forgetting()), ...)`.

  Args:
    value: `params -> loss`, such as a `DatasetLoss`'s.
    params: w, the grid's origin.
    directions: d_1 and d_2, trees like params.
    grid: t, offsets along either direction, in units of its length.

  Returns:
    The losses.

  Example:
    >>> import jax.numpy as jnp
    >>> loss_surface(
    ...   lambda w: jnp.sum(w * jnp.array([1.0, 10.0])), jnp.zeros(2),
    ...   (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])), np.array([0.0, 1.0]),
    ... )
    array([[ 0.,  1.],
           [10., 11.]], dtype=float32)

  References:
    Li et al., *Visualizing the Loss Landscape of Neural Nets*, NeurIPS 2018.
  """
  first, second = directions
  rows = []
  for t2 in grid:
    row = add_delta(params, second, t2)
    rows.append([value(add_delta(row, first, t1)) for t1 in grid])
  return np.asarray(jax.device_get(rows))
