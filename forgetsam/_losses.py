"""Training losses: `(logits, labels) -> scalar mean over the batch`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from forgetsam._arrays import at_least_float32
from forgetsam._checks import check_number
from forgetsam._typing import Labels, Logits, Loss, Scalar


def target_distribution(
  labels: Labels, num_classes: int, dtype: jnp.dtype
) -> Float[Array, "batch classes"]:
  labels = jnp.asarray(labels)
  if labels.ndim == 2:
    return labels.astype(dtype)
  return jax.nn.one_hot(labels, num_classes, dtype=dtype)


def sigmoid_cross_entropy(label_smoothing: Scalar = 0.0) -> Loss:
  r"""Binary cross-entropy, summed over classes and averaged over the batch.

  .. math:: L = -\frac1B \sum_{b,k} y_{bk} \log \sigma(z_{bk})
                + (1 - y_{bk}) \log (1 - \sigma(z_{bk}))

  The paper's loss for ViTs, in at least float32. Smoothing makes the target of
  an integer label :math:`(1 - s)\, y + s / K`; soft labels are used as given.

  Args:
    label_smoothing: s, in [0, 1).

  Returns:
    A function of logits `[batch, classes]` and labels (`[batch]` integers, or
    `[batch, classes]`) to a scalar.

  Raises:
    ValueError: label_smoothing is outside [0, 1).

  Example:
    >>> loss = sigmoid_cross_entropy()
    >>> float(loss(jnp.zeros((1, 4)), jnp.array([2])))  # 4 log 2
    2.77...
  """
  return _smoothed(
    lambda z, y: optax.sigmoid_binary_cross_entropy(z, y).sum(-1),
    label_smoothing,
  )


def softmax_cross_entropy(label_smoothing: Scalar = 0.0) -> Loss:
  r"""Softmax cross-entropy, averaged over the batch.

  .. math:: L = -\frac1B \sum_{b,k} y_{bk} \log \mathrm{softmax}(z_b)_k

  Arguments, result and errors as of :func:`sigmoid_cross_entropy`.

  Example:
    >>> loss = softmax_cross_entropy()
    >>> float(loss(jnp.zeros((1, 4)), jnp.array([2])))  # log 4
    1.38...
  """
  return _smoothed(optax.softmax_cross_entropy, label_smoothing)


def _smoothed(
  per_example: Callable[[Array, Array], Array], smoothing: Scalar
) -> Loss:
  check_number("label_smoothing", smoothing, low=0, high=1, exclude_high=True)

  def loss(logits: Logits, labels: Labels) -> Float[Array, ""]:
    logits = at_least_float32(jnp.asarray(logits))
    num_classes = logits.shape[-1]
    targets = target_distribution(labels, num_classes, logits.dtype)
    if jnp.ndim(labels) != 2:
      targets = (1 - smoothing) * targets + smoothing / num_classes
    return per_example(logits, targets).mean()

  return loss
