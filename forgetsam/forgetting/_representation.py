"""Information about inputs in a layer's features."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from forgetsam._checks import is_number
from forgetsam._estimate import Estimate
from forgetsam._typing import NDArray, Scalar
from forgetsam.forgetting._jackknife import (
  IntLabels,
  Rows,
  Strata,
  Terms,
  check_rows,
  jackknife,
  strata,
)

Features = Float[NDArray, "n d"]
BoundTerms = tuple[Terms, Terms]  # of the lower and of the upper bound


class RepresentationInformation(NamedTuple):
  """Bounds on I(X; Z | Y), in nats.

  Attributes:
    lower: the bound from the Bhattacharyya distances.
    upper: the bound from the Kullback-Leibler divergences.
    ceiling: the mean of log n_c over examples, which no bound exceeds.
  """

  lower: Estimate
  upper: Estimate
  ceiling: Array


def representation_information(
  features: Rows, labels: IntLabels, noise_std: Scalar, *, num_classes: int
) -> RepresentationInformation:
  r"""Bounds the information about the input that noisy features expose.

  With :math:`Z = h(X) + \sigma \xi`, Gaussian noise, and X one of the n
  examples of a class, Z is a mixture of n Gaussians, and
  :math:`I(X; Z) = H(Z) - H(\xi\sigma)` has the bounds

  .. math:: B(s) = -\frac1n \sum_i \log \frac1n \sum_j
     \exp\Bigl(-\frac{\lVert h_i - h_j \rVert^2}{2 s^2}\Bigr), \qquad
     B(2 \sigma) \le I(X; Z) \le B(\sigma),

  the upper from the components' KL divergences
  :math:`\lVert h_i - h_j\rVert^2 / 2\sigma^2`, the lower from their
  Bhattacharyya distances (the Chernoff-alpha bound at 1/2), a quarter of it.
  Classes are averaged by size, which gives I(X; Z | Y).

  *Bias.* The bounds hold for X drawn from the probe. For the population's X
  they are too small, in expectation. Near `ceiling` they say that the noise is
  too small for the probe, and nothing about the network. *Standard errors* are
  the jackknife's over examples, stratified by class.

  *Controls.* Noise must be the same wherever bounds are compared, and its
  scale decides what counts: a quarter to one of `feature_scale` of a reference
  network is a start. The information falls with the scale of the features,
  though nothing be forgotten: see `representation_forgetting`.

  Args:
    features: h, a row per example. Memory grows with n squared.
    labels: class indices.
    noise_std: sigma, the noise's standard deviation per coordinate, in the
      features' units, above 0.
    num_classes: their number.

  Returns:
    `RepresentationInformation(lower, upper, ceiling)`, in nats.

  Raises:
    ValueError: noise_std is not above 0, or labels lie out of range.

  Example:
    >>> features = 100.0 * jnp.eye(4)  # far apart: log 2 within each class
    >>> labels = jnp.array([0, 0, 1, 1])
    >>> bounds = representation_information(
    ...   features, labels, noise_std=1.0, num_classes=2
    ... )
    >>> round(float(bounds.lower.value), 4), round(float(bounds.upper.value), 4)
    (0.6931, 0.6931)

  References:
    Kolchinsky and Tracey, *Estimating Mixture Entropy with Pairwise
    Distances*, Entropy 2017, eqs. (10), (13).
  """
  check_noise(noise_std)
  check_rows(labels, features=features)
  groups = strata(labels, num_classes)
  return bound_estimates(bound_terms(features, groups, noise_std), groups)


def feature_scale(
  features: Rows, labels: IntLabels, *, num_classes: int
) -> Float[Array, ""]:
  r"""The features' spread within classes, per coordinate.

  .. math:: \sqrt{\frac{1}{nd} \sum_i \lVert h_i - \bar h_{c(i)} \rVert^2}

  A unit for the noise of `representation_information`.

  Args:
    features: a row per example.
    labels: class indices.
    num_classes: their number.

  Returns:
    A scalar, too small by a factor of about :math:`\sqrt{1 - C / n}`, with C
    classes.

  Example:
    >>> features = jnp.array([[1.0], [3.0], [10.0], [12.0]])
    >>> feature_scale(features, jnp.array([0, 0, 1, 1]), num_classes=2)
    Array(1., dtype=float32)
  """
  check_rows(labels, features=features)
  return spread(features, strata(labels, num_classes))


def check_noise(noise_std: Scalar) -> None:
  if is_number(noise_std) and not noise_std > 0:
    raise ValueError(
      f"noise_std={noise_std} must be above 0: without noise the information "
      "of a deterministic layer is the entropy of its input"
    )


def spread(features: Features, groups: Strata) -> Array:
  h = jnp.asarray(features, jnp.float32)
  return jnp.sqrt(jnp.mean(groups.centred(h) ** 2))


def bound_estimates(
  terms: BoundTerms, groups: Strata
) -> RepresentationInformation:
  lower, upper = (jackknife(bound, groups) for bound in terms)
  ceiling = jnp.mean(jnp.log(groups.count))
  return RepresentationInformation(lower, upper, ceiling)


@jax.jit
def bound_terms(
  features: Features, groups: Strata, noise_std: Scalar
) -> BoundTerms:
  """B(2 sigma) and B(sigma), with what leaving out each example does."""
  # Centred, so that the expanded square keeps its digits.
  h = groups.centred(jnp.asarray(features, jnp.float32))
  products = jnp.matmul(h, h.T, precision=jax.lax.Precision.HIGHEST)
  squares = jnp.diagonal(products)
  distances = squares[:, None] + squares[None, :] - 2 * products
  label = jnp.argmax(groups.one_hot, axis=1)
  same = label[:, None] == label[None, :]
  other = same & ~jnp.eye(len(h), dtype=bool)
  # Not by `maximum`, which XLA's CPU backend lets swallow nan.
  distances = jnp.where(distances < 0, 0, distances)
  kl = jnp.where(other, distances, 0) / (2 * noise_std**2)
  return (
    _pairwise_terms(kl / 4, same, other, groups),
    _pairwise_terms(kl, same, other, groups),
  )


def _pairwise_terms(
  distances: Array, same: Array, other: Array, groups: Strata
) -> Terms:
  """-mean_i log mean_j exp(-D_ij) within classes."""
  kernel = jnp.where(same, jnp.exp(-distances), 0)
  sums = jnp.sum(kernel, axis=1)
  logs = jnp.log(sums / groups.count)
  # Row i: every other example's sum without example i, itself always in it.
  left = jnp.where(other, sums[None, :] - kernel, 1)
  left = left / (groups.count - 1)[:, None]
  left_logs = jnp.sum(jnp.where(other, jnp.log(left), 0), axis=1)
  own = groups.means(logs)
  moves = groups.weight * (own - left_logs / (groups.count - 1))
  return Terms(-jnp.mean(logs), moves)
