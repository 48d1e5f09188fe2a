"""Representation forgetting: features' information, before minus after."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._estimate import Estimate
from forgetsam._typing import Scalar
from forgetsam.forgetting._jackknife import (
  IntLabels,
  Rows,
  check_rows,
  jackknife,
  strata,
)
from forgetsam.forgetting._representation import (
  RepresentationInformation,
  bound_estimates,
  bound_terms,
  check_noise,
  spread,
)


class RepresentationForgetting(NamedTuple):
  """The bounds around a perturbation, and their paired differences.

  Attributes:
    before: at the clean weights.
    after: at the perturbed weights.
    lower: the lower bound's difference, before minus after.
    upper: the upper bound's difference.
    rescaled_lower: `lower`, with the features after scaled by 1 / `scale`.
    rescaled_upper: `upper`, with the same.
    scale: `feature_scale` after over that before.
  """

  before: RepresentationInformation
  after: RepresentationInformation
  lower: Estimate
  upper: Estimate
  rescaled_lower: Estimate
  rescaled_upper: Estimate
  scale: Array


def representation_forgetting(
  before_features: Rows,
  after_features: Rows,
  labels: IntLabels,
  noise_std: Scalar,
  *,
  num_classes: int,
) -> RepresentationForgetting:
  r"""The features' information at w minus that at w + delta.

  .. math:: F = I_w(X; Z \mid Y) - I_{w + \delta}(X; Z \mid Y)

  as the difference of each of the bounds of `representation_information`.
  Neither bounds the difference: that lies between
  `before.lower - after.upper` and `before.upper - after.lower`. Where the two
  differences disagree in sign, the estimate says nothing.

  *Bias.* That of the bounds cancels in part; both differences shrink to zero as
  the bounds near the ceiling. *Standard errors* are paired, by the
  jackknife over examples; `scale` counts as given.

  *Control.* Features that shrink as a whole lose information to noise of a
  fixed size, though the next layer could scale them up again. The rescaled
  differences undo that: what remains is a change of geometry.

  Args:
    before_features: the layer's features at w, a row per example.
    after_features: at w + delta, for the same examples.
    labels: class indices.
    noise_std: as in `representation_information`.
    num_classes: their number.

  Returns:
    `RepresentationForgetting`, in nats.

  Raises:
    ValueError: noise_std is not above 0, or labels lie out of range.

  Example:
    >>> features, labels = jnp.array([[0.0], [1.0]]), jnp.array([0, 0])
    >>> report = representation_forgetting(
    ...   features, 0.1 * features, labels, noise_std=0.5, num_classes=1
    ... )
    >>> bool(report.lower.value > 0), round(float(report.scale), 4)
    (True, 0.1)
    >>> round(abs(float(report.rescaled_lower.value)), 4)
    0.0
  """
  check_noise(noise_std)
  check_rows(
    labels, before_features=before_features, after_features=after_features
  )
  groups = strata(labels, num_classes)
  after_features = jnp.asarray(after_features)
  spreads = [spread(h, groups) for h in (before_features, after_features)]
  back = spreads[0] / jnp.where(spreads[1] > 0, spreads[1], 1)
  before, after, rescaled = (
    bound_terms(features, groups, noise_std)
    for features in (before_features, after_features, back * after_features)
  )
  lower, upper, rescaled_lower, rescaled_upper = (
    jackknife(jax.tree.map(jnp.subtract, *bounds), groups)
    for other in (after, rescaled)
    for bounds in zip(before, other, strict=True)
  )
  return RepresentationForgetting(
    before=bound_estimates(before, groups),
    after=bound_estimates(after, groups),
    lower=lower,
    upper=upper,
    rescaled_lower=rescaled_lower,
    rescaled_upper=rescaled_upper,
    scale=spreads[1] / spreads[0],
  )
