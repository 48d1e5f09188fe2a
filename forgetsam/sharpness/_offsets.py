"""Offsets of the weights within a ball, from the project's perturbations."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from forgetsam._arrays import at_least_float32, tree_norm
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations import (
  asam,
  random_perturbation,
  sam,
  scale_by_magnitude,
)


@functools.partial(jax.jit, static_argnames="adaptive")
def ascent_offset(
  gradient: PyTree, params: PyTree, radius: Scalar, *, adaptive: bool
) -> PyTree:
  """The offset that raises the loss most to first order, on the sphere."""
  perturbation = asam(radius) if adaptive else sam(radius)
  return _first_update(perturbation, gradient, params)


@functools.partial(jax.jit, static_argnames="adaptive")
def random_offset(
  key: jax.Array, params: PyTree, radius: Scalar, *, adaptive: bool
) -> PyTree:
  """An offset that is uniform on the sphere (adaptive: before |w|)."""
  wide = jax.tree.map(at_least_float32, params)
  perturbation = random_perturbation(radius, jax.random.bits(key))
  if adaptive:
    perturbation = optax.chain(perturbation, scale_by_magnitude())
  return _first_update(perturbation, wide, wide)


@functools.partial(jax.jit, static_argnames="adaptive")
def project(
  delta: PyTree, params: PyTree, radius: Scalar, *, adaptive: bool
) -> PyTree:
  """The nearest offset in the ball (adaptive: nearest in units of |w|)."""
  norm = ball_norm(delta, params, adaptive=adaptive)
  shrink = jnp.where(norm > radius, radius / norm, 1.0)
  return jax.tree.map(lambda d: shrink * d, delta)


def ball_norm(
  delta: PyTree, params: PyTree, *, adaptive: bool
) -> Float[Array, ""]:
  r""":math:`\lVert\delta\rVert`, or :math:`\lVert\delta / |w|\rVert`."""
  if not adaptive:
    return tree_norm(delta)

  def relative(d: Array, w: Array) -> Array:
    magnitude = jnp.abs(at_least_float32(w))
    # Adaptive offsets are zero where the weight is.
    return jnp.where(
      magnitude > 0, d / jnp.where(magnitude > 0, magnitude, 1), 0
    )

  return tree_norm(jax.tree.map(relative, delta, params))


def _first_update(
  perturbation: optax.GradientTransformation, gradient: PyTree, params: PyTree
) -> PyTree:
  return perturbation.update(gradient, perturbation.init(params), params)[0]
