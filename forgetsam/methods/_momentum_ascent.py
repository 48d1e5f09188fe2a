"""Perturbing along the optimizer's momentum: no ascent pass at all."""

from typing import Any

import jax
import optax

from forgetsam._arrays import is_masked
from forgetsam._typing import PyTree
from forgetsam.perturbations import scale_to_radius


def momentum_ascent(
  rho: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
  r"""MSAM's perturbation: along the momentum's step, with no pass of its own.

  .. math:: \delta = -\rho_t\, m / \lVert m \rVert_2,
     \qquad \delta = 0 \text{ where } m = 0

  with m the optimizer's momentum: the first `trace` (of `optax.trace`, `sgd`
  and `sgdw`) or `mu` (of the Adam family) in the extra argument `opt_state`,
  which `make_train_step` provides.

  The sign is the paper's: the offset goes where the optimizer goes; for the
  other, chain with `optax.scale(-1.0)`. A compiled step computes no ascent
  gradient, only the clean forward pass. All micro-batches share the offset.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.

  Raises:
    ValueError: rho is negative or nan; `update` without an `opt_state` that
      holds a momentum of params' structure.

  Example:
    >>> import jax.numpy as jnp
    >>> optimizer, w = optax.sgd(0.1, momentum=0.9), jnp.zeros(2)
    >>> _, opt_state = optimizer.update(
    ...   jnp.array([3.0, 4.0]), optimizer.init(w), w
    ... )
    >>> perturbation = momentum_ascent(rho=0.5)
    >>> perturbation.update(w, perturbation.init(w), w, opt_state=opt_state)[0]
    Array([-0.3, -0.4], dtype=float32)

  References:
    Becker et al., *Momentum-SAM*, 2024, algorithm 1.
  """

  def update_fn(
    updates: PyTree,
    state: optax.EmptyState,
    params: PyTree | None = None,
    *,
    opt_state: Any = None,
    **extra: Any,
  ) -> tuple[PyTree, optax.EmptyState]:
    return momentum_like("momentum_ascent", updates, opt_state), state

  momentum = optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update_fn
  )
  return optax.chain(momentum, scale_to_radius(rho), optax.scale(-1.0))


def momentum_like(name: str, tree: PyTree, opt_state: Any) -> PyTree:
  """The optimizer's momentum, with a tree's dtypes and gaps."""
  momentum = _find_momentum(name, opt_state)
  try:
    # Under `only` and `partition`, the tree lacks what is left out.
    return jax.tree.map(_take, tree, momentum, is_leaf=is_masked)
  except ValueError as error:
    raise ValueError(
      f"{name} found a momentum with the structure "
      f"{jax.tree.structure(momentum)}, which is not that of params, "
      f"{jax.tree.structure(tree)}: the optimizer must keep one momentum "
      "for all parameters"
    ) from error


def _take(like: Any, m: Any) -> Any:
  if is_masked(like):
    return like
  if is_masked(m):
    raise ValueError("the momentum lacks an array of params")
  return m.astype(like.dtype)


def _find_momentum(name: str, opt_state: Any) -> PyTree:
  """The first `trace` or `mu` of a state in the tree of states."""
  if opt_state is None:
    raise ValueError(
      f"{name} needs opt_state, the optimizer's state: call "
      "update(ascent_grads, state, params, grad_fn=grad_fn, "
      "opt_state=opt_state). make_train_step provides it."
    )
  for state in jax.tree.leaves(
    opt_state, is_leaf=lambda s: _momentum_name(s) != ""
  ):
    if field := _momentum_name(state):
      return getattr(state, field)
  raise ValueError(
    f"{name} found no momentum (a state with `trace` or `mu`) in "
    "opt_state: use an optimizer with momentum, such as sgdw(learning_rate, "
    "momentum=0.9) or optax.adamw(learning_rate)"
  )


def _momentum_name(state: Any) -> str:
  fields = getattr(state, "_fields", ())
  return next((name for name in ("trace", "mu") if name in fields), "")
