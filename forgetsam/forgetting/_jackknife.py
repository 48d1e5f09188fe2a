"""Standard errors by the jackknife over a stratified probe."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from forgetsam._estimate import Estimate, estimate_mean
from forgetsam._typing import NDArray

IntLabels = Int[NDArray, " n"]


class Terms(NamedTuple):
  """A statistic, and how much it moves where one example is left out.

  Differences of two statistics of the same examples are differences of their
  terms: that is what makes their standard errors paired.
  """

  value: Float[Array, ""]
  moves: Float[Array, " n"]


class Strata(NamedTuple):
  """A probe's division into classes.

  The population that it stands for has the probe's class proportions, which
  are held fixed, with independent examples within a class.

  Attributes:
    one_hot: the classes of the examples, `[n, classes]`.
    count: the size of each example's class.
    weight: that size over n.
  """

  one_hot: Float[Array, "n classes"]
  count: Float[Array, " n"]  # type: ignore[assignment]  # mypy: tuple.count
  weight: Float[Array, " n"]

  def means(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """The mean over each example's class, in that example's row."""
    sizes = jnp.maximum(jnp.sum(self.one_hot, axis=0), 1)
    # Full precision: accelerators would multiply in TF32 or bfloat16.
    sums = jnp.matmul(self.one_hot.T, x, precision=jax.lax.Precision.HIGHEST)
    return (sums / sizes[:, None])[jnp.argmax(self.one_hot, axis=1)]


def strata(labels: IntLabels, num_classes: int) -> Strata:
  """Divides a probe by class; refuses known labels outside of the range."""
  if not isinstance(labels, jax.core.Tracer):
    known = np.asarray(labels)
    if known.size == 0 or known.min() < 0 or known.max() >= num_classes:
      raise ValueError(
        f"labels must be class indices in [0, {num_classes}), at least one; "
        f"got {known}"
      )
  one_hot = jax.nn.one_hot(jnp.asarray(labels), num_classes)
  count = jnp.sum(one_hot, axis=0)[jnp.asarray(labels)]
  return Strata(one_hot, count, count / len(one_hot))


def jackknife(terms: Terms, groups: Strata) -> Estimate:
  r"""The stratified jackknife's standard error.

  .. math:: \mathrm{se}^2 = \sum_c \frac{n_c - 1}{n_c} \sum_{i \in c}
     \bigl(\theta_{-i} - \overline{\theta_{-\cdot}}\bigr)^2

  with the mean over the class. It is nan where a class has a single example,
  and somewhat too large in expectation where classes are small.
  """
  centred = terms.moves - groups.means(terms.moves[:, None])[:, 0]
  scale = (groups.count - 1) / groups.count
  variance = jnp.sum(scale * centred**2)
  # No `maximum(variance, 0)`: XLA's CPU backend may let it swallow nan.
  return Estimate(terms.value, jnp.sqrt(variance))


def mean_terms(x: Float[Array, " n"], groups: Strata) -> Terms:
  """The terms of the mean over examples."""
  centred = x - groups.means(x[:, None])[:, 0]
  return Terms(jnp.mean(x), -centred * groups.weight / (groups.count - 1))


def subtract(left: Terms, right: Terms) -> Terms:
  """The terms of a paired difference."""
  return Terms(left.value - right.value, left.moves - right.moves)


@jax.jit
def over_repeats(draws: Any) -> Any:
  """A tree of `[repeats, ...]` arrays to `Estimate`s of their means."""
  return jax.tree.map(estimate_mean, draws)
