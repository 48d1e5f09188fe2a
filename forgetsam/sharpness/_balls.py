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
  :math:`\delta = |w| \odot \rho\, \xi / \lVert \xi \rVert`, so that
  :math:`\lVert \delta / |w| \rVert = \rho`. A sample is the mean of
  :math:`\delta` and :math:`-\delta`, which the gradient cancels from. To second
  order the result is :math:`\rho^2 \operatorname{tr}(H) / 2 d`; choose rho so
  that it is far above the loss's rounding, 1e-7 of the loss.

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
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images @ params, model_state
    >>> batches = [{"image": jnp.eye(2), "label": jnp.array([0, 1])}]
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
    up, down = (
      loss.value(add_delta(params, delta, sign)) for sign in (1.0, -1.0)
    )
    increases.append((up - center) / 2 + (down - center) / 2)
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
  falling linearly to zero, and projects back onto the ball. The best point is
  returned: a *lower bound* of the maximum. At a minimum this is a power
  iteration, which tends to :math:`\rho^2 \lambda_{\max} / 2`.

  Args:
    loss: as `dataset_loss` builds it.
    params: w.
    rho: the radius, in units of the weights' norm (adaptive: relative).
    key: of the first offset.
    num_steps: gradients, at least 1.
    adaptive: whether offsets are in units of each weight's magnitude.

  Returns:
    The increase and its offset.

  Raises:
    ValueError: rho is negative or nan, or num_steps is below 1.

  Example:
    >>> import forgetsam as fs
    >>> from forgetsam.sharpness import dataset_loss
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images @ params, model_state
    >>> batches = [{"image": jnp.eye(2), "label": jnp.array([0, 1])}]
    >>> loss = dataset_loss(forward, fs.softmax_cross_entropy(), {}, batches)
    >>> worst = worst_case_sharpness(
    ...   loss, jnp.zeros((2, 2)), 0.1, jax.random.key(0)
    ... )  # the gradient's length is 1/2
    >>> round(float(worst.increase), 3)
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
    ascent = ascent_delta(gradient, params, radius, adaptive=adaptive)
    # The first step is SAM's own, to the sphere.
    delta = add_delta(delta, ascent) if step else ascent
    delta = _project(delta, params, rho, adaptive=adaptive)
  value = loss.value(add_delta(params, delta))
  return _better(best, WorstCase(value - center, delta))


@jax.jit
def _better(best: WorstCase, new: WorstCase) -> WorstCase:
  # A loss that is not finite is the worst of all, and stays.
  take = ~(new.increase <= best.increase) & jnp.isfinite(best.increase)
  return jax.tree.map(lambda b, n: jnp.where(take, n, b), best, new)


@functools.partial(jax.jit, static_argnames="adaptive")
def ascent_delta(
  gradient: PyTree, params: PyTree, radius: Scalar, *, adaptive: bool
) -> PyTree:
  """The offset that raises the loss most to first order, on the sphere."""
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


@functools.partial(jax.jit, static_argnames="adaptive")
def _project(
  delta: PyTree, params: PyTree, radius: Scalar, *, adaptive: bool
) -> PyTree:
  """The nearest offset in the ball (adaptive: nearest in units of |w|)."""
  norm = tree_norm(_relative(delta, params) if adaptive else delta)
  shrink = jnp.where(norm > radius, radius / norm, 1.0)
  return jax.tree.map(lambda d: shrink * d, delta)


def _relative(delta: PyTree, params: PyTree) -> PyTree:
  """delta / |w|, zero where the weight is, as adaptive offsets are there."""

  def divide(d: Array, w: Array) -> Array:
    magnitude = jnp.abs(at_least_float32(w))
    inside = magnitude > 0
    return jnp.where(inside, d / jnp.where(inside, magnitude, 1), 0)

  return jax.tree.map(divide, delta, params)


def _first_update(
  perturbation: optax.GradientTransformation, gradient: PyTree, params: PyTree
) -> PyTree:
  return perturbation.update(gradient, perturbation.init(params), params)[0]
