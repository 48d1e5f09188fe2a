"""Output forgetting on fixed probes, averaged over micro-batches."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from forgetsam._estimate import Estimate
from forgetsam._typing import PyTree
from forgetsam.forgetting._effect import effect_over_repeats
from forgetsam.forgetting._jackknife import Strata, strata
from forgetsam.forgetting._offsets import DeltaFn, Examples, LogitsFn, batched
from forgetsam.forgetting._output_forgetting import (
  BothTerms,
  difference,
  logits_terms,
)
from forgetsam.forgetting._output_information import (
  OutputInformation,
  estimates,
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

  *Bias*: that of `output_forgetting`, which repeats do not reduce. *Standard
  errors* come over repeats and over the probe, apart. *Controls*: probes of
  training and of held-out examples side by side, a random perturbation of the
  same length, and an untrained network.

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
    >>> import jax.numpy as jnp
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

  References:
    Ours: the paper's estimators are not known to us.
  """
  probes = dict(probes)
  effect = _ProbeEffect(logits_fn, batch_size)
  groups, before, num_classes = {}, {}, {}
  for name, (images, labels) in probes.items():
    shape = jax.eval_shape(logits_fn, params, images).shape
    num_classes[name] = shape[1]
    groups[name] = strata(labels, shape[1])
    before[name] = _before(logits_fn, batch_size, params, images, groups[name])
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
    name: _report(before[name], means[name], groups[name], num_classes[name])
    for name in probes
  }


@dataclasses.dataclass(frozen=True)
class _ProbeEffect:
  """Forgetting on all probes; equal, and compiled once, for equal fields."""

  logits_fn: LogitsFn
  batch_size: int | None

  def __call__(
    self, params: PyTree, perturbed: PyTree, context: Any
  ) -> dict[str, BothTerms]:
    del params
    images, groups, before = context
    terms = {}
    for name in images:
      logits = batched(self.logits_fn, perturbed, images[name], self.batch_size)
      after = logits_terms(logits, groups[name])
      terms[name] = difference(before[name], after)
    return terms


def _report(
  before: BothTerms, means: Any, groups: Strata, num_classes: int
) -> ProbeForgetting:
  """Errors over repeats from the values, and over the probe from the moves."""
  is_estimate = lambda x: isinstance(x, Estimate)  # noqa: E731
  mean_terms = jax.tree.map(lambda e: e.value, means, is_leaf=is_estimate)
  over_probe = estimates(mean_terms, groups, num_classes=num_classes)
  forgotten = [
    information._replace(**{k: v.value for k, v in terms._asdict().items()})
    for information, terms in zip(over_probe, means, strict=True)
  ]
  return ProbeForgetting(
    estimates(before, groups, num_classes=num_classes),
    OutputInformation(*forgotten),
    over_probe,
  )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _before(
  logits_fn: LogitsFn,
  batch_size: int | None,
  params: PyTree,
  images: Any,
  groups: Strata,
) -> BothTerms:
  return logits_terms(batched(logits_fn, params, images, batch_size), groups)
