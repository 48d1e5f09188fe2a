"""Forgetting in a layer's features, with the control of their scale."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._estimate import Estimate
from forgetsam._typing import Scalar
from forgetsam.forgetting._jackknife import (
  IntLabels,
  Strata,
  Terms,
  jackknife,
  strata,
  subtract,
)
from forgetsam.forgetting._representation import (
  Features,
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
    rescaled_lower: `lower`, with the features after scaled back to the spread
      within classes that they had before.
    rescaled_upper: `upper`, with the same.
    scale: the spread after over the spread before.
  """

  before: RepresentationInformation
  after: RepresentationInformation
  lower: Estimate
  upper: Estimate
  rescaled_lower: Estimate
  rescaled_upper: Estimate
  scale: Array


def representation_forgetting(
  before_features: Features,
  after_features: Features,
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

  *Bias.* That of the bounds, which cancels in part; both differences shrink to
  zero as the bounds near the ceiling. *Standard errors* are paired, by the
  jackknife over examples; the scale below counts as given.

  *Control.* Features that shrink as a whole lose information to noise of a
  fixed size, though the next layer could scale them up again. The rescaled
  differences give the features after the perturbation the spread that they had
  before: what remains is a change of their geometry.

  Args:
    before_features: the layer's features at w, a row per example.
    after_features: at w + delta, for the same examples.
    labels: class indices.
    noise_std: as in `representation_information`, the same before and after.
    num_classes: number of classes.

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

  References:
    Ours, on the bounds of Kolchinsky and Tracey, 2017.
  """
  check_noise(noise_std)
  groups = strata(labels, num_classes)
  after_features = jnp.asarray(after_features)
  spreads = [spread(h, groups) for h in (before_features, after_features)]
  back = spreads[0] / jnp.where(spreads[1] > 0, spreads[1], 1)
  before = bound_terms(before_features, groups, noise_std)
  after = bound_terms(after_features, groups, noise_std)
  rescaled = bound_terms(back * after_features, groups, noise_std)
  lower, upper = _differences(before, after, groups)
  rescaled_lower, rescaled_upper = _differences(before, rescaled, groups)
  return RepresentationForgetting(
    before=bound_estimates(before, groups),
    after=bound_estimates(after, groups),
    lower=lower,
    upper=upper,
    rescaled_lower=rescaled_lower,
    rescaled_upper=rescaled_upper,
    scale=spreads[1] / spreads[0],
  )


def _differences(
  before: tuple[Terms, Terms], after: tuple[Terms, Terms], groups: Strata
) -> tuple[Estimate, Estimate]:
  """Before minus after, for the lower and the upper bound."""
  lower, upper = (
    jackknife(subtract(b, a), groups)
    for b, a in zip(before, after, strict=True)
  )
  return lower, upper
