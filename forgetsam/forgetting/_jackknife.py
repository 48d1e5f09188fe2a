"""Standard errors by the jackknife over a stratified probe."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from forgetsam._estimate import Estimate
from forgetsam._typing import NDArray

IntLabels = NDArray  # class indices [n]: `check_indices` refuses others
Rows = NDArray  # real [n, d], one per label: `check_rows` refuses others


class Terms(NamedTuple):
  """A statistic, and how much it moves where one example is left out.

  The difference of two statistics' terms gives paired standard errors.
  """

  value: Float[Array, ""]
  moves: Float[Array, " n"]


class Strata(NamedTuple):
  """Each example's class, the size of that class, and the size over n.

  The class proportions are held fixed; examples within a class are independent.
  """

  one_hot: Float[Array, "n classes"]
  count: Float[Array, " n"]  # type: ignore[assignment]  # mypy: tuple.count
  weight: Float[Array, " n"]

  def means(self, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """The mean over each example's class, in that example's row."""
    rows = x.reshape(len(x), -1)
    sizes = jnp.maximum(jnp.sum(self.one_hot, axis=0), 1)
    # Full precision: accelerators would multiply in TF32 or bfloat16.
    sums = jnp.matmul(self.one_hot.T, rows, precision=jax.lax.Precision.HIGHEST)
    means = (sums / sizes[:, None])[jnp.argmax(self.one_hot, axis=1)]
    return means.reshape(x.shape)

  def centred(self, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """The deviations from the means over classes."""
    return x - self.means(x)


def check_indices(labels: Any) -> None:
  """Refuses labels that are not one class index for each example."""
  array = labels if isinstance(labels, jax.Array) else np.asarray(labels)
  if array.ndim != 1 or not jnp.issubdtype(array.dtype, jnp.integer):
    remedy = (
      "say labels[:, 0]" if array.shape[1:] == (1,) else "[n], of integers"
    )
    raise ValueError(
      f"labels of shape {array.shape} and dtype {array.dtype} are not one "
      f"class index for each example: {remedy}"
    )


def check_rows(labels: IntLabels, **arrays: Rows) -> None:
  """Refuses arrays without a real row for each label, or of other widths."""
  check_indices(labels)
  rows = len(labels)
  first = next(iter(arrays.values()))
  for name, x in arrays.items():
    shape, dtype = np.shape(x), jnp.result_type(x)
    fits = len(shape) == 2 and shape[0] == rows and shape == np.shape(first)
    if not fits or jnp.issubdtype(dtype, jnp.complexfloating):
      like = "" if x is first else f", and as {next(iter(arrays))}"
      raise ValueError(
        f"{name} of shape {shape} and dtype {dtype} must be real and "
        f"[{rows}, ...], a row for each label{like}"
      )


def strata(labels: IntLabels, num_classes: int) -> Strata:
  """Divides a probe by class; refuses known labels outside of the range."""
  check_indices(labels)
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

  with the mean over the class; nan where a class has a single example.
  """
  scale = (groups.count - 1) / groups.count
  variance = jnp.sum(scale * groups.centred(terms.moves) ** 2)
  # No `maximum(variance, 0)`: XLA's CPU backend may let it swallow nan.
  return Estimate(terms.value, jnp.sqrt(variance))


def mean_terms(x: Float[Array, " n"], groups: Strata) -> Terms:
  """The terms of the mean over examples."""
  moves = -groups.centred(x) * groups.weight / (groups.count - 1)
  return Terms(jnp.mean(x), moves)
