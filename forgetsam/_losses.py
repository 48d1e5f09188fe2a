"""Training losses: `(logits, labels) -> scalar mean over the batch`."""

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
  """One-hot rows for class indices; distributions are returned as given."""
  labels = jnp.asarray(labels)
  if labels.ndim == 2:
    return labels.astype(dtype)
  return jax.nn.one_hot(labels, num_classes, dtype=dtype)


def sigmoid_cross_entropy(label_smoothing: Scalar = 0.0) -> Loss:
  r"""Binary cross-entropy, summed over classes and averaged over the batch.

  .. math:: L = -\frac1B \sum_{b,k} y_{bk} \log \sigma(z_{bk})
                + (1 - y_{bk}) \log (1 - \sigma(z_{bk}))

  The paper's loss for ViTs. Smoothing replaces the one-hot target of an
  integer label by :math:`(1 - s)\, y + s / K`; soft labels are used as given.

  Args:
    label_smoothing: s, in [0, 1).

  Returns:
    A function of logits `[batch, classes]` and labels (`[batch]` integers, or
    `[batch, classes]`) to a scalar, computed in at least float32.

  Raises:
    ValueError: label_smoothing is outside [0, 1).

  Example:
    >>> loss = sigmoid_cross_entropy()
    >>> float(loss(jnp.zeros((1, 4)), jnp.array([2])))  # 4 log 2
    2.77...
  """
  check_number(
    "label_smoothing", label_smoothing, low=0, high=1, exclude_high=True
  )

  def loss(logits: Logits, labels: Labels) -> Float[Array, ""]:
    logits = at_least_float32(jnp.asarray(logits))
    targets = _smooth_targets(logits, labels, label_smoothing)
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1).mean()

  return loss


def softmax_cross_entropy(label_smoothing: Scalar = 0.0) -> Loss:
  r"""Softmax cross-entropy, averaged over the batch.

  .. math:: L = -\frac1B \sum_{b,k} y_{bk} \log \mathrm{softmax}(z_b)_k

  Smoothing as in :func:`sigmoid_cross_entropy`.

  Args:
    label_smoothing: s, in [0, 1).

  Returns:
    A function of logits `[batch, classes]` and labels (`[batch]` integers, or
    `[batch, classes]`) to a scalar, computed in at least float32.

  Raises:
    ValueError: label_smoothing is outside [0, 1).

  Example:
    >>> loss = softmax_cross_entropy()
    >>> float(loss(jnp.zeros((1, 4)), jnp.array([2])))  # log 4
    1.38...
  """
  check_number(
    "label_smoothing", label_smoothing, low=0, high=1, exclude_high=True
  )

  def loss(logits: Logits, labels: Labels) -> Float[Array, ""]:
    logits = at_least_float32(jnp.asarray(logits))
    targets = _smooth_targets(logits, labels, label_smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()

  return loss


def _smooth_targets(
  logits: Array, labels: Labels, smoothing: Scalar
) -> Float[Array, "batch classes"]:
  num_classes = logits.shape[-1]
  targets = target_distribution(labels, num_classes, logits.dtype)
  if jnp.ndim(labels) == 2:
    return targets
  return (1 - smoothing) * targets + smoothing / num_classes
