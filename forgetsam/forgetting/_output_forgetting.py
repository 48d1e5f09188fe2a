"""Forgetting: the information in the outputs, before minus after."""

from typing import NamedTuple

from jaxtyping import Float

from forgetsam._typing import NDArray
from forgetsam.forgetting._jackknife import IntLabels, Strata, strata, subtract
from forgetsam.forgetting._output_information import (
  InformationTerms,
  OutputInformation,
  estimates,
  information_terms,
  softmax,
)

ProbeLogits = Float[NDArray, "n classes"]
BothTerms = tuple[InformationTerms, InformationTerms]


class OutputForgetting(NamedTuple):
  """The information in the outputs around a perturbation.

  Attributes:
    before: at the clean weights.
    after: at the perturbed weights.
    forgotten: before minus after, with paired standard errors.
  """

  before: OutputInformation
  after: OutputInformation
  forgotten: OutputInformation


def output_forgetting(
  before_logits: ProbeLogits,
  after_logits: ProbeLogits,
  labels: IntLabels,
) -> OutputForgetting:
  r"""The outputs' information at w minus that at w + delta.

  .. math:: F = I_w(X; \hat Y \mid Y) - I_{w + \delta}(X; \hat Y \mid Y)

  and the same for the unconditional information, each in the forms of
  `output_information`. Negative where the perturbation makes outputs depend
  more on the input, as SAM's does within classes for much of training.

  *Standard errors* are the jackknife's of the difference: both networks see
  the same examples, and their shared variation cancels. The offset counts as
  given; `probe_forgetting` averages over offsets.

  *Bias.* The plug-in informations' downward biases cancel in part; at worst
  `bias_bound` remains, of either sign. The variance form is unbiased.

  *Controls.* The offset of a random direction of the same length, held-out
  examples beside training ones, and, for comparisons over networks, offsets of
  one fixed radius and micro-batch size beside each run's own.

  Args:
    before_logits: at w, for the probe's examples, in evaluation mode.
    after_logits: at w + delta, for the same examples.
    labels: class indices.

  Returns:
    `OutputForgetting(before, after, forgotten)`.

  Raises:
    ValueError: labels lie outside of [0, K).

  Example:
    >>> import jax.numpy as jnp
    >>> labels = jnp.array([0, 0, 1, 1])
    >>> before = 30.0 * jnp.eye(2)[labels]  # certain, and right
    >>> report = output_forgetting(before, jnp.zeros((4, 2)), labels)
    >>> float(report.forgotten.unconditional.plug_in.value)  # log 2
    0.69...

  References:
    Ours: the paper's estimators are not known to us.
  """
  groups = strata(labels, before_logits.shape[1])
  before = logits_terms(before_logits, groups)
  after = logits_terms(after_logits, groups)
  num_classes = before_logits.shape[1]
  return OutputForgetting(
    *(
      estimates(terms, groups, num_classes=num_classes)
      for terms in (before, after, difference(before, after))
    )
  )


def logits_terms(logits: ProbeLogits, groups: Strata) -> BothTerms:
  """The informations' terms of a network's logits."""
  return information_terms(softmax(logits), groups)


def difference(before: BothTerms, after: BothTerms) -> BothTerms:
  """The terms of both informations' paired differences."""
  conditional, unconditional = (
    InformationTerms(*(subtract(x, y) for x, y in zip(b, a, strict=True)))
    for b, a in zip(before, after, strict=True)
  )
  return conditional, unconditional
