"""SAM: a step of a given length along the ascent gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import (
  at_least_float32,
  cast_like,
  on_parts,
  to_length,
  tree_norm,
)
from forgetsam._checks import (
  check_choice,
  check_number,
  check_rho,
  is_number,
)
from forgetsam._schedules import value_at
from forgetsam._typing import PyTree, Scalar


class RadiusState(NamedTuple):
  """State of `scale_to_radius`."""

  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count


def scale_to_radius(
  rho: optax.ScalarOrSchedule,
  eps: Scalar = 0.0,
  norm: str = "l2",
) -> optax.GradientTransformationExtraArgs:
  r"""Rescales the ascent gradient to a weight offset of length `rho`.

  .. math:: \delta = \rho_t \, g / \lVert g \rVert_2,
     \qquad \delta = 0 \text{ where } g = 0,

  or, in the maximum norm, :math:`\delta = \rho_t \operatorname{sign}(g)`: the
  offset of that length along which a linear objective rises most. The norm runs
  over the whole tree, in float32 whatever the leaves' dtype.

  Args:
    rho: radius, in units of the weights' Euclidean norm; a float, at least 0,
      or a schedule of the update count.
    eps: added to the norm, at least 0, as other implementations do: it shortens
      the offset.
    norm: "l2" or "linf".

  Returns:
    A transformation from ascent gradients to offsets with the same structure,
    shapes and dtypes.

  Raises:
    ValueError: rho or eps is negative or nan, norm is neither, or eps is given
      for "linf".

  Example:
    >>> perturbation = scale_to_radius(0.5)
    >>> g = {"w": jnp.array([3.0, 4.0])}
    >>> delta, state = perturbation.update(g, perturbation.init(g))
    >>> delta["w"]
    Array([0.3, 0.4], dtype=float32)

  References:
    Foret et al., *Sharpness-Aware Minimization*, ICLR 2021, eq. (2).
  """
  check_rho("rho", rho)
  check_number("eps", eps, low=0)
  check_choice("norm", norm, ("l2", "linf"))
  has_eps = not is_number(eps) or eps > 0
  if is_number(eps) and has_eps and norm == "linf":
    raise ValueError(f"eps={eps} must be 0 where norm='linf' divides by none")

  def init_fn(params: PyTree) -> RadiusState:
    return RadiusState(jnp.zeros((), jnp.int32))

  def update_fn(
    updates: PyTree, state: RadiusState, params: object = None, **extra: object
  ) -> tuple[PyTree, RadiusState]:
    radius = value_at(rho, state.count)
    if norm == "linf":
      delta = jax.tree.map(
        lambda g: on_parts(
          lambda x: jnp.asarray(radius).astype(x.dtype) * jnp.sign(x),
          at_least_float32(g),
        ),
        updates,
      )
    else:
      if has_eps:
        length = tree_norm(updates)
        divisor = jnp.where(length == 0, 1, length + eps)
        radius = radius * length / divisor
      delta = to_length(updates, radius)
    count = optax.safe_increment(state.count)
    return cast_like(delta, updates), RadiusState(count)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def sam(rho: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
  r"""SAM's perturbation: a step of length rho along the ascent gradient.

  .. math:: \delta = \rho_t\, g / \lVert g \rVert_2

  With the ascent signal `output_bias_forgetting()` it is OBF's.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.

  Raises:
    ValueError: rho is negative or nan.

  Example:
    >>> perturbation, g = sam(rho=0.5), jnp.array([3.0, 4.0])
    >>> perturbation.update(g, perturbation.init(g))[0]
    Array([0.3, 0.4], dtype=float32)

  References:
    Foret et al., *Sharpness-Aware Minimization*, ICLR 2021, eq. (2).
  """
  return scale_to_radius(rho)
