"""Fisher SAM: a neighbourhood in the Fisher metric."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from forgetsam._arrays import at_least_float32, cast_like, on_parts
from forgetsam._checks import check_number
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations import scale_to_radius


def fisher_sam(
  rho: optax.ScalarOrSchedule, eta: Scalar = 1.0
) -> optax.GradientTransformationExtraArgs:
  r"""Fisher SAM's perturbation: within an ellipsoid of the Fisher information.

  .. math:: f = 1 / (1 + \eta\, g^2), \qquad
     \delta = \rho_t \frac{f g}{\sqrt{\sum_i f_i g_i^2}}

  elementwise, with the micro-batch's squared mean gradient in place of the
  Fisher information's diagonal. Eta 0 is `sam`.

  Args:
    rho: radius, in that metric (:math:`\gamma` in the paper); a float, at least
      0, or a schedule of the update count.
    eta: weight of the Fisher information, at least 0.

  Raises:
    ValueError: rho or eta is negative or nan.

  Example:
    >>> perturbation, g = fisher_sam(rho=1.0), jnp.array([1.0, 0.0])
    >>> delta, _ = perturbation.update(g, perturbation.init(g))
    >>> [round(float(d), 4) for d in delta]  # f = (1/2, 1)
    [0.7071, 0.0]

  References:
    Kim et al., *Fisher SAM: Information Geometry and Sharpness Aware
    Minimisation*, ICML 2022, eq. (9). No official code is public.
  """
  check_number("eta", eta, low=0)
  radius = scale_to_radius(rho)

  def update_fn(
    updates: PyTree, state: Any, params: object = None, **extra: Any
  ) -> tuple[PyTree, Any]:
    def root(x: Any, g: Any) -> Any:
      """`sqrt(f) x`, where the square of g may leave the range."""
      weight = jnp.sqrt(jnp.asarray(eta)).astype(g.dtype)
      return x / jnp.hypot(jnp.ones_like(g), weight * g)

    def scale(x: PyTree, g: PyTree) -> PyTree:
      return jax.tree.map(lambda x, g: on_parts(root, x, g), x, g)

    wide = jax.tree.map(at_least_float32, updates)
    delta, state = radius.update(scale(wide, wide), state)
    return cast_like(scale(delta, wide), updates), state

  return optax.GradientTransformationExtraArgs(radius.init, update_fn)
