"""How much random offsets of the weights raise the loss."""

import jax
import jax.numpy as jnp

from forgetsam._arrays import add_delta
from forgetsam._checks import check_number, check_rho
from forgetsam._estimate import Estimate, estimate_mean
from forgetsam._typing import PyTree
from forgetsam.sharpness._dataset_loss import DatasetLoss
from forgetsam.sharpness._offsets import random_offset


def average_sharpness(
  loss: DatasetLoss,
  params: PyTree,
  rho: float,
  key: jax.Array,
  *,
  num_samples: int = 50,
  adaptive: bool = False,
) -> Estimate:
  r"""The mean increase of the loss over random offsets of length rho.

  .. math:: \mathbb E\, L(w + \delta) - L(w), \qquad
     \delta = \rho\, \xi / \lVert \xi \rVert, \quad
     \xi \sim \mathcal N(0, I),

  uniform on the sphere, which in many dimensions is the ball. Adaptive:
  :math:`\delta = |w| \odot \rho\, \xi / \lVert \xi \rVert`, so that
  :math:`\lVert \delta / |w| \rVert = \rho`. A sample is the mean of
  :math:`\delta` and :math:`-\delta`, which the gradient cancels from. To second
  order the result is :math:`\rho^2 \operatorname{tr}(H) / 2 d`; choose rho so
  that it is far above the loss's rounding, 1e-7 of the loss.

  Args:
    loss: as `dataset_loss` builds it.
    params: w; the offsets run over all d of its numbers.
    rho: the radius, in units of the weights' norm (adaptive: relative).
    key: of the offsets.
    num_samples: pairs of evaluations, at least 2.
    adaptive: whether offsets are in units of each weight's magnitude.

  Returns:
    The mean and its standard error over offsets.

  Raises:
    ValueError: rho is negative or nan, or num_samples is below 2.

  Example:
    >>> import forgetsam as fs, jax.numpy as jnp
    >>> from forgetsam.sharpness import dataset_loss
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images @ params, model_state
    >>> batches = [{"image": jnp.eye(2), "label": jnp.array([0, 1])}]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> params = jnp.zeros((2, 2))  # H's eigenvalues: 0, 0, 1/4, 1/4
    >>> estimate = average_sharpness(loss, params, 0.1, jax.random.key(0))
    >>> 0 < estimate.value < 0.5 * 0.1**2 / 4
    Array(True, dtype=bool)

  References:
    Andriushchenko et al., *A Modern Look at the Relationship between Sharpness
    and Generalization*, ICML 2023 (there with Gaussian offsets).
  """
  check_rho("rho", rho)
  check_number("num_samples", num_samples, low=2)
  center = loss.value(params)
  increases = []
  for k in jax.random.split(key, num_samples):
    delta = random_offset(k, params, rho, adaptive=adaptive)
    up, down = (
      loss.value(add_delta(params, delta, sign)) for sign in (1.0, -1.0)
    )
    increases.append((up - center) / 2 + (down - center) / 2)
  return estimate_mean(jnp.stack(increases))
