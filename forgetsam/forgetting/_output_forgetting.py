"""Output forgetting: the information in the outputs, before minus after."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from forgetsam._estimate import Estimate
from forgetsam._typing import NDArray, PyTree
from forgetsam.forgetting._effect import effect_over_repeats
from forgetsam.forgetting._jackknife import (
  IntLabels,
  Rows,
  Strata,
  check_rows,
  strata,
)
from forgetsam.forgetting._offsets import DeltaFn, Examples, LogitsFn, batched
from forgetsam.forgetting._output_information import (
  BothTerms,
  OutputInformation,
  estimates,
  information_terms,
  softmax,
)

ProbeLogits = Float[NDArray, "n classes"]


class OutputForgetting(NamedTuple):
  """The outputs' information at w, at w + delta, and the paired difference."""

  before: OutputInformation
  after: OutputInformation
  forgotten: OutputInformation


def output_forgetting(
  before_logits: Rows,
  after_logits: Rows,
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
    ValueError: labels lie outside of [0, K), or logits are not [n, K].

  Example:
    >>> labels = jnp.array([0, 0, 1, 1])
    >>> before = 30.0 * jnp.eye(2)[labels]  # certain, and right
    >>> report = output_forgetting(before, jnp.zeros((4, 2)), labels)
    >>> float(report.forgotten.unconditional.plug_in.value)  # log 2
    0.69...
  """
  check_rows(labels, before_logits=before_logits, after_logits=after_logits)
  groups = strata(labels, before_logits.shape[1])
  before, after = (
    information_terms(softmax(logits), groups)
    for logits in (before_logits, after_logits)
  )
  forgotten = jax.tree.map(jnp.subtract, before, after)
  return OutputForgetting(
    *(estimates(terms, groups) for terms in (before, after, forgotten))
  )


class ProbeForgetting(NamedTuple):
  """The mean output forgetting of a perturbation, on one probe.

  Attributes:
    before: the information at the clean weights, with errors over the probe.
    forgotten: before minus after, the mean over repeats, with standard errors
      over repeats: what counts when networks share a probe.
    forgotten_over_probe: the same values with standard errors over the probe's
      examples, the offsets given. The two errors are independent.
  """

  before: OutputInformation
  forgotten: OutputInformation
  forgotten_over_probe: OutputInformation


def probe_forgetting(
  logits_fn: LogitsFn,
  delta_fn: DeltaFn,
  params: PyTree,
  examples: Examples,
  probes: Mapping[str, Examples],
  *,
  m: int,
  repeats: int,
  key: jax.Array,
  batch_size: int | None = None,
) -> dict[str, ProbeForgetting]:
  r"""Averages output forgetting on fixed probes over random micro-batches.

  .. math:: \frac1R \sum_r I_w(X; \hat Y \mid Y)
     - I_{w + \delta(w; B_r)}(X; \hat Y \mid Y)

  and the unconditional information, in all forms of `output_information`.
  Every micro-batch's offset is evaluated on all probes. To compare networks,
  use a common perturbation (SAM and OBF of a fixed radius and m) beside each
  run's own.

  *Bias*: that of `output_forgetting`, which repeats do not reduce. *Controls*:
  probes of training and of held-out examples side by side, a random
  perturbation of the same length, and an untrained network.

  Args:
    logits_fn: `(params, images) -> logits`, in evaluation mode.
    delta_fn: as in `effect_over_repeats`.
    params: the network's weights.
    examples: images and labels that the micro-batches come from.
    probes: name -> images and labels; at least 30 examples of every class.
    m: examples in a micro-batch.
    repeats: number of micro-batches.
    key: of the draws.
    batch_size: probe examples at a time; the result does not depend on it.

  Returns:
    name -> `ProbeForgetting`.

  Raises:
    ValueError: as in `effect_over_repeats`; labels lie out of range.

  Example:
    >>> import forgetsam as fs
    >>> from forgetsam.forgetting import offset_fn
    >>> def logits_fn(w, x):
    ...   return x @ w
    >>> delta_fn = offset_fn(
    ...   logits_fn, fs.output_bias_forgetting(gamma=0.0), fs.sam(rho=0.5)
    ... )
    >>> x, y = jnp.eye(4), jnp.array([0, 0, 1, 1])
    >>> report = probe_forgetting(
    ...   logits_fn, delta_fn, 3 * jnp.eye(2)[y], (x, y), {"train": (x, y)},
    ...   m=4, repeats=1, key=jax.random.key(0),
    ... )
    >>> bool(report["train"].forgotten.unconditional.plug_in.value > 0)
    True
  """
  probes = dict(probes)
  effect = _ProbeEffect(logits_fn, batch_size)
  groups, before = {}, {}
  for name, (images, labels) in probes.items():
    num_classes = jax.eval_shape(logits_fn, params, images).shape[1]
    groups[name] = strata(labels, num_classes)
    before[name] = effect.terms(params, images, groups[name])
  images_only = {name: images for name, (images, _) in probes.items()}
  means = effect_over_repeats(
    effect,
    delta_fn,
    params,
    examples,
    (images_only, groups, before),
    m=m,
    repeats=repeats,
    key=key,
  )
  return {
    name: _report(before[name], means[name], groups[name]) for name in probes
  }


@dataclasses.dataclass(frozen=True)
class _ProbeEffect:
  """Forgetting on all probes; equal, and compiled once, for equal fields."""

  logits_fn: LogitsFn
  batch_size: int | None

  @functools.partial(jax.jit, static_argnums=0)
  def terms(self, params: PyTree, images: Any, groups: Strata) -> BothTerms:
    logits = batched(self.logits_fn, params, images, self.batch_size)
    return information_terms(softmax(logits), groups)

  def __call__(
    self, params: PyTree, perturbed: PyTree, context: Any
  ) -> dict[str, BothTerms]:
    del params
    images, groups, before = context
    after = {n: self.terms(perturbed, images[n], groups[n]) for n in images}
    return jax.tree.map(jnp.subtract, before, after)


def _report(before: BothTerms, means: Any, groups: Strata) -> ProbeForgetting:
  """Errors over repeats from the values, and over the probe from the moves."""
  is_estimate = lambda x: isinstance(x, Estimate)  # noqa: E731
  mean_terms = jax.tree.map(lambda e: e.value, means, is_leaf=is_estimate)
  over_probe = estimates(mean_terms, groups)
  forgotten = [
    information._replace(**{k: v.value for k, v in terms._asdict().items()})
    for information, terms in zip(over_probe, means, strict=True)
  ]
  return ProbeForgetting(
    estimates(before, groups), OutputInformation(*forgotten), over_probe
  )
