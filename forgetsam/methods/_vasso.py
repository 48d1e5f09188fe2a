"""VaSSO: ascending a moving average of gradients."""

import optax

from forgetsam._checks import check_number, is_number
from forgetsam._typing import Scalar
from forgetsam.perturbations import moving_average, scale_to_radius


def vasso(
  rho: optax.ScalarOrSchedule, theta: Scalar = 0.4, eps: Scalar = 0.0
) -> optax.GradientTransformationExtraArgs:
  r"""VaSSO's perturbation: along the gradients' moving average.

  .. math:: m_t = (1 - \theta)\, m_{t-1} + \theta\, g_t, \qquad
     \delta_t = \rho_t\, m_t / \lVert m_t \rVert_2

  which varies less from batch to batch than SAM's. The first gradient starts
  the average, as in the official code.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.
    theta: the current gradient's share of the average, in (0, 1]; 1 is `sam`.
    eps: added to the norm, as in `scale_to_radius`; the official code's is
      1e-7.

  Raises:
    ValueError: rho is negative or nan, or theta is outside (0, 1].

  Example:
    >>> import jax.numpy as jnp
    >>> perturbation = vasso(rho=1.0, theta=0.5)
    >>> state = perturbation.init(jnp.zeros(2))
    >>> for g in ([3.0, 0.0], [0.0, 4.0]):
    ...   delta, state = perturbation.update(jnp.array(g), state)
    ...   print(delta)
    [1. 0.]
    [0.6 0.8]

  References:
    Li & Giannakis, *Enhancing Sharpness-Aware Optimization Through Variance
    Suppression*, NeurIPS 2023, eq. (6).
  """
  check_number("theta", theta, low=0, high=1)
  if is_number(theta) and 1 - theta == 1:
    raise ValueError(f"theta={theta} must be above 0: no gradient would count")
  return optax.chain(moving_average(1 - theta), scale_to_radius(rho, eps))
