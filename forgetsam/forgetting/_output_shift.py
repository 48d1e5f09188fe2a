"""Logits, confidence, calibration and class-prior bias, before and after."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._checks import check_count
from forgetsam._estimate import Estimate
from forgetsam.forgetting._jackknife import (
  IntLabels,
  Rows,
  Strata,
  Terms,
  check_rows,
  jackknife,
  mean_terms,
  strata,
)
from forgetsam.forgetting._output_information import softmax
from forgetsam.training import confidence_bins


class OutputSummary(NamedTuple):
  """Statistics of a network's outputs on a probe, an estimate each.

  Attributes:
    target_logit: the mean logit of the label.
    non_target_logit: the mean of the other classes' logits.
    confidence: the mean largest probability.
    accuracy: the share of examples whose largest probability is the label's.
    calibration_error: the expected calibration error.
    class_prior_bias: KL of the mean prediction to the labels' marginal, nats.
  """

  target_logit: Estimate
  non_target_logit: Estimate
  confidence: Estimate
  accuracy: Estimate
  calibration_error: Estimate
  class_prior_bias: Estimate


class OutputShift(NamedTuple):
  """Summaries at w, at w + delta, and after minus before, paired."""

  before: OutputSummary
  after: OutputSummary
  change: OutputSummary


def output_shift(
  before_logits: Rows,
  after_logits: Rows,
  labels: IntLabels,
  *,
  bins: int = 15,
) -> OutputShift:
  r"""Compares the outputs' statistics at w and at w + delta.

  With z the logits, p their softmax, :math:`\pi` the labels' marginal, and the
  examples binned by confidence :math:`\max_k p_k` in equal intervals, open
  below and closed above,

  .. math:: \overline{z_y}, \quad
     \overline{\tfrac{1}{K - 1} \textstyle\sum_{k \ne y} z_k}, \quad
     \overline{\max_k p_k}, \quad
     \mathrm{ECE} = \sum_b \frac{n_b}{n}
       \lvert \mathrm{acc}_b - \mathrm{conf}_b \rvert, \quad
     \mathrm{KL}(\bar p \Vert \pi).

  A constant added to all logits changes the first two and nothing else: read
  their difference, or both for sigmoid models.

  *Bias.* The means have none. The calibration error is too large, by up to
  about :math:`\sqrt{\mathrm{bins} / n} / 2` for a calibrated network; the
  prior bias is too large by at most :math:`\log(1 + (K - 1) / n)` (as in
  `output_information`). Differences between probes of one size share them.

  *Standard errors* are stratified by class, paired in `change`; the
  calibration error's take its bins' signs as given, and are too small where a
  bin's gap is near zero. The prior bias of a probe that lacks a class is
  infinite. *Controls.* A random direction of the same length, and held-out
  examples: confidence on training examples falls for nearly any offset.

  Args:
    before_logits: at w, for the probe's examples, in evaluation mode.
    after_logits: at w + delta, for the same examples.
    labels: class indices.
    bins: of the calibration error, at least 1.

  Returns:
    `OutputShift(before, after, change)`.

  Raises:
    ValueError: bins is below 1, labels lie outside of [0, K), or logits are not
      [n, K].

  Example:
    >>> labels = jnp.array([0, 0, 1, 1])
    >>> before = jnp.zeros((4, 2))
    >>> after = 2.0 * jnp.eye(2)[labels]
    >>> shift = output_shift(before, after, labels)
    >>> float(shift.change.target_logit.value)
    2.0
    >>> float(shift.before.confidence.value), float(shift.after.accuracy.value)
    (0.5, 1.0)

  References:
    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017, eq. (3),
    for the calibration error.
  """
  check_count("bins", bins)
  check_rows(labels, before_logits=before_logits, after_logits=after_logits)
  groups = strata(labels, before_logits.shape[1])
  before, after = (
    _terms(jnp.asarray(z), groups, bins) for z in (before_logits, after_logits)
  )
  change = jax.tree.map(jnp.subtract, after, before)
  return OutputShift(
    *(
      OutputSummary(*(jackknife(t, groups) for t in terms))
      for terms in (before, after, change)
    )
  )


@functools.partial(jax.jit, static_argnums=2)
def _terms(logits: Array, groups: Strata, bins: int) -> list[Terms]:
  """Every statistic as the mean of one number per example."""
  z, target = logits.astype(jnp.float32), groups.one_hot
  p = softmax(z)
  target_logit = jnp.sum(target * z, axis=1)
  others = (jnp.sum(z, axis=1) - target_logit) / (z.shape[1] - 1)
  confidence = jnp.max(p, axis=1)
  right = jnp.argmax(z, axis=1) == jnp.argmax(target, axis=1)
  right = right.astype(jnp.float32)
  gaps = _calibration_gaps(confidence, right, bins)
  ratios = _prior_log_ratios(p, target)
  per_example = [target_logit, others, confidence, right, gaps, ratios]
  return [mean_terms(x, groups) for x in per_example]


def _calibration_gaps(confidence: Array, right: Array, bins: int) -> Array:
  """Confidence minus correctness, with the sign of its bin's total."""
  gap = confidence - right
  member = confidence_bins(confidence, bins)
  totals = jnp.sum(jnp.where(member, gap[:, None], 0), axis=0)
  return gap * jnp.sign(totals)[jnp.argmax(member, axis=1)]


def _prior_log_ratios(p: Array, target: Array) -> Array:
  """sum_k p_k log(mean p_k / pi_k): its mean over examples is the KL."""
  mean, marginal = (jnp.mean(x, axis=0, keepdims=True) for x in (p, target))
  log_ratio = jnp.log(jnp.where(mean > 0, mean, 1)) - jnp.log(marginal)
  # An output that no example has adds nothing, whatever its prior.
  return jnp.sum(jnp.where(mean > 0, p * log_ratio, 0), axis=1)
