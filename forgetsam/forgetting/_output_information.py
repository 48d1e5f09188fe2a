"""How much information about the input a network's outputs expose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Float

from forgetsam._arrays import at_least_float32
from forgetsam._estimate import Estimate
from forgetsam._typing import NDArray
from forgetsam.forgetting._jackknife import (
  IntLabels,
  Rows,
  Strata,
  Terms,
  check_rows,
  jackknife,
  strata,
)

Probabilities = Float[NDArray, "n classes"]


class InformationEstimates(NamedTuple):
  """One information, estimated three ways.

  Attributes:
    plug_in: the entropy form on the probe as it is, in nats; biased downwards.
    jackknife: the entropy form, corrected for its bias by the jackknife.
    variance: the variance form, unbiased from two examples per class.
    bias_bound: at most this far below the truth lies `plug_in`'s expectation
      (and never above), whatever the network. For a difference of two
      informations, its bias is at most this large in either direction.
  """

  plug_in: Estimate
  jackknife: Estimate
  variance: Estimate
  bias_bound: Array


class OutputInformation(NamedTuple):
  """Information of outputs about the input, given its class and in all.

  Attributes:
    conditional: I(X; Yhat | Y).
    unconditional: I(X; Yhat).
  """

  conditional: InformationEstimates
  unconditional: InformationEstimates


class InformationTerms(NamedTuple):
  plug_in: Terms
  jackknife: Terms
  variance: Terms


BothTerms = tuple[InformationTerms, InformationTerms]


def output_information(
  probabilities: Rows, labels: IntLabels
) -> OutputInformation:
  r"""Information that inputs expose in a network's outputs.

  Draw an input X, and a prediction :math:`\hat Y` from the network's output
  probabilities p(X). Since :math:`\hat Y` depends on X alone,

  .. math:: I(X; \hat Y) = H(\bar p) - \overline{H(p)}, \qquad
     I(X; \hat Y \mid Y) = \sum_c w_c \bigl(H(\bar p_c)
       - \overline{H(p)}_c\bigr)

  with means over the inputs, or over those of class c, which has the share
  :math:`w_c`. The difference of the two is :math:`I(Y; \hat Y)`: what the
  prediction tells about the class. With the Gini entropy
  :math:`1 - \sum_k p_k^2` in the place of H, the same difference is

  .. math:: H_2(\bar p) - \overline{H_2(p)} = \sum_k \mathrm{Var}(p_k),

  the *variance form* (per class, and averaged over classes, for the
  conditional one). By Pinsker's inequality the entropy form is at least half
  of it.

  *Bias.* The plug-in entropy form replaces the population's means by those of
  the probe. H is concave: its expectation is too small by

  .. math:: \mathbb E\, \mathrm{KL}(\bar p_n \Vert \bar p)
     \le \log\Bigl(1 + \sum_k \frac{\mathrm{Var}(\bar p_{n,k})}{\bar p_k}\Bigr)
     \le \log\Bigl(1 + \frac{K - 1}{n}\Bigr)

  (n_c for n, averaged over classes, in the conditional one), and on a class of
  one example it is zero by construction: use fixed probes of at least 30
  examples per class, such as `probe_indices` draws, and never the
  perturbation's own micro-batch. The jackknife removes the 1/n term,

  .. math:: \hat I_J = \hat I + \sum_c (n_c - 1)\,
     \overline{\mathrm{KL}(\bar p_{-i} \Vert \bar p)}_{i \in c}

  (with the class's own means and the weight w_c, in the conditional one). An
  error of order 1/n^2 remains, and more where a class of outputs is so rare
  that the probe hardly has it. The variance form uses unbiased variances.

  *Standard errors* are the jackknife's over examples, stratified by class: the
  class proportions of the probe count as fixed. In small classes they are too
  large (by a sixth, at twelve examples, in one of our tests). The variance form
  needs three examples of each class for it. They are nan where a class has too
  few, as are the corrected estimates where it has a single one.

  *Controls.* Information falls whenever outputs become alike: compare
  perturbations of one length, training examples with held-out ones, and report
  both informations, which can move in opposite directions.

  Args:
    probabilities: rows that sum to one. A sigmoid model is read through the
      softmax of its logits, as its validation loss is.
    labels: class indices.

  Returns:
    `OutputInformation(conditional, unconditional)`, entropy forms in nats.

  Raises:
    ValueError: labels lie outside of [0, K), or probabilities are not [n, K].

  Example:
    >>> probabilities = jnp.eye(2)[jnp.array([0, 0, 1, 1])]  # certain: one bit
    >>> information = output_information(probabilities, jnp.array([0, 0, 1, 1]))
    >>> float(information.unconditional.plug_in.value)  # log 2
    0.69...
    >>> float(information.conditional.plug_in.value)  # one output a class
    0.0

  References:
    Efron and Stein, *The jackknife estimate of variance*, 1981.
  """
  check_rows(labels, probabilities=probabilities)
  groups = strata(labels, probabilities.shape[1])
  return estimates(information_terms(probabilities, groups), groups)


@jax.jit
def information_terms(
  probabilities: Probabilities, groups: Strata
) -> BothTerms:
  """The terms of the conditional and of the unconditional information."""
  p = jnp.asarray(probabilities, jnp.float32)
  own_mean = groups.means(p)
  mean = jnp.broadcast_to(jnp.mean(p, axis=0), p.shape)
  shift = -(p - own_mean) / (groups.count - 1)[:, None]
  lost_entropy = -groups.centred(jnp.sum(entr(p), axis=1))
  lost_entropy = lost_entropy / (groups.count - 1)

  def entropy_form(
    centre: Array, shift: Array, lost: Array, share: Array | float
  ) -> tuple[Terms, Terms]:
    plug_in = jnp.mean(jnp.sum(_kl_terms(p, centre), axis=1))
    linear = -jnp.sum(shift * jnp.log(jnp.where(centre > 0, centre, 1)), axis=1)
    divergence = _divergence(centre, shift)
    moves = share * (linear - divergence - lost)
    # Where one example makes a class, 0/0 marks the correction as unknown.
    factor = share * (groups.count - 1) / groups.count
    corrected = plug_in + jnp.sum(factor * divergence)
    return Terms(plug_in, moves), Terms(corrected, moves)

  weight = groups.weight
  within = entropy_form(own_mean, shift, lost_entropy, weight)
  overall = entropy_form(
    mean, weight[:, None] * shift, weight * lost_entropy, 1.0
  )
  variances = _variance_terms(p, own_mean, mean, groups)
  return (
    InformationTerms(*within, variances[0]),
    InformationTerms(*overall, variances[1]),
  )


def _variance_terms(
  p: Array, own_mean: Array, mean: Array, groups: Strata
) -> tuple[Terms, Terms]:
  """The variance forms: within classes, and over all examples."""
  n, weight = groups.count, groups.weight
  deviation = jnp.sum((p - own_mean) ** 2, axis=1)
  within = n / (n - 1) * groups.means(deviation)
  # The class's variance without this example, less the class's variance.
  change = (within - n / (n - 1) * deviation) / (n - 2)
  conditional = Terms(jnp.mean(within), weight * change)
  # The squared mean of a probe is too large by the mean's own variance.
  square = jnp.sum((p - mean) ** 2, axis=1)
  excess = jnp.mean(weight * within / n)
  shift = -weight[:, None] * (p - own_mean) / (n - 1)[:, None]
  move = -weight * groups.centred(square) / (n - 1)
  move = move - jnp.sum(shift**2, axis=1)
  move = move + weight**2 * ((within + change) / (n - 1) - within / n)
  return conditional, Terms(jnp.mean(square) + excess, move)


@jax.jit
def estimates(terms: BothTerms, groups: Strata) -> OutputInformation:
  """Standard errors and bias bounds for both informations' terms."""
  n, num_classes = groups.one_hot.shape
  bounds = (
    jnp.mean(jnp.log1p((num_classes - 1) / groups.count)),
    jnp.log1p((num_classes - 1) / jnp.asarray(n, jnp.float32)),
  )
  conditional, unconditional = (
    InformationEstimates(
      plug_in=jackknife(one.plug_in, groups),
      jackknife=jackknife(one.jackknife, groups),
      variance=jackknife(one.variance, groups),
      bias_bound=bound,
    )
    for one, bound in zip(terms, bounds, strict=True)
  )
  return OutputInformation(conditional, unconditional)


def _kl_terms(p: Array, q: Array) -> Array:
  """p log(p / q), zero where p is; `rel_entr` subtracts logs, and cancels."""
  inside = p > 0
  ratio = jnp.where(inside, p, 1) / jnp.where(inside, q, 1)
  return jnp.where(inside, p * jnp.log(ratio), 0)


def _divergence(centre: Array, shift: Array) -> Array:
  """KL(centre + shift || centre), by a series where the shift is small.

  A difference of entropies would lose it: it is of order 1/n^2.
  """
  r = shift / jnp.where(centre > 0, centre, 1)
  small = jnp.abs(r) < 0.02
  series = r**2 * (1 / 2 - r * (1 / 6 - r * (1 / 12 - r / 20)))
  # Rounding may push an output that only one example has below zero.
  rest = jnp.maximum(1 + jnp.where(small, 0, r), 0)
  direct = -entr(rest) - jnp.where(small, 0, r)
  return jnp.sum(centre * jnp.where(small, series, direct), axis=1)


def softmax(logits: NDArray) -> Array:
  return jax.nn.softmax(at_least_float32(jnp.asarray(logits)))
