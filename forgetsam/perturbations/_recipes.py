"""The field's named perturbations, chained from the pieces."""

import optax
from jaxtyping import Array

from forgetsam._checks import check_choice
from forgetsam._typing import Scalar
from forgetsam.perturbations._magnitude import scale_by_magnitude
from forgetsam.perturbations._noise import gaussian_direction
from forgetsam.perturbations._radius import scale_to_radius


def sam(rho: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
  r"""SAM's perturbation: a step of length rho along the ascent gradient.

  .. math:: \delta = \rho_t\, g / \lVert g \rVert_2

  With the ascent signal `output_bias_forgetting()` instead of the loss, this
  is OBF's perturbation.

  Args:
    rho: perturbation radius, in units of the weights' Euclidean norm; a float,
      at least 0, or a schedule of the update count.

  Returns:
    A transformation from ascent gradients to offsets of the weights.

  Raises:
    ValueError: rho is negative or nan.

  Example:
    >>> import jax.numpy as jnp
    >>> perturbation, g = sam(rho=0.5), jnp.array([3.0, 4.0])
    >>> perturbation.update(g, perturbation.init(g))[0]
    Array([0.3, 0.4], dtype=float32)

  References:
    Foret et al., *Sharpness-Aware Minimization for Efficiently Improving
    Generalization*, ICLR 2021, eq. (2).
  """
  return scale_to_radius(rho)


def asam(
  rho: optax.ScalarOrSchedule,
  eta: Scalar = 0.0,
  magnitude: str = "both",
) -> optax.GradientTransformationExtraArgs:
  r"""Adaptive SAM, in the three forms in use; `T = |w| + eta`, elementwise.

  .. math::
     \text{before:}\ \delta = \rho \frac{T g}{\lVert T g \rVert}, \qquad
     \text{after:}\ \delta = \rho \frac{T g}{\lVert g \rVert}, \qquad
     \text{both:}\ \delta = \rho \frac{T^2 g}{\lVert T g \rVert}

  Args:
    rho: perturbation radius; a float, at least 0, or a schedule of the update
      count. For "after" and "both" it is relative to the weights' magnitude,
      and so about ten times SAM's.
    eta: what is added to the weights' magnitude, at least 0.
    magnitude: where the magnitude multiplies, with respect to the
      normalisation: "before", "after", or "both", which is ASAM as published.

  Returns:
    A transformation from ascent gradients to offsets; it needs `params`.

  Raises:
    ValueError: rho or eta is negative or nan, or magnitude is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> perturbation, w = asam(rho=1.0), jnp.array([2.0, 1.0])
    >>> g = jnp.array([1.5, 4.0])  # |w| g = (3, 4)
    >>> perturbation.update(g, perturbation.init(w), w)[0]
    Array([1.2, 0.8], dtype=float32)

  References:
    Kwon et al., *ASAM: Adaptive Sharpness-Aware Minimization for
    Scale-Invariant Learning of Deep Neural Networks*, ICML 2021, eq. (3);
    "before" and "after" are two of the official code of Vani et al., 2024.
  """
  check_choice("magnitude", magnitude, ("before", "after", "both"))
  scale = scale_by_magnitude(eta)
  pieces = [scale_to_radius(rho)]
  if magnitude in ("before", "both"):
    pieces.insert(0, scale)
  if magnitude in ("after", "both"):
    pieces.append(scale)
  return optax.chain(*pieces)


def random_perturbation(
  rho: optax.ScalarOrSchedule, seed: int | Array
) -> optax.GradientTransformationExtraArgs:
  r"""A Gaussian direction of length rho, fresh for step and micro-batch.

  .. math:: \delta = \rho_t\, \xi / \lVert \xi \rVert_2, \qquad
     \xi_i \sim \mathcal N(0, 1)

  It reads no ascent gradient, and a compiled step computes none.

  Args:
    rho: perturbation radius, in units of the weights' Euclidean norm; a float,
      at least 0, or a schedule of the update count.
    seed: of the noise.

  Returns:
    A transformation from (the shapes of) ascent gradients to offsets.

  Raises:
    ValueError: rho is negative or nan.

  Example:
    >>> import jax.numpy as jnp
    >>> perturbation, g = random_perturbation(0.5, seed=0), jnp.zeros(100)
    >>> delta, _ = perturbation.update(g, perturbation.init(g))
    >>> round(float(jnp.linalg.norm(delta)), 6)
    0.5
  """
  return optax.chain(gaussian_direction(seed), scale_to_radius(rho))
