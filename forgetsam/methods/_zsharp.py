"""ZSharp: along the entries of the gradient that stand out of their layer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, to_length
from forgetsam._checks import check_number, check_real
from forgetsam._schedules import value_at
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations import RadiusState, scale_to_radius


def z_score_filter(
  percentile: Scalar = 0.95,
) -> optax.GradientTransformationExtraArgs:
  r"""Keeps the entries of each array whose z-scores are the largest.

  .. math:: g_i \mapsto g_i\, \bigl[\lvert z_i \rvert >
     Q_p(\lvert z \rvert)\bigr], \qquad z = (g - \mu) / \sigma

  with the mean :math:`\mu`, the deviation :math:`\sigma` (which cancels) and
  the quantile :math:`Q_p` of each array. Those with fewer than two axes, such
  as biases, are kept whole.

  Args:
    percentile: p in [0, 1]: about 1 - p of the entries are kept.

  Raises:
    ValueError: percentile is outside [0, 1]; `update` with complex arrays.

  Example:
    >>> transform = z_score_filter(percentile=0.5)
    >>> g = jnp.array([[3.0, 0.1], [0.2, -4.0]])
    >>> print(transform.update(g, transform.init(g))[0])
    [[ 3.  0.]
     [ 0. -4.]]

  References:
    Yun, *Sharpness-Aware Minimization with Z-Score Gradient Filtering*, 2025.
  """
  check_number("percentile", percentile, low=0, high=1)

  def keep(g: Array) -> Array:
    if g.ndim < 2 or g.size == 0:
      return g
    wide = at_least_float32(g)
    score = jnp.abs(wide - jnp.broadcast_to(jnp.mean(wide), g.shape))
    # Above the quantile is above the last score at or below it.
    place = jnp.asarray(percentile, score.dtype) * (g.size - 1)
    # Rounded: of arrays beyond float32's integers it may be their size.
    place = jnp.clip(place.astype(jnp.int32), 0, g.size - 1)
    least = _in_order(score, place)
    # Not greater than it: nan stays, for others to see.
    below = score <= jnp.broadcast_to(least, g.shape)
    return jnp.where(below, jnp.zeros_like(g), g)

  def keep_all(updates: PyTree, params: PyTree | None) -> PyTree:
    check_real("z_score_filter", updates)
    return jax.tree.map(keep, updates)

  return optax.with_extra_args_support(optax.stateless(keep_all))


def _in_order(scores: Array, place: Array) -> Array:
  """The score at a place, counted from 0, in ascending order; none is negative.

  By counting, bit for bit: a sort takes tens of times as long on CPU, and would
  gather an array that is in shards.
  """
  # Numbers from 0 up are in the order of their bits.
  size = 8 * scores.dtype.itemsize
  bits = jax.lax.bitcast_convert_type(scores, f"uint{size}")

  def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = bounds
    middle = low + (high - low) // 2
    below = jnp.sum(bits <= middle, dtype=jnp.int32)
    found = below > place
    return jnp.where(found, low, middle + 1), jnp.where(found, middle, high)

  found, _ = jax.lax.fori_loop(0, size, halve, (jnp.min(bits), jnp.max(bits)))
  return jax.lax.bitcast_convert_type(found, scores.dtype)


def zsharp(
  rho: optax.ScalarOrSchedule,
  percentile: Scalar = 0.95,
  per_array: bool = False,
) -> optax.GradientTransformationExtraArgs:
  r"""ZSharp's perturbation: along the entries that stand out of their layer.

  .. math:: \delta = \rho_t\, f / \lVert f \rVert_2

  with f the entries of the gradient that `z_score_filter` keeps.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.
    percentile: p of the filter; the paper takes 0.95.
    per_array: whether the radius is that of each array with two axes or more,
      and the others' offsets are :math:`\rho\, g / \lVert g \rVert` with the
      norm of the whole gradient, as in the official code.

  Raises:
    ValueError: rho is negative or nan, or percentile is outside [0, 1].

  Example:
    >>> perturbation = zsharp(rho=1.0, percentile=0.5)
    >>> g = jnp.array([[3.0, 0.1], [0.2, -4.0]])
    >>> print(perturbation.update(g, perturbation.init(g))[0])
    [[ 0.6  0. ]
     [ 0.  -0.8]]

  References:
    Yun, *Sharpness-Aware Minimization with Z-Score Gradient Filtering*, 2025.
  """
  filtered, whole = z_score_filter(percentile), scale_to_radius(rho)
  if not per_array:
    return optax.chain(filtered, whole)

  def update_fn(
    updates: PyTree, state: RadiusState, params: object = None, **extra: object
  ) -> tuple[PyTree, RadiusState]:
    radius = value_at(rho, state.count)
    kept, _ = filtered.update(updates, optax.EmptyState())
    shares, state = whole.update(updates, state)

    def choose(f: Array, share: Array) -> Array:
      return to_length(f, radius).astype(f.dtype) if f.ndim > 1 else share

    return jax.tree.map(choose, kept, shares), state

  return optax.GradientTransformationExtraArgs(whole.init, update_fn)
