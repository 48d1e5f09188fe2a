"""LE-SAM: a radius that raises the loss by a given amount."""

import jax.numpy as jnp
import optax

from forgetsam._arrays import cast_like, to_length, tree_norm
from forgetsam._checks import check_rho
from forgetsam._schedules import value_at
from forgetsam._typing import PyTree
from forgetsam.perturbations import RadiusState, scale_by_magnitude


def le_sam(
  rho: optax.ScalarOrSchedule,
  sigma: optax.ScalarOrSchedule,
  adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
  r"""LE-SAM's perturbation: the offset that raises the loss by sigma.

  .. math:: \delta = \min\Bigl(\frac{\sigma_t}{\lVert g \rVert_2}, \rho_t\Bigr)
     \frac{g}{\lVert g \rVert_2}

  so that :math:`\langle g, \delta \rangle = \sigma_t` to first order, where the
  largest radius allows it.

  Args:
    rho: the largest radius, the paper's :math:`\rho_{\max}` (the official code
      has 0.05, 0.3 and 999 in different places); a float, at least 0, or a
      schedule of the update count.
    sigma: :math:`\sigma`, in units of the loss; a float, at least 0, or a
      schedule. The official code warms it up, and lets it fall at the end.
    adaptive: whether :math:`\lvert w \rvert \odot g` stands in place of g, with
      one power of the weights' magnitude (`asam` has two).

  Raises:
    ValueError: rho or sigma is negative or nan.

  Example:
    >>> perturbation, g = le_sam(rho=9.0, sigma=10.0), jnp.array([3.0, 4.0])
    >>> delta, _ = perturbation.update(g, perturbation.init(g))
    >>> delta, jnp.dot(g, delta).round(4)
    (Array([1.2, 1.6], dtype=float32), Array(10., dtype=float32))

  References:
    Wang et al., *Fix the Loss, Not the Radius: Rethinking the Adversarial
    Perturbation of Sharpness-Aware Minimization*, ICML 2026.
  """
  check_rho("rho", rho)
  check_rho("sigma", sigma)

  def init_fn(params: PyTree) -> RadiusState:
    return RadiusState(jnp.zeros((), jnp.int32))

  def update_fn(
    updates: PyTree, state: RadiusState, params: object = None, **extra: object
  ) -> tuple[PyTree, RadiusState]:
    norm = tree_norm(updates)
    rise, largest = (
      jnp.asarray(value_at(x, state.count)).astype(norm.dtype)
      for x in (sigma, rho)
    )
    radius = jnp.minimum(rise / jnp.where(norm == 0, 1, norm), largest)
    delta = cast_like(to_length(updates, radius), updates)
    return delta, RadiusState(optax.safe_increment(state.count))

  transform = optax.GradientTransformationExtraArgs(init_fn, update_fn)
  return optax.chain(scale_by_magnitude(), transform) if adaptive else transform
