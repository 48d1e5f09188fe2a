"""ASAM: perturbations in proportion to the weights' magnitude."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, on_parts, tree_norm
from forgetsam._checks import check_choice, check_number, check_params
from forgetsam._combination import Leaf
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations._only import Mask, resolve_mask
from forgetsam.perturbations._sam import scale_to_radius


def scale_by_magnitude(
  eta: Scalar = 0.0, layerwise: bool = False
) -> optax.GradientTransformationExtraArgs:
  r"""Multiplies by the weights' magnitude; needs `params`.

  .. math:: g \mapsto (\lvert w \rvert + \eta) \odot g, \qquad
     \text{layerwise:}\ g_l \mapsto (1 + \eta) \lVert w_l \rVert_2\, g_l

  Args:
    eta: what is added to the magnitude, in units of the weights (layerwise: of
      an array's norm), at least 0.
    layerwise: whether an array's entries share one magnitude, its norm.

  Raises:
    ValueError: eta is negative or nan; `update` without params, or elementwise
      with complex ones, whose `|w|` could be that of the number or of each
      part.

  Example:
    >>> transform = scale_by_magnitude(eta=1.0)
    >>> w = jnp.array([-2.0, 0.0])
    >>> transform.update(jnp.array([1.0, 1.0]), transform.init(w), w)[0]
    Array([3., 1.], dtype=float32)

  References:
    Kwon et al., *ASAM*, ICML 2021, section 3. Layerwise: Mueller et al.,
    *Normalization Layers Are All That SAM Needs*, NeurIPS 2023.
  """
  check_number("eta", eta, low=0)

  def scale(g: Leaf, w: Array) -> Leaf:
    if layerwise:
      norm = (1 + eta) * tree_norm(w)
      by_norm = lambda x: norm.astype(x.dtype) * x  # noqa: E731
      return on_parts(by_norm, at_least_float32(g)).astype(g.dtype)
    if jnp.iscomplexobj(w):
      raise ValueError(
        f"scale_by_magnitude (of asam) is given params of {w.dtype}, whose |w| "
        "could be the number's or that of each part. For the parts, wrap it: "
        "optax.contrib.split_real_and_imaginary(asam(rho))"
      )
    magnitude = jnp.abs(at_least_float32(w)) + eta
    return (magnitude * at_least_float32(g)).astype(g.dtype)

  def scale_all(updates: PyTree, params: PyTree | None) -> PyTree:
    check_params("scale_by_magnitude", params)
    return jax.tree.map(scale, updates, params)

  return optax.with_extra_args_support(optax.stateless(scale_all))


def asam(
  rho: optax.ScalarOrSchedule,
  eta: Scalar = 0.0,
  magnitude: str = "both",
  layerwise: bool = False,
  norm: str = "l2",
  mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Adaptive SAM, in the forms in use; `T = |w| + eta`, elementwise.

  .. math::
     \text{before:}\ \delta = \rho \frac{T g}{\lVert T g \rVert}, \qquad
     \text{after:}\ \delta = \rho \frac{T g}{\lVert g \rVert}, \qquad
     \text{both:}\ \delta = \rho \frac{T^2 g}{\lVert T g \rVert}

  In the maximum norm, the last two are :math:`\rho\, T \operatorname{sign}(g)`.

  Args:
    rho: radius, as in `sam`; for "after" and "both" relative to the weights'
      magnitude, and so about ten times SAM's.
    eta: what is added to the weights' magnitude, at least 0.
    magnitude: where T multiplies, with respect to the normalisation: "before",
      "after", or "both", which is ASAM as published.
    layerwise: whether T is `(1 + eta) ||w_l||`, one number for each array.
    norm: "l2" or "linf", of the normalisation.
    mask: the arrays that T multiplies, as in `only`, but for masks that change;
      on the others T is 1, as on biases in the official code. `None` is all.

  Raises:
    ValueError: rho or eta is negative or nan, magnitude or norm is unknown, or
      the mask holds something other than booleans; `update` without params.

  Example:
    >>> perturbation, w = asam(rho=1.0), jnp.array([2.0, 1.0])
    >>> g = jnp.array([1.5, 4.0])  # |w| g = (3, 4)
    >>> perturbation.update(g, perturbation.init(w), w)[0]
    Array([1.2, 0.8], dtype=float32)

  References:
    Kwon et al., *ASAM*, ICML 2021, eq. (3);
    "before" and "after" are two of the official code of Vani et al., 2024.
    Layerwise, and in the maximum norm: Mueller et al., NeurIPS 2023.
  """
  radius = scale_to_radius(rho, norm=norm)
  scale = scale_by_magnitude(eta, layerwise)
  if mask is not None:
    scale = optax.masked(scale, functools.partial(resolve_mask, mask))
    scale = optax.with_extra_args_support(scale)
  chains = {
    "before": (scale, radius),
    "after": (radius, scale),
    "both": (scale, radius, scale),
  }
  check_choice("magnitude", magnitude, tuple(chains))
  return optax.chain(*chains[magnitude])
