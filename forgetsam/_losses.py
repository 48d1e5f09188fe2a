"""Training losses: `(logits, labels) -> scalar mean over all positions`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optax
from jaxtyping import Array, Float

from forgetsam._checks import check_number
from forgetsam._labels import labelled
from forgetsam._objectives import of_classes
from forgetsam._typing import Loss, Scalar


def sigmoid_cross_entropy(label_smoothing: Scalar = 0.0) -> Loss:
  r"""Binary cross-entropy, summed over classes and averaged over positions.

  .. math:: L = -\frac{1}{\sum_i v_i} \sum_i v_i \sum_k \bigl[
                y_{ik} \log \sigma(z_{ik})
                + (1 - y_{ik}) \log (1 - \sigma(z_{ik})) \bigr]

  over all leading axes i of the logits z: examples `[B, K]`, tokens
  `[B, T, K]`, pixels `[B, H, W, K]`; :math:`v_i = 1` where no weights are
  given. The paper's loss for ViTs, in at least float32. Smoothing makes the
  target of an integer label :math:`(1 - s)\, y + s / K`; soft labels are used
  as given, whatever they sum to.

  Args:
    label_smoothing: s, in [0, 1).

  Returns:
    `loss(logits, labels, where=None)`, a scalar: logits `[..., K]`, labels
    `[...]` (class indices) or `[..., K]` (distributions), and weights v of at
    least 0, one per position `[...]` or per example `[B]`. A label that is no
    class, as -1 or K, makes it nan. Where the weight is 0, neither logits nor
    label matter; the loss is 0 where all weights are. Shapes and dtypes that
    do not fit are a ValueError.

  Raises:
    ValueError: label_smoothing is outside [0, 1).

  Example:
    >>> import jax.numpy as jnp
    >>> loss = sigmoid_cross_entropy()
    >>> float(loss(jnp.zeros((1, 4)), jnp.array([2])))  # 4 log 2
    2.77...
    >>> labels = jnp.array([2, -1])  # and padding
    >>> float(loss(jnp.zeros((2, 4)), labels, where=jnp.array([1, 0])))
    2.77...
  """
  return _smoothed(
    lambda z, y: optax.sigmoid_binary_cross_entropy(z, y).sum(-1),
    label_smoothing,
  )


def softmax_cross_entropy(label_smoothing: Scalar = 0.0) -> Loss:
  r"""Softmax cross-entropy, averaged over positions.

  .. math:: L = -\frac{1}{\sum_i v_i} \sum_i v_i
                \sum_k y_{ik} \log \mathrm{softmax}(z_i)_k

  Arguments, result and errors as of :func:`sigmoid_cross_entropy`.

  Example:
    >>> import jax.numpy as jnp
    >>> loss = softmax_cross_entropy()
    >>> float(loss(jnp.zeros((1, 4)), jnp.array([2])))  # log 4
    1.38...
  """
  return _smoothed(optax.softmax_cross_entropy, label_smoothing)


def _smoothed(
  per_position: Callable[[Array, Array], Array], smoothing: Scalar
) -> Loss:
  check_number("label_smoothing", smoothing, low=0, high=1, exclude_high=True)

  def loss(logits: Any, labels: Any, where: Any = None) -> Float[Array, ""]:
    given = labelled(logits, labels, where)
    z, y = given.logits, given.targets
    if np.ndim(labels) < z.ndim:
      y = (1 - smoothing) * y + smoothing / z.shape[-1]
    return given.mean(per_position(z, y))

  return of_classes(loss)
