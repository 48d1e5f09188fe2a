"""SAMPa: SAM whose two gradients do not wait for each other."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import add_delta, at_least_float32, cast_like, wide_zeros
from forgetsam._checks import check_number
from forgetsam._passes import value_and_grad
from forgetsam._schedules import value_at
from forgetsam._typing import GradFn, PyTree, Scalar, ValueAndGradFn
from forgetsam.methods._momentum_ascent import momentum_like
from forgetsam.perturbations import PerturbedGradientState, perturbed_gradient


class SAMPaState(NamedTuple):
  """Memory of `sampa`; `grads` is the last :math:`q`, in float32 or wider."""

  perturbation: Any
  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  grads: PyTree


def sampa(
  perturbation: optax.GradientTransformation,
  learning_rate: optax.ScalarOrSchedule,
  lam: Scalar = 0.2,
  momentum: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
  r"""SAM's gradient on the batch before, beside the next ascent's on this one.

  .. math:: p = \nabla L_{t-1}\bigl(w + P(q)\bigr), \qquad
     q^+ = \nabla L_t\bigl(w - \eta_t (q + \mu m)\bigr), \qquad
     \text{result} = (1 - \lambda)\, p + \lambda\, q^+

  with P the perturbation, q the last step's :math:`q^+` (0 at first) and m the
  optimizer's momentum before the step. It takes the place of
  `perturbed_gradient`. Neither gradient needs the other, so that they can be
  taken side by side: two passes, of which one is waited for.

  It ascends the loss, by :math:`q`, and reads no ascent gradient: an `ascent`
  of another kind changes nothing. `update` takes the batch before as the extra
  argument `previous_value_and_grad_fn`, `params -> (loss, gradient)`. A step of
  `make_train_step` has it where its batch has the examples of the one before,
  `{"image": ..., "label": ..., "previous": {"image": ..., "label": ...}}`; the
  first batch stands before itself.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    learning_rate: :math:`\eta`, the optimizer's: a float, or its schedule.
    lam: :math:`\lambda` in [0, 1], the weight of :math:`q^+`; 0 is SAMPa
      without it.
    momentum: :math:`\mu` in [0, 1); 0 in the paper. With the optimizer's, as in
      the official code, it needs `opt_state`, as `momentum_ascent` does.

  Returns:
    A transformation with the arguments of `perturbed_gradient` and its state
    around `SAMPaState`.

  Raises:
    ValueError: learning_rate is negative, or lam or momentum is out of range;
      `update` without params, a gradient function, or the batch before.

  Example:
    >>> from forgetsam import sam
    >>> value_and_grad_fn = jax.value_and_grad(lambda w: 0.5 * jnp.sum(w**2))
    >>> functions = {
    ...   "value_and_grad_fn": value_and_grad_fn,
    ...   "previous_value_and_grad_fn": value_and_grad_fn,
    ... }
    >>> transform, w = sampa(sam(rho=1.0), 0.1, lam=0.5), jnp.array([2.0])
    >>> state = transform.init(w)
    >>> for _ in range(2):
    ...   g, state = transform.update(w, state, w, **functions)
    ...   print(g)
    [2.]
    [2.4]

  References:
    Xie et al., *SAMPa: Sharpness-Aware Minimization Parallelized*, NeurIPS
    2024, algorithm 1.
  """
  if not callable(learning_rate):
    check_number("learning_rate", learning_rate, low=0)
  check_number("lam", lam, low=0, high=1)
  check_number("momentum", momentum, low=0, high=1, exclude_high=True)
  transform = perturbed_gradient(perturbation)
  moves = not (isinstance(momentum, (int, float)) and momentum == 0)

  def init_fn(params: PyTree) -> PerturbedGradientState:
    state = transform.init(params)
    memory = SAMPaState(
      state.perturbation, jnp.zeros((), jnp.int32), wide_zeros(params)
    )
    return state._replace(perturbation=memory)

  def update_fn(
    ascent_grads: PyTree,
    state: PerturbedGradientState,
    params: PyTree | None = None,
    *,
    grad_fn: GradFn | None = None,
    value_and_grad_fn: ValueAndGradFn | None = None,
    previous_value_and_grad_fn: ValueAndGradFn | None = None,
    ascent_fn: GradFn | None = None,
    opt_state: Any = None,
    **extra: Any,
  ) -> tuple[PyTree, PerturbedGradientState]:
    loss_and_grads = value_and_grad("sampa", params, grad_fn, value_and_grad_fn)
    if previous_value_and_grad_fn is None:
      raise ValueError(
        "sampa needs previous_value_and_grad_fn, the function params -> (loss, "
        "gradient) on the batch before: pass it to update, or, to a step of "
        'make_train_step, that batch as batch["previous"]'
      )
    memory = state.perturbation
    before, new_state = transform.update(
      cast_like(memory.grads, params),
      state._replace(perturbation=memory.perturbation),
      params,
      value_and_grad_fn=previous_value_and_grad_fn,
      opt_state=opt_state,
      **extra,
    )
    way = memory.grads
    if moves:
      way = add_delta(way, momentum_like("sampa", way, opt_state), momentum)
    rate = value_at(learning_rate, memory.count)
    ahead = loss_and_grads(add_delta(params, way, -rate))[1]

    def mix(p: Array, q: Array) -> Array:
      return ((1 - lam) * at_least_float32(p) + lam * q).astype(p.dtype)

    wide = jax.tree.map(at_least_float32, ahead)
    memory = SAMPaState(
      new_state.perturbation, optax.safe_increment(memory.count), wide
    )
    return jax.tree.map(mix, before, wide), new_state._replace(
      perturbation=memory
    )

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
