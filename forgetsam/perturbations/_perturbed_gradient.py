"""From the ascent gradient to the gradient at the perturbed weights."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from forgetsam._arrays import add_delta, cast_like, plain_norm
from forgetsam._checks import check_transform
from forgetsam._passes import LossUnknown, check_unmasked, value_and_grad
from forgetsam._typing import GradFn, PyTree, ValueAndGradFn
from forgetsam.perturbations._combine import Combine


class CombinedState(NamedTuple):
  """The states of a perturbation and of a combine rule that has one."""

  perturbation: Any
  combine: Any


class PerturbedGradientState(NamedTuple):
  """State of `perturbed_gradient`.

  Attributes:
    perturbation: the state of the perturbation; `CombinedState` where the
      combine rule is a transform.
    perturbed_loss: the loss at params + delta of the last update, in float32;
      0 where only `grad_fn` was given, and before the first update.
    perturbation_norm: the Euclidean norm of the last delta.
  """

  perturbation: Any
  perturbed_loss: Float[Array, ""]
  perturbation_norm: Float[Array, ""]


def perturbed_gradient(
  perturbation: optax.GradientTransformation,
  combine: Combine | optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Turns an ascent gradient into the gradient at the perturbed weights.

  .. math:: \delta = P(g_a), \qquad g = \nabla L(w + \delta), \qquad
     \text{result} = C(g_a, \delta, g)

  with P the perturbation and C the combine rule. It stands *first* in a chain,
  so that clipping, momentum and weight decay after it see the perturbed
  gradient. `update` takes these extra arguments, which also reach P:

  - `grad_fn`: `params -> gradient of the training loss`, which is needed.
  - `value_and_grad_fn`: `params -> (loss, gradient)`, for the perturbed loss.
  - `ascent_fn`: `params -> ascent gradient`, for perturbations that ascend in
    several steps, or that skip the ascent pass.
  - `losses_fn`: `params -> loss [B] of each example alone`.
  - `micro_batch`: the global index of the micro-batch, for fresh noise.
  - `opt_state`: the optimizer's state, for perturbations along its momentum.

  Bfloat16 and float16 leaves are perturbed in float32; the gradient comes back
  in the leaf's dtype. A complex leaf is the pair of its parts, and its gradient
  optax's, the conjugate of `jax.grad`'s.

  `optax.MultiSteps` belongs after it, as in
  `chain(perturbed_gradient(...), MultiSteps(adam, k))`: around it, it would
  average ascent gradients, and perturb on the last mini-batch alone. A schedule
  of rho then counts k per optimizer update: pass `lambda t: rho(t // k)`.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    combine: `(ascent_grads, delta, grads) -> grads`, such as
      `surrogate_gap(alpha)`; or, for a rule with a state, an optax transform of
      the perturbed gradient, with `ascent_grads`, `delta`, `perturbed_loss`
      (None where only `grad_fn` is given) and the above as extra arguments.
      `None` takes the perturbed gradient.

  Returns:
    A transformation from ascent gradients to descent gradients, with state
    `PerturbedGradientState`.

  Raises:
    ValueError: the perturbation is not a transform, or combine no function
      either; `update` without params or a gradient function; `init` or `update`
      under `optax.masked` or `optax.partition`.

  Example:
    >>> import jax
    >>> import forgetsam as fs
    >>> grad_fn = jax.grad(lambda w: 0.5 * jnp.sum(w**2))  # the gradient is w
    >>> optimizer = optax.chain(
    ...   fs.perturbed_gradient(fs.sam(rho=0.5)), optax.sgd(1.0)
    ... )
    >>> w = jnp.array([3.0, 4.0])
    >>> updates, state = optimizer.update(
    ...   grad_fn(w), optimizer.init(w), w, grad_fn=grad_fn
    ... )
    >>> updates  # -(w + 0.5 w / ||w||)
    Array([-3.3, -4.4], dtype=float32)

  References:
    Foret et al., *Sharpness-Aware Minimization*, ICLR 2021, algorithm 1;
    Vani et al., *Forget Sharpness*, ICML 2024.
  """
  check_transform("perturbation", perturbation, "sam(rho)")
  rule = None
  inner = optax.with_extra_args_support(perturbation)
  if isinstance(combine, optax.GradientTransformation):
    rule = optax.with_extra_args_support(combine)
  elif combine is not None and not callable(combine):
    raise ValueError(
      f"combine={combine!r} must be a function or an optax transform, such as "
      "surrogate_gap(alpha)"
    )

  def init_fn(params: PyTree) -> PerturbedGradientState:
    _refuse_masked(params)
    inner_state = inner.init(params)
    if rule is not None:
      inner_state = CombinedState(inner_state, rule.init(params))
    return PerturbedGradientState(
      perturbation=inner_state,
      # No nan for what is not known yet: JAX_DEBUG_NANS would stop at it.
      perturbed_loss=jnp.zeros((), jnp.float32),
      perturbation_norm=jnp.zeros((), jnp.float32),
    )

  def update_fn(
    ascent_grads: PyTree,
    state: PerturbedGradientState,
    params: PyTree | None = None,
    *,
    grad_fn: GradFn | None = None,
    value_and_grad_fn: ValueAndGradFn | None = None,
    ascent_fn: GradFn | None = None,
    micro_batch: int | Array = 0,
    opt_state: Any = None,
    **extra: Any,
  ) -> tuple[PyTree, PerturbedGradientState]:
    _refuse_masked(ascent_grads)
    value_and_grad_fn = value_and_grad(
      "perturbed_gradient", params, grad_fn, value_and_grad_fn
    )
    if grad_fn is None:
      grad_fn = lambda p: value_and_grad_fn(p)[1]  # noqa: E731
    extra |= {
      "grad_fn": grad_fn,
      "value_and_grad_fn": value_and_grad_fn,
      "ascent_fn": ascent_fn,
      "micro_batch": micro_batch,
      "opt_state": opt_state,
    }
    inner_state = state.perturbation
    if rule is not None:
      inner_state, rule_state = inner_state
    delta, inner_state = inner.update(
      ascent_grads, inner_state, params, **extra
    )
    loss, grads = value_and_grad_fn(add_delta(params, delta))
    grads = cast_like(grads, params)
    if rule is not None:
      known = not isinstance(value_and_grad_fn, LossUnknown)
      grads, rule_state = rule.update(
        grads,
        rule_state,
        params,
        ascent_grads=ascent_grads,
        delta=delta,
        perturbed_loss=loss if known else None,
        **extra,
      )
      inner_state = CombinedState(inner_state, rule_state)
    elif combine is not None:
      grads = combine(ascent_grads, delta, grads)
    return grads, PerturbedGradientState(
      perturbation=inner_state,
      perturbed_loss=jnp.asarray(loss, jnp.float32),
      perturbation_norm=plain_norm(delta).astype(jnp.float32),
    )

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _refuse_masked(tree: PyTree) -> None:
  check_unmasked(
    "perturbed_gradient",
    tree,
    "Restrict the perturbation instead: "
    "perturbed_gradient(fs.only(perturbation, mask)) or "
    "perturbed_gradient(optax.partition(perturbations, labels)).",
  )
