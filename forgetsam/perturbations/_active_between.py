"""Perturbing during a part of training alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import cast_like
from forgetsam._checks import (
  check_count,
  check_params,
  check_transform,
  is_number,
)
from forgetsam._combination import has_combination
from forgetsam._passes import gate, keep_memory, zeros_unless
from forgetsam._typing import GradFn, PyTree


class ActiveBetweenState(NamedTuple):
  """State of `active_between`."""

  perturbation: Any
  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count


def active_between(
  perturbation: optax.GradientTransformation,
  start: int | Array = 0,
  stop: int | Array | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Perturbs from one update to another, and not at all before and after.

  .. math:: \delta_t = \begin{cases} P(g)_t & t_0 \le t < t_1 \\ 0 &
     \text{otherwise} \end{cases}

  with t the number of updates before this one. Idle steps really skip the
  ascent pass where `ascent_fn` is given, as it is by `make_train_step` (unless
  a combine rule reads the ascent): a plain gradient and a clean forward pass
  remain. Schedules of rho count idle steps too; floating-point state waits.

  Use it around `optax.partition`, not within, where the ascent gradient of the
  whole model is out of reach; `only` works both ways.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    start: the first update that perturbs, counted from 0.
    stop: the first update after it that does not; `None` never stops.

  Raises:
    ValueError: start or stop is no integer of at least 0, or stop is not after
      start; `update` with `ascent_fn` but without params.

  Example:
    >>> from forgetsam import sam
    >>> perturbation = active_between(sam(rho=1.0), start=1, stop=2)
    >>> g, state = jnp.array([2.0]), perturbation.init(jnp.zeros(1))
    >>> for _ in range(3):
    ...   delta, state = perturbation.update(g, state)
    ...   print(delta)
    [0.]
    [1.]
    [0.]

  References:
    Zhou et al., *SAM Efficiently Selects Flatter Minima Late in Training*,
    ICLR 2025: some epochs at the end suffice.
  """
  for name, value in (("start", start), ("stop", stop)):
    if value is not None and not isinstance(value, (jax.Array, np.ndarray)):
      check_count(name, value, ", a count of updates", at_least=0)
  if is_number(start) and is_number(stop) and stop <= start:  # type: ignore[operator]
    raise ValueError(f"stop={stop} must be greater than start={start}")
  check_transform("perturbation", perturbation, "sam(rho)")
  inner = optax.with_extra_args_support(perturbation)

  def init_fn(params: PyTree) -> ActiveBetweenState:
    return ActiveBetweenState(inner.init(params), jnp.zeros((), jnp.int32))

  def update_fn(
    ascent_grads: PyTree,
    state: ActiveBetweenState,
    params: PyTree | None = None,
    *,
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, ActiveBetweenState]:
    active = state.count >= start
    if stop is not None:
      active &= state.count < stop
    if ascent_fn is None or has_combination(ascent_grads):
      grads = zeros_unless(active, ascent_grads)
    else:
      check_params("active_between with ascent_fn", params)
      ascent_fn = gate(active, ascent_fn)
      grads = cast_like(ascent_fn(params), ascent_grads)
    delta, inner_state = inner.update(
      grads, state.perturbation, params, ascent_fn=ascent_fn, **extra
    )
    return zeros_unless(active, delta), ActiveBetweenState(
      perturbation=keep_memory(active, inner_state, state.perturbation),
      count=optax.safe_increment(state.count),
    )

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
