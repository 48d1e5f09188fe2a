"""Ascent in several steps that share one radius."""

from typing import Any

import jax
import optax

from forgetsam._arrays import add_delta, at_least_float32, cast_like
from forgetsam._checks import check_count, check_transform
from forgetsam._passes import needed_ascent_fn
from forgetsam._typing import GradFn, PyTree


def multi_step(
  perturbation: optax.GradientTransformation, steps: int
) -> optax.GradientTransformationExtraArgs:
  r"""Takes a perturbation in n steps, with a new ascent gradient at each.

  .. math:: \delta_i = \delta_{i-1} + \tfrac1n P\bigl(g(w + \delta_{i-1})\bigr),
     \qquad \delta_0 = 0, \qquad \delta = \delta_n

  with P the perturbation and g the ascent gradient, evaluated by the extra
  argument `ascent_fn` (`make_train_step` provides it). The first step takes the
  gradient that `update` is given: n steps cost n - 1 more passes. As the radius
  is shared out, :math:`\lVert\delta\rVert \le \rho`.

  Every step reads the incoming state of P, and the first step's new state is
  kept: a schedule of rho counts updates. P sees :math:`w + \delta_{i-1}` as
  params, so that `asam` takes magnitudes there; `random_perturbation` draws the
  *same* direction n times. Steps are unrolled: compile time grows with them.

  What stands before this in a chain sees the first gradient alone. Use it
  around `optax.partition`, not within, as `active_between`.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    steps: n, at least 1, known before tracing; 1 is P to the bit.

  Raises:
    ValueError: steps is not an integer of at least 1; `update` without params
      or ascent_fn where n > 1.

  Example:
    >>> import jax.numpy as jnp
    >>> from forgetsam import sam
    >>> def ascent_fn(w):  # of the objective w_0 w_1
    ...   return w[::-1]
    >>> w = jnp.array([0.0, 1.0])
    >>> perturbation = multi_step(sam(rho=2.0), steps=2)
    >>> delta, _ = perturbation.update(
    ...   ascent_fn(w), perturbation.init(w), w, ascent_fn=ascent_fn
    ... )
    >>> [round(float(d), 3) for d in delta]  # (1, 0), and (1, 1) / sqrt(2)
    [1.707, 0.707]

  References:
    Ours, also as a reading of "Iterated Output Bias Forgetting" (Vani et al.,
    ICML 2024, algorithm A.1, which is not known to us). Foret et al., ICLR
    2021, try several steps for SAM in an appendix.
  """
  check_count("steps", steps)
  check_transform("perturbation", perturbation, "sam(rho)")
  inner = optax.with_extra_args_support(perturbation)

  def update_fn(
    ascent_grads: PyTree,
    state: Any,
    params: PyTree | None = None,
    *,
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, Any]:
    extra = extra | {"ascent_fn": ascent_fn}
    first, new_state = inner.update(ascent_grads, state, params, **extra)
    if steps == 1:
      return first, new_state
    name = f"multi_step with steps={steps}"
    ascent_fn = needed_ascent_fn(name, params, ascent_fn)
    # In float32, where the share of a step and the sum of many survive.
    delta = jax.tree.map(lambda d: at_least_float32(d) / steps, first)
    for _ in range(steps - 1):
      point = add_delta(params, delta)
      grads = cast_like(ascent_fn(point), ascent_grads)
      step, _ = inner.update(grads, state, point, **extra)
      delta = jax.tree.map(
        lambda total, d: total + at_least_float32(d) / steps, delta, step
      )
    return cast_like(delta, first), new_state

  return optax.GradientTransformationExtraArgs(inner.init, update_fn)
