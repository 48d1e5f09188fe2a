"""How much the worst offset of the weights in a ball raises the loss."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from forgetsam._arrays import add_delta
from forgetsam._checks import check_number, check_rho
from forgetsam._typing import PyTree
from forgetsam.sharpness._dataset_loss import DatasetLoss
from forgetsam.sharpness._offsets import (
  ascent_offset,
  project,
  random_offset,
)

# Of the radius: where a minimum's gradient is not zero.
_START = 1e-3


class WorstCase(NamedTuple):
  """The highest loss that was found in a ball.

  Attributes:
    increase: of the loss over the center's; a lower bound of the worst case,
      and at least 0.
    delta: the offset that gave it, in at least float32.
  """

  increase: Float[Array, ""]
  delta: PyTree


def worst_case_sharpness(
  loss: DatasetLoss,
  params: PyTree,
  rho: float,
  key: jax.Array,
  *,
  num_steps: int = 20,
  adaptive: bool = False,
) -> WorstCase:
  r"""The largest increase of the loss in a ball, by projected ascent.

  .. math:: \max_{\lVert \delta \rVert \le \rho} L(w + \delta) - L(w),

  adaptive: :math:`\lVert \delta / |w| \rVert \le \rho`. The first step is SAM's
  (adaptive: ASAM's) of length rho, with the gradient taken a thousandth of rho
  off w, in a random direction. Each later step adds such an offset, of length
  falling linearly to zero, and projects back onto the ball. The best point is
  returned: a *lower bound* of the maximum. At a minimum this is a power
  iteration, which tends to :math:`\rho^2 \lambda_{\max} / 2`.

  Args:
    loss: as `dataset_loss` builds it.
    params: w.
    rho: the radius, in units of the weights' norm (adaptive: relative).
    key: of the first offset.
    num_steps: gradients, at least 1.
    adaptive: whether offsets are in units of each weight's magnitude.

  Returns:
    The increase and its offset.

  Raises:
    ValueError: rho is negative or nan, or num_steps is below 1.

  Example:
    >>> import forgetsam as fs, jax.numpy as jnp
    >>> from forgetsam.sharpness import dataset_loss
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images @ params, model_state
    >>> batches = [{"image": jnp.eye(2), "label": jnp.array([0, 1])}]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> worst = worst_case_sharpness(
    ...   loss, jnp.zeros((2, 2)), 0.1, jax.random.key(0)
    ... )  # the gradient's length is 1/2
    >>> round(float(worst.increase), 3)
    0.051

  References:
    Foret et al., *Sharpness-Aware Minimization for Efficiently Improving
    Generalization*, ICLR 2021, eq. (1); Kwon et al., *ASAM*, ICML 2021.
  """
  check_rho("rho", rho)
  check_number("num_steps", num_steps, low=1)
  center, delta = loss.value(params), jax.tree.map(jnp.zeros_like, params)
  best = WorstCase(jnp.zeros_like(center), add_delta(delta, delta))
  delta = random_offset(key, params, _START * rho, adaptive=adaptive)
  for step in range(num_steps):
    value, gradient = loss.value_and_gradient(add_delta(params, delta))
    best = _better(best, WorstCase(value - center, delta))
    radius = rho * (1 - step / num_steps)
    ascent = ascent_offset(gradient, params, radius, adaptive=adaptive)
    # The first step is SAM's own, to the sphere.
    delta = add_delta(delta, ascent) if step else ascent
    delta = project(delta, params, rho, adaptive=adaptive)
  value = loss.value(add_delta(params, delta))
  return _better(best, WorstCase(value - center, delta))


@jax.jit
def _better(best: WorstCase, new: WorstCase) -> WorstCase:
  # A loss that is not finite is the worst of all, and stays.
  take = ~(new.increase <= best.increase) & jnp.isfinite(best.increase)
  return jax.tree.map(lambda b, n: jnp.where(take, n, b), best, new)
