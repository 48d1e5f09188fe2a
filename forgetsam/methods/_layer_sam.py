"""LayerSAM: an offset for each array, in proportion to its weights."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import to_length, tree_norm
from forgetsam._checks import check_number, check_params, check_rho
from forgetsam._combination import Leaf
from forgetsam._schedules import value_at
from forgetsam._typing import PyTree, Scalar
from forgetsam.methods._look_sam import look_sam
from forgetsam.perturbations import RadiusState


def layer_sam(
  rho: optax.ScalarOrSchedule,
  by_weights: bool = True,
  max_ratio: Scalar | None = 20.0,
) -> optax.GradientTransformationExtraArgs:
  r"""LayerSAM's perturbation: every array has a radius of its own.

  .. math:: \delta_l = \rho_t\, \Lambda_l\, \frac{g_l}{\lVert g \rVert}, \qquad
     \Lambda_l = \min\Bigl(\frac{\lVert w_l \rVert}{\lVert g_l \rVert}, 20\Bigr)

  for the arrays l, each a layer; without `by_weights`
  :math:`\delta_l = \rho_t\, g_l / \lVert g_l \rVert`. Arrays whose gradients,
  or (with `by_weights`) weights are zeros are not perturbed.

  The source is weak: the authors released no code, and of two public ones one
  has the first form, with the bound of 20, the other the second. Both are
  matched.

  Args:
    rho: a float, at least 0, or a schedule of the update count; without
      `by_weights` each array's radius, with it a factor of its weights' length.
    by_weights: whether offsets are in proportion to the weights' lengths.
    max_ratio: bound on :math:`\Lambda_l`, at least 0. With `None`, which has
      none, offsets grow without bound as the whole gradient vanishes.

  Raises:
    ValueError: rho is negative or nan, or max_ratio is negative; `update`
      without params.

  Example:
    >>> perturbation = layer_sam(rho=0.1)
    >>> w = {"a": jnp.array([2.0]), "b": jnp.array([5.0])}
    >>> g = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> delta, _ = perturbation.update(g, perturbation.init(w), w)
    >>> [round(float(d[0]), 3) for d in (delta["a"], delta["b"])]
    [0.04, 0.1]

  References:
    Liu et al., *Towards Efficient and Scalable SAM*, CVPR 2022, for
    `look_layer_sam`.
  """
  check_rho("rho", rho)
  if max_ratio is not None:
    check_number("max_ratio", max_ratio, low=0)

  def init_fn(params: PyTree) -> RadiusState:
    return RadiusState(jnp.zeros((), jnp.int32))

  def update_fn(
    updates: PyTree,
    state: RadiusState,
    params: PyTree | None = None,
    **extra: object,
  ) -> tuple[PyTree, RadiusState]:
    if by_weights:
      check_params("layer_sam", params)
    norm = tree_norm(updates)
    radius = jnp.asarray(value_at(rho, state.count)).astype(norm.dtype)
    divisor = jnp.where(norm == 0, 1, norm)

    def offset(g: Leaf, w: Array) -> Leaf:
      if not by_weights:
        return to_length(g, radius).astype(g.dtype)
      length = tree_norm(w).astype(norm.dtype)
      if max_ratio is not None:
        most = jnp.asarray(max_ratio).astype(norm.dtype)
        length = jnp.minimum(length, most * tree_norm(g).astype(norm.dtype))
      return to_length(g, radius * (length / divisor)).astype(g.dtype)

    weights = params if by_weights else updates
    delta = jax.tree.map(offset, updates, weights)
    return delta, RadiusState(optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def look_layer_sam(
  rho: optax.ScalarOrSchedule,
  k: int,
  alpha: Scalar,
  by_weights: bool = True,
  max_ratio: Scalar | None = 20.0,
) -> optax.GradientTransformationExtraArgs:
  r"""Look-LayerSAM: `look_sam` with `layer_sam`'s offsets.

  .. math:: \text{look\_sam}(\text{layer\_sam}(\rho, \ldots), k, \alpha)

  One pass, and two in every k-th step. The source is weak, as `layer_sam` says.

  Args:
    rho, by_weights, max_ratio: as in `layer_sam`.
    k, alpha: as in `look_sam`.

  Raises:
    ValueError: as in both.

  Example:
    >>> transform = look_layer_sam(rho=0.1, k=5, alpha=0.7)

  References:
    Liu et al., *Towards Efficient and Scalable SAM*, CVPR 2022.
  """
  return look_sam(layer_sam(rho, by_weights, max_ratio), k, alpha)
