"""GCSAM: along the gradient without what an output's weights share."""

import optax

from forgetsam.perturbations import centralize, scale_to_radius


def gc_sam(
  rho: optax.ScalarOrSchedule, axis: int = -1, full_norm: bool = False
) -> optax.GradientTransformationExtraArgs:
  r"""GCSAM's perturbation: a step along the centralized ascent gradient.

  .. math:: \delta = \rho_t\, c / \lVert c \rVert_2, \qquad c = g -
     \text{its mean over each output's weights}

  It is `chain(centralize(axis), scale_to_radius(rho))`. The paper centralizes
  the descent gradient, too: `chain(perturbed_gradient(gc_sam(rho)),
  centralize(axis), optimizer)`.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.
    axis: of outputs, as in `centralize`.
    full_norm: whether to divide by :math:`\lVert g \rVert` instead, so that the
      offset is shorter than rho, as in the code of pytorch_optimizer.

  Raises:
    ValueError: rho is negative or nan, or axis is refused by `centralize`.

  Example:
    >>> import jax.numpy as jnp
    >>> perturbation, g = gc_sam(rho=2.0), jnp.array([[1.0, 5.0], [3.0, 5.0]])
    >>> perturbation.update(g, perturbation.init(g))[0].round(3)
    Array([[-1.414,  0.   ],
           [ 1.414,  0.   ]], dtype=float32)

  References:
    Hassan et al., *GCSAM: Gradient Centralized Sharpness Aware Minimization*,
    2025. The authors' code could not be had.
  """
  pieces = [centralize(axis), scale_to_radius(rho)]
  return optax.chain(*(reversed(pieces) if full_norm else pieces))
