"""Friendly SAM: ascending what is peculiar to the current batch."""

from typing import Any

import jax
import optax

from forgetsam._arrays import at_least_float32
from forgetsam._checks import check_number
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations import (
  MovingAverageState,
  moving_average,
  scale_to_radius,
)


def friendly_sam(
  rho: optax.ScalarOrSchedule, sigma: Scalar = 1.0, decay: Scalar = 0.9
) -> optax.GradientTransformationExtraArgs:
  r"""F-SAM's perturbation: along the gradient without its moving average.

  .. math:: d_t = g_t - \sigma\, m_{t-1}, \qquad
     \delta_t = \rho_t\, d_t / \lVert d_t \rVert_2, \qquad
     m_t = \lambda\, m_{t-1} + (1 - \lambda)\, g_t

  where the average stands for the gradient of the whole training set. The first
  update is SAM's, and its gradient starts the average. With micro-batches, each
  gradient is taken without the common average of the whole batch's gradients.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.
    sigma: :math:`\sigma`, how much of the average is taken off; 0 is `sam`.
    decay: :math:`\lambda` in [0, 1), of the average.

  Raises:
    ValueError: rho is negative or nan, sigma is not finite, or decay is outside
      [0, 1).

  Example:
    >>> import jax.numpy as jnp
    >>> perturbation = friendly_sam(rho=1.0)
    >>> state = perturbation.init(jnp.zeros(2))
    >>> first, state = perturbation.update(jnp.array([3.0, 4.0]), state)
    >>> second, state = perturbation.update(jnp.array([3.0, 6.0]), state)
    >>> [round(float(d), 4) for d in (*first, *second)]
    [0.6, 0.8, 0.0, 1.0]

  References:
    Li et al., *Friendly SAM*, CVPR 2024. Order and start are the official
    code's; the paper subtracts :math:`m_t`: for sigma = 1 the same direction.
  """
  check_number("sigma", sigma)

  average = moving_average(decay)

  def update_fn(
    updates: PyTree, state: MovingAverageState, *rest: Any, **extra: Any
  ) -> tuple[PyTree, MovingAverageState]:
    direction = jax.tree.map(
      lambda g, m: (at_least_float32(g) - sigma * m).astype(g.dtype),
      updates,
      state.mean,
    )
    return direction, average.update(updates, state)[1]

  without_mean = optax.GradientTransformationExtraArgs(average.init, update_fn)
  return optax.chain(without_mean, scale_to_radius(rho))
