"""A moving average of gradients, as a piece of perturbations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import at_least_float32, cast_like, is_zero, wide_zeros
from forgetsam._checks import check_number
from forgetsam._combination import Leaf
from forgetsam._typing import PyTree, Scalar


class MovingAverageState(NamedTuple):
  """State of `moving_average`; `mean` is in float32 or wider."""

  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  mean: PyTree


def moving_average(decay: Scalar) -> optax.GradientTransformationExtraArgs:
  r"""Replaces the gradient by its exponential moving average.

  .. math:: m_1 = g_1, \qquad m_t = \lambda\, m_{t-1} + (1 - \lambda)\, g_t

  The first gradient that is not zero starts it: there is no bias to correct.
  With micro-batches, each takes its own gradient into the common average, and
  the mean of these averages is the next common one.

  Args:
    decay: :math:`\lambda` in [0, 1).

  Raises:
    ValueError: decay is outside [0, 1).

  Example:
    >>> transform = moving_average(decay=0.5)
    >>> state = transform.init(jnp.zeros(1))
    >>> for g in (4.0, 0.0, 1.0):
    ...   mean, state = transform.update(jnp.array([g]), state)
    ...   print(mean)
    [4.]
    [2.]
    [1.5]
  """
  check_number("decay", decay, low=0, high=1, exclude_high=True)

  def init_fn(params: PyTree) -> MovingAverageState:
    return MovingAverageState(jnp.zeros((), jnp.int32), wide_zeros(params))

  def update_fn(
    updates: PyTree,
    state: MovingAverageState,
    params: object = None,
    **extra: object,
  ) -> tuple[PyTree, MovingAverageState]:
    # The first gradient is the first average: zeros would make it too short.
    # The count does not tell which that is: it goes on in idle steps.
    weight = jnp.where(is_zero(state.mean), 1.0, 1.0 - decay)

    def average(g: Leaf, m: Array) -> Leaf:
      step = weight.astype(m.dtype) * (at_least_float32(g) - m)
      return (m + step).astype(m.dtype)

    mean = jax.tree.map(average, updates, state.mean)
    count = optax.safe_increment(state.count)
    return cast_like(mean, updates), MovingAverageState(count, mean)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
