"""m-sharpness: the one-step worst case of micro-batches of m examples."""

import jax.numpy as jnp

from forgetsam._arrays import add_delta
from forgetsam._checks import check_rho
from forgetsam._estimate import Estimate, estimate_mean
from forgetsam._typing import PyTree
from forgetsam.sharpness._balls import ascent_delta
from forgetsam.sharpness._dataset_loss import DatasetLoss


def m_sharpness(
  loss: DatasetLoss, params: PyTree, rho: float, *, adaptive: bool = False
) -> Estimate:
  r"""The mean of the batches' own one-step sharpness.

  .. math:: \frac1N \sum_B |B|\, \bigl[ L_B(w + \delta_B) - L_B(w) \bigr],
     \qquad \delta_B = \rho\, g_B / \lVert g_B \rVert,

  with :math:`g_B` the gradient of the batch's loss; adaptive: ASAM's
  :math:`\delta_B = \rho\, |w|^2 g_B / \lVert |w|\, g_B \rVert`. It is what SAM
  with micro-batches of m examples descends beyond the loss.

  Args:
    loss: `dataset_loss` over *batches of m examples*; those of a padded batch
      count in proportion.
    params: w.
    rho: the radius, in units of the weights' norm (adaptive: relative).
    adaptive: whether offsets are in units of each weight's magnitude.

  Returns:
    The mean, and its standard error over draws of the batches (nan for one).

  Raises:
    ValueError: rho is negative or nan.

  Example:
    >>> import forgetsam as fs
    >>> from forgetsam.sharpness import dataset_loss
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images @ params, model_state
    >>> batches = [
    ...   {"image": jnp.eye(2)[i : i + 1], "label": jnp.array([i])}
    ...   for i in range(2)
    ... ]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> estimate = m_sharpness(loss, jnp.zeros((2, 2)), 0.1)
    >>> round(float(estimate.value), 3)  # m = 1: gradients of length 0.7
    0.073

  References:
    Foret et al., *Sharpness-Aware Minimization for Efficiently Improving
    Generalization*, ICLR 2021, section 4.1.
  """
  check_rho("rho", rho)
  parts = [part for part in loss.parts if part.num_examples > 0]
  increases = []
  for part in parts:
    value, gradient = part.value_and_gradient(params)
    delta = ascent_delta(gradient, params, rho, adaptive=adaptive)
    increases.append(part.value(add_delta(params, delta)) - value)
  counts = jnp.array([part.num_examples for part in parts], jnp.float32)
  return estimate_mean(jnp.stack(increases), counts)
