"""WSAM with the sharpness outside of the optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import at_least_float32, is_masked
from forgetsam._checks import check_number, check_rho, check_transform
from forgetsam._schedules import value_at
from forgetsam._typing import PyTree, Scalar


class DecoupledWSAMState(NamedTuple):
  """State of `decoupled_wsam`."""

  optimizer: Any
  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count


def decoupled_wsam(
  optimizer: optax.GradientTransformation,
  learning_rate: optax.ScalarOrSchedule,
  gamma: Scalar = 0.9,
) -> optax.GradientTransformationExtraArgs:
  r"""WSAM: the optimizer descends the loss, and plain steps the sharpness.

  .. math:: u_t = O(\nabla L(w_t)) - \eta_t \frac{\gamma}{1 - \gamma}
     \bigl(\nabla L(w_t + \delta_t) - \nabla L(w_t)\bigr)

  with O the optimizer, whose momentum and second moments the sharpness never
  enters. `weighted` is the rule without this decoupling. It stands after
  `perturbed_gradient(perturbation)`, as the optimizer:

  `make_train_step(..., optimizer=decoupled_wsam(optax.adamw(1e-3), 1e-3),
  perturb=perturbed_gradient(sam(rho)))`.

  The loss's gradient at the weights is the extra argument `clean_grads`, which
  `make_train_step` provides, also where something else is ascended. What
  changes gradients before O, such as clipping, belongs inside, as in
  `decoupled_wsam(chain(clip, adam), lr)`, for it has to change both; and
  `optax.MultiSteps` not around it.

  Args:
    optimizer: of the loss, with its learning rate and decay.
    learning_rate: :math:`\eta`, usually the same; a float or a schedule of the
      update count.
    gamma: in [0, 1); the paper takes 0.8 to 0.95, 1/2 with plain SGD is SAM.

  Raises:
    ValueError: gamma is outside [0, 1), or learning_rate is negative; `update`
      without clean_grads.

  Example:
    >>> optimizer = decoupled_wsam(optax.sgd(0.1), 0.1, gamma=0.75)
    >>> w, clean = jnp.zeros(1), jnp.array([1.0])
    >>> updates, _ = optimizer.update(
    ...   jnp.array([2.0]), optimizer.init(w), w, clean_grads=clean
    ... )
    >>> print(updates)  # -0.1 (1 + 3 (2 - 1))
    [-0.4]

  References:
    Yue et al., *Sharpness-Aware Minimization Revisited*, KDD 2023, algorithm 1.
  """
  check_number("gamma", gamma, low=0, high=1, exclude_high=True)
  check_rho("learning_rate", learning_rate)
  check_transform("optimizer", optimizer, "optax.adamw(1e-3)")
  inner = optax.with_extra_args_support(optimizer)

  def init_fn(params: PyTree) -> DecoupledWSAMState:
    return DecoupledWSAMState(inner.init(params), jnp.zeros((), jnp.int32))

  def update_fn(
    perturbed: PyTree,
    state: DecoupledWSAMState,
    params: PyTree | None = None,
    *,
    clean_grads: PyTree | None = None,
    **extra: Any,
  ) -> tuple[PyTree, DecoupledWSAMState]:
    if clean_grads is None:
      raise ValueError(
        "decoupled_wsam needs clean_grads, the loss's gradient at params: call "
        "update(perturbed_grads, state, params, clean_grads=clean_grads). "
        "make_train_step provides it."
      )
    clean = jax.tree.map(  # of the arrays that an outer mask leaves
      lambda p, g: p if is_masked(p) else g.astype(p.dtype),
      perturbed,
      clean_grads,
      is_leaf=is_masked,
    )
    updates, inner_state = inner.update(
      clean, state.optimizer, params, clean_grads=clean_grads, **extra
    )
    scale = value_at(learning_rate, state.count) * gamma / (1 - gamma)

    def add(u: Array, p: Array, g: Array) -> Array:
      sharpness = at_least_float32(p) - at_least_float32(g)
      step = jnp.asarray(scale).astype(sharpness.dtype) * sharpness
      return (at_least_float32(u) - step).astype(u.dtype)

    updates = jax.tree.map(add, updates, perturbed, clean)
    count = optax.safe_increment(state.count)
    return updates, DecoupledWSAMState(inner_state, count)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
