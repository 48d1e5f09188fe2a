"""One ascent gradient for several steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import at_least_float32, cast_like, is_zero, wide_zeros
from forgetsam._checks import check_count, check_params, check_transform
from forgetsam._passes import gate
from forgetsam._typing import GradFn, PyTree


class EveryKState(NamedTuple):
  """State of `every_k`; `ascent_grads` is the last one, in float32 or wider."""

  perturbation: Any
  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  ascent_grads: PyTree


def every_k(
  perturbation: optax.GradientTransformation, k: int
) -> optax.GradientTransformationExtraArgs:
  r"""Ascends in every k-th step, and reuses that gradient in the steps between.

  .. math:: \delta_t = P(a_t), \qquad a_t = \begin{cases} g(w_t) &
     t \bmod k = 0 \\ a_{t-1} & \text{otherwise} \end{cases}

  with P the perturbation, which runs in every step, and g the ascent gradient.
  The pass of the steps between is really skipped where `ascent_fn` is given, as
  it is by `make_train_step` (unless a combine rule reads the ascent). While the
  stored gradient is zero, every step ascends. With micro-batches, the *mean* of
  their gradients is stored: in between they share its direction, at full
  radius.

  Wrap it in `multi_step` or `active_between`, not the other way round: they
  evaluate `ascent_fn` themselves. Use it around `optax.partition`, not within,
  as `active_between`.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    k: steps per ascent, at least 1, known before tracing; 1 is P.

  Raises:
    ValueError: k is not an integer of at least 1; `update` with `ascent_fn` but
      without params; a perturbation that evaluates `ascent_fn`.

  Example:
    >>> from forgetsam import sam
    >>> perturbation = every_k(sam(rho=1.0), k=2)
    >>> state = perturbation.init(jnp.zeros(2))
    >>> for g in ([3.0, 0.0], [0.0, 4.0], [0.0, 4.0]):
    ...   delta, state = perturbation.update(jnp.array(g), state)
    ...   print(delta)
    [1. 0.]
    [1. 0.]
    [0. 1.]

  References:
    Liu et al., CVPR 2022, reuse a part of the descent gradient: `look_sam`.
  """
  check_count("k", k)
  check_transform("perturbation", perturbation, "sam(rho)")
  inner = optax.with_extra_args_support(perturbation)

  def init_fn(params: PyTree) -> EveryKState:
    return EveryKState(
      inner.init(params), jnp.zeros((), jnp.int32), wide_zeros(params)
    )

  def update_fn(
    ascent_grads: PyTree,
    state: EveryKState,
    params: PyTree | None = None,
    *,
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, EveryKState]:
    stored = state.ascent_grads
    due = (state.count % k == 0) | is_zero(stored)
    fresh = ascent_grads
    if ascent_fn is not None:
      check_params("every_k with ascent_fn", params)
      fresh = gate(due, ascent_fn)(params)
    direction = jax.tree.map(
      lambda g, a: jnp.where(due, at_least_float32(g), a), fresh, stored
    )
    delta, inner_state = inner.update(
      cast_like(direction, ascent_grads),
      state.perturbation,
      params,
      ascent_fn=_refuse_ascent,
      **extra,
    )
    count = optax.safe_increment(state.count)
    return delta, EveryKState(inner_state, count, direction)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _refuse_ascent(point: PyTree) -> PyTree:
  raise ValueError(
    "every_k holds a perturbation that evaluates ascent_fn itself, such as "
    "multi_step or active_between, and would not skip its passes: turn them "
    "round, as in active_between(every_k(sam(rho), k), start, stop)"
  )
