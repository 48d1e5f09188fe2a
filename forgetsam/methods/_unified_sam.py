"""Unified SAM: between the normalised and the plain ascent gradient."""

import jax
import jax.numpy as jnp
import optax

from forgetsam._arrays import at_least_float32, to_length
from forgetsam._checks import check_number, check_rho
from forgetsam._combination import Leaf
from forgetsam._schedules import value_at
from forgetsam._typing import PyTree
from forgetsam.perturbations import RadiusState


def unified_sam(
  rho: optax.ScalarOrSchedule, lam: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
  r"""Unified SAM's perturbation: between SAM's and the gradient itself.

  .. math:: \delta = \rho_t \Bigl(1 - \lambda_t +
     \frac{\lambda_t}{\lVert g \rVert_2}\Bigr) g

  Lambda 1 is SAM, and 0 the unnormalised SAM (USAM).

  Args:
    rho: :math:`\rho`, the radius where lambda is 1; a float, at least 0, or a
      schedule of the update count.
    lam: :math:`\lambda` in [0, 1], or a schedule of the update count, which
      begins at 0: the paper's 1/t is `lambda count: 1 / (count + 1.0)`.

  Raises:
    ValueError: rho is negative or nan, or lam is outside [0, 1].

  Example:
    >>> perturbation, g = unified_sam(rho=1.0, lam=0.5), jnp.array([3.0, 4.0])
    >>> perturbation.update(g, perturbation.init(g))[0]  # the mean of both
    Array([1.8, 2.4], dtype=float32)

  References:
    Oikonomou and Loizou, *Sharpness-Aware Minimization: General Analysis and
    Improved Rates*, ICLR 2025.
  """
  check_rho("rho", rho)
  if not callable(lam):
    check_number("lam", lam, low=0, high=1)

  def init_fn(params: PyTree) -> RadiusState:
    return RadiusState(jnp.zeros((), jnp.int32))

  def update_fn(
    updates: PyTree, state: RadiusState, params: object = None, **extra: object
  ) -> tuple[PyTree, RadiusState]:
    radius = value_at(rho, state.count)
    share = value_at(lam, state.count)

    def mix(g: Leaf, normalised: Leaf) -> Leaf:
      number = lambda c: jnp.asarray(c).astype(normalised.dtype)  # noqa: E731
      plain = number(1 - share) * number(radius) * at_least_float32(g)
      return (plain + number(share) * normalised).astype(g.dtype)

    delta = jax.tree.map(mix, updates, to_length(updates, radius))
    return delta, RadiusState(optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
