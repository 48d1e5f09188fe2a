"""Schedules of the perturbation radius, and their values."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from forgetsam._arrays import usual_promotion
from forgetsam._checks import check_rho, is_number
from forgetsam._typing import Scalar


def lr_proportional_rho(
  lr_schedule: optax.Schedule,
  rho_max: Scalar,
  rho_min: Scalar,
  lr_max: Scalar,
  lr_min: Scalar,
) -> optax.Schedule:
  r"""A radius that follows the learning rate.

  .. math:: \rho_t = \max\Bigl(0,\ \rho_{\min} + (\rho_{\max} - \rho_{\min})
     \frac{\eta_t - \eta_{\min}}{\eta_{\max} - \eta_{\min}}\Bigr)

  During a warm-up from below `lr_min` the radius is below `rho_min`.

  Args:
    lr_schedule: the learning rate :math:`\eta_t` of the update count.
    rho_max, rho_min: the radii at the learning rates lr_max and lr_min.
    lr_max, lr_min: the largest, and the smallest after warm-up.

  Raises:
    ValueError: lr_max equals lr_min, or a radius is negative.

  Example:
    >>> lr = optax.linear_schedule(1.0, 0.0, 10)
    >>> rho = lr_proportional_rho(lr, 0.2, 0.1, lr_max=1.0, lr_min=0.0)
    >>> round(float(rho(5)), 3)
    0.15

  References:
    Zhuang et al., *Surrogate Gap Minimization*, ICLR 2022, algorithm 1.
  """
  check_rho("rho_max", rho_max)
  check_rho("rho_min", rho_min)
  if is_number(lr_max) and is_number(lr_min) and lr_max == lr_min:
    raise ValueError(
      f"lr_max={lr_max} must differ from lr_min={lr_min}: a constant learning "
      "rate has no range to follow; pass rho as a float instead"
    )

  def schedule(count: Array | int) -> Float[Array, ""]:
    fraction = (lr_schedule(count) - lr_min) / (lr_max - lr_min)
    return jnp.maximum(0.0, fraction * (rho_max - rho_min) + rho_min)

  return schedule


def value_at(scalar_or_schedule: Any, count: Array) -> Any:
  """A hyper-parameter, or its schedule's value, at an update count."""
  if not callable(scalar_or_schedule):
    return scalar_or_schedule
  with usual_promotion():
    return scalar_or_schedule(count)
