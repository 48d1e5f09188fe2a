"""Schedules of the learning rate and of the radius, and their values."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from forgetsam._arrays import usual_promotion
from forgetsam._checks import check_number, check_rho, check_scalar, is_number
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
    value = scalar_or_schedule(count)
  check_scalar("the value of a schedule", value)
  return value


# Learning rates: a linear warm-up from zero, then what the name says.


def cosine(
  learning_rate: Scalar,
  min_learning_rate: Scalar,
  warmup_steps: int,
  num_steps: int,
) -> optax.Schedule:
  """Falls along half a cosine to the smallest learning rate."""
  rest = _rest(warmup_steps, num_steps)
  alpha = min_learning_rate / learning_rate
  decay = optax.cosine_decay_schedule(learning_rate, rest, alpha=alpha)
  return _after_warmup(decay, learning_rate, warmup_steps)


def linear(
  learning_rate: Scalar,
  min_learning_rate: Scalar,
  warmup_steps: int,
  num_steps: int,
) -> optax.Schedule:
  """Falls along a line to the smallest learning rate."""
  rest = _rest(warmup_steps, num_steps)
  decay = optax.linear_schedule(learning_rate, min_learning_rate, rest)
  return _after_warmup(decay, learning_rate, warmup_steps)


def constant(learning_rate: Scalar, warmup_steps: int) -> optax.Schedule:
  """Stays where the warm-up ends."""
  stays = optax.constant_schedule(learning_rate)
  return _after_warmup(stays, learning_rate, warmup_steps)


def wsd(
  learning_rate: Scalar,
  min_learning_rate: Scalar,
  warmup_steps: int,
  num_steps: int,
  decay_fraction: float = 0.1,
) -> optax.Schedule:
  """Warms up, stays, and falls along a line in the last part of training.

  Args:
    learning_rate: the peak.
    min_learning_rate: at the end.
    warmup_steps: of the linear warm-up from zero.
    num_steps: updates in the run.
    decay_fraction: of these, the part that decays, in (0, 1].

  Returns:
    The learning rate as a function of the update count.

  Raises:
    ValueError: the fraction is out of range.

  Example:
    >>> rate = wsd(1.0, 0.0, warmup_steps=2, num_steps=10, decay_fraction=0.5)
    >>> [round(float(rate(step)), 1) for step in range(11)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]

  References:
    Hu et al., *MiniCPM*, 2024, section 4.
  """
  check_number("decay_fraction", decay_fraction, low=0, high=1)
  decay_steps = max(1, round(decay_fraction * num_steps))
  start = max(warmup_steps, num_steps - decay_steps)
  fall = optax.linear_schedule(
    learning_rate,
    min_learning_rate,
    _rest(start, num_steps),
    start - warmup_steps,
  )
  return _after_warmup(fall, learning_rate, warmup_steps)


def _rest(done: int, num_steps: int) -> int:
  return max(1, num_steps - done)


def _after_warmup(
  schedule: optax.Schedule, learning_rate: Scalar, warmup_steps: int
) -> optax.Schedule:
  if warmup_steps == 0:
    return schedule
  rise = optax.linear_schedule(0.0, learning_rate, warmup_steps)
  return optax.join_schedules([rise, schedule], [warmup_steps])
