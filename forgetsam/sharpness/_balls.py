"""How much offsets in a ball raise the loss: on average, and at worst."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from forgetsam._arrays import add_delta, at_least_float32, tree_norm
from forgetsam._checks import check_number, check_rho
from forgetsam._estimate import Estimate, estimate_mean
from forgetsam._typing import PyTree, Scalar
from forgetsam.perturbations import (
  asam,
  random_perturbation,
  sam,
  scale_by_magnitude,
)
from forgetsam.sharpness._dataset_loss import DatasetLoss

# Of the radius: where a minimum's gradient is not zero.
_START = 1e-3


def average_sharpness(
  loss: DatasetLoss,
  params: PyTree,
  rho: float,
  key: jax.Array,
  *,
  num_samples: int = 50,
  adaptive: bool = False,
) -> Estimate:
  r"""The mean increase of the loss over random offsets of length rho.

  .. math:: \mathbb E\, L(w + \delta) - L(w), \qquad
     \delta = \rho\, \xi / \lVert \xi \rVert, \quad
     \xi \sim \mathcal N(0, I),

  uniform on the sphere, which in many dimensions is the ball. Adaptive:
  :math:`\delta = |w| \odot \rho\, \xi / \lVert \xi \rVert`. A sample is the
  mean of :math:`\delta` and :math:`-\delta`, which the gradient cancels from.
  To second order the result is :math:`\rho^2 \operatorname{tr}(H) / 2 d`;
  choose rho so that it is far above the loss's rounding, 1e-7 of the loss.

  Args:
    loss: as `dataset_loss` builds it.
    params: w; the offsets run over all d of its numbers.
    rho: the radius, in units of the weights' norm (adaptive: relative).
    key: of the offsets.
    num_samples: pairs of evaluations, at least 2.
    adaptive: whether offsets are in units of each weight's magnitude.

  Returns:
    The mean and its standard error over offsets.

  Raises:
    ValueError: rho is negative or nan, or num_samples is below 2.

  Example:
    >>> import forgetsam as fs
    >>> from forgetsam.sharpness import dataset_loss
    >>> forward = lambda w, state, x, **_: (x @ w, state)
    >>> batches = [{"image": jnp.eye(2), "label": jnp.arange(2)}]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> params = jnp.zeros((2, 2))  # H's eigenvalues: 0, 0, 1/4, 1/4
    >>> estimate = average_sharpness(loss, params, 0.1, jax.random.key(0))
    >>> 0 < estimate.value < 0.5 * 0.1**2 / 4
    Array(True, dtype=bool)

  References:
    Andriushchenko et al., *A Modern Look at the Relationship between Sharpness
    and Generalization*, ICML 2023 (there with Gaussian offsets).
  """
  check_rho("rho", rho)
  check_number("num_samples", num_samples, low=2)
  center = loss.value(params)
  increases = []
  for k in jax.random.split(key, num_samples):
    delta = _random_delta(k, params, rho, adaptive=adaptive)
    moved = (loss.value(add_delta(params, delta, s)) for s in (1.0, -1.0))
    increases.append(sum((value - center) / 2 for value in moved))
  return estimate_mean(jnp.stack(increases))


class WorstCase(NamedTuple):
  """The highest loss that was found in a ball.

  Attributes:
    increase: of the loss over the center's; a lower bound of the worst case,
      and at least 0.
    delta: the offset that gave it, in at least float32.
  """

  increase: Float[Array, ""]
  delta: PyTree


def worst_case_sharpness(
  loss: DatasetLoss,
  params: PyTree,
  rho: float,
  key: jax.Array,
  *,
  num_steps: int = 20,
  adaptive: bool = False,
) -> WorstCase:
  r"""The largest increase of the loss in a ball, by projected ascent.

  .. math:: \max_{\lVert \delta \rVert \le \rho} L(w + \delta) - L(w),

  adaptive: :math:`\lVert \delta / |w| \rVert \le \rho`. The first step is SAM's
  (adaptive: ASAM's) of length rho, with the gradient taken a thousandth of rho
  off w, in a random direction. Each later step adds such an offset, of length
  falling linearly to zero, and projects back onto the ball. At a minimum this
  is a power iteration, which tends to :math:`\rho^2 \lambda_{\max} / 2`.

  Args:
    loss: as `dataset_loss` builds it.
    params: w.
    rho: the radius, as in `average_sharpness`.
    key: of the first offset.
    num_steps: gradients, at least 1.
    adaptive: as in `average_sharpness`.

  Returns:
    The best point found: a *lower bound* of the maximum, and its offset.

  Raises:
    ValueError: rho is negative or nan, or num_steps is below 1.

  Example:
    >>> import forgetsam as fs
    >>> from forgetsam.sharpness import dataset_loss
    >>> forward = lambda w, state, x, **_: (x @ w, state)
    >>> batches = [{"image": jnp.eye(2), "label": jnp.arange(2)}]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> w, key = jnp.zeros((2, 2)), jax.random.key(0)
    >>> worst = worst_case_sharpness(loss, w, 0.1, key)
    >>> round(float(worst.increase), 3)  # the gradient's length is 1/2
    0.051

  References:
    Foret et al., *Sharpness-Aware Minimization for Efficiently Improving
    Generalization*, ICLR 2021, eq. (1); Kwon et al., *ASAM*, ICML 2021.
  """
  check_rho("rho", rho)
  check_number("num_steps", num_steps, low=1)
  center, delta = loss.value(params), jax.tree.map(jnp.zeros_like, params)
  best = WorstCase(jnp.zeros_like(center), add_delta(delta, delta))
  delta = _random_delta(key, params, _START * rho, adaptive=adaptive)
  for step in range(num_steps):
    value, gradient = loss.value_and_gradient(add_delta(params, delta))
    best = _better(best, WorstCase(value - center, delta))
    radius = rho * (1 - step / num_steps)
    ascent = _ascent_delta(gradient, params, radius, adaptive=adaptive)
    # The first step is SAM's own, to the sphere.
    delta = add_delta(delta, ascent) if step else ascent
    delta = _project(delta, params, rho, adaptive=adaptive)
  value = loss.value(add_delta(params, delta))
  return _better(best, WorstCase(value - center, delta))


def m_sharpness(
  loss: DatasetLoss, params: PyTree, rho: float, *, adaptive: bool = False
) -> Estimate:
  r"""The mean of the batches' own one-step sharpness.

  .. math:: \frac1N \sum_B |B|\, \bigl[ L_B(w + \delta_B) - L_B(w) \bigr],
     \qquad \delta_B = \rho\, g_B / \lVert g_B \rVert,

  with :math:`g_B` the gradient of the batch's loss; adaptive: ASAM's
  :math:`\delta_B = \rho\, |w|^2 g_B / \lVert |w|\, g_B \rVert`. It is what SAM
  with micro-batches of m examples descends beyond the loss.

  Args:
    loss: `dataset_loss` over *batches of m examples*; those of a padded batch
      count in proportion.
    params: w.
    rho: the radius, as in `average_sharpness`.
    adaptive: as in `average_sharpness`.

  Returns:
    The mean, and its standard error over draws of the batches (nan for one).

  Raises:
    ValueError: rho is negative or nan.

  Example:
    >>> import forgetsam as fs
    >>> from forgetsam.sharpness import dataset_loss
    >>> forward = lambda w, state, x, **_: (x @ w, state)
    >>> examples = zip(jnp.eye(2)[:, None], jnp.arange(2)[:, None])
    >>> batches = [{"image": x, "label": y} for x, y in examples]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> estimate = m_sharpness(loss, jnp.zeros((2, 2)), 0.1)
    >>> round(float(estimate.value), 3)  # m = 1: gradients of length 0.7
    0.073

  References:
    Foret et al., ICLR 2021, section 4.1.
  """
  check_rho("rho", rho)
  parts = [part for part in loss.parts if part.num_examples > 0]
  increases = []
  for part in parts:
    value, gradient = part.value_and_gradient(params)
    delta = _ascent_delta(gradient, params, rho, adaptive=adaptive)
    increases.append(part.value(add_delta(params, delta)) - value)
  counts = jnp.array([part.num_examples for part in parts], jnp.float32)
  return estimate_mean(jnp.stack(increases), counts)


@jax.jit
def _better(best: WorstCase, new: WorstCase) -> WorstCase:
  # A loss that is not finite is the worst of all, and stays.
  take = ~(new.increase <= best.increase) & jnp.isfinite(best.increase)
  return jax.tree.map(lambda b, n: jnp.where(take, n, b), best, new)


@functools.partial(jax.jit, static_argnames="adaptive")
def _ascent_delta(
  gradient: PyTree, params: PyTree, radius: Scalar, *, adaptive: bool
) -> PyTree:
  perturbation = asam(radius) if adaptive else sam(radius)
  return _first_update(perturbation, gradient, params)


@functools.partial(jax.jit, static_argnames="adaptive")
def _random_delta(
  key: jax.Array, params: PyTree, radius: Scalar, *, adaptive: bool
) -> PyTree:
  """An offset that is uniform on the sphere (adaptive: before |w|)."""
  wide = jax.tree.map(at_least_float32, params)
  perturbation = random_perturbation(radius, jax.random.bits(key))
  if adaptive:
    perturbation = optax.chain(perturbation, scale_by_magnitude())
  return _first_update(perturbation, wide, wide)


def _first_update(
  perturbation: optax.GradientTransformation, gradient: PyTree, params: PyTree
) -> PyTree:
  return perturbation.update(gradient, perturbation.init(params), params)[0]


@functools.partial(jax.jit, static_argnames="adaptive")
def _project(
  delta: PyTree, params: PyTree, radius: Scalar, *, adaptive: bool
) -> PyTree:
  """The nearest offset in the ball (adaptive: nearest in units of |w|)."""

  def relative(d: Array, w: Array) -> Array:
    # An adaptive offset is zero where the weight is.
    size = jnp.abs(at_least_float32(w))
    return jnp.where(size > 0, d / jnp.where(size > 0, size, 1), 0)

  norm = tree_norm(jax.tree.map(relative, delta, params) if adaptive else delta)
  return optax.tree.scale(jnp.where(norm > radius, radius / norm, 1.0), delta)
