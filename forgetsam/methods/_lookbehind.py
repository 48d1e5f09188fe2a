"""Lookbehind: several ascents, a descent from each, and slow weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from forgetsam._arrays import add_delta, at_least_float32, cast_like, plain_norm
from forgetsam._checks import (
  check_count,
  check_number,
  check_params,
  check_transform,
)
from forgetsam._passes import needed_ascent_fn, value_and_grad
from forgetsam._typing import GradFn, PyTree, Scalar, ValueAndGradFn
from forgetsam.perturbations import PerturbedGradientState, perturbed_gradient


def lookbehind(
  perturbation: optax.GradientTransformation, k: int
) -> optax.GradientTransformationExtraArgs:
  r"""Ascends k times, and keeps the gradient of every point that it reaches.

  .. math:: p_0 = w, \qquad p_i = p_{i-1} + P\bigl(g_a(p_{i-1})\bigr),
     \qquad d_i = \nabla L(p_i), \qquad i = 1, \ldots, k

  with P the perturbation and :math:`g_a` the ascent gradient. It takes the
  place of `perturbed_gradient`, and returns :math:`d_1, \ldots, d_k` stacked
  along a new first axis, for `slow_weights`, which must be the next that takes
  them: `chain(lookbehind(sam(rho), k), slow_weights(sgd(lr, 0.9), alpha))`, or
  `perturb` and `optimizer` of `make_train_step`. k + 1 passes where the loss
  ascends (a point's descent is the next one's ascent; the official code takes
  2k), otherwise 2k. Every ascent reads the same state of P, at its own point.

  The step's metric grad_norm is that of all k gradients together. Parameters
  are frozen inside, as in `slow_weights(optax.partition(...), alpha)`.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    k: ascents, at least 1, known before tracing.

  Returns:
    A transformation with the arguments and the state of `perturbed_gradient`,
    whose perturbed_loss and perturbation_norm are those of :math:`p_k`.

  Raises:
    ValueError: k is not an integer of at least 1; `update` without params, a
      gradient function or, where k > 1, ascent_fn.

  Example:
    >>> from forgetsam import sam
    >>> transform = lookbehind(sam(rho=1.0), k=2)
    >>> grad_fn = lambda w: w  # of 1/2 w^2
    >>> w = jnp.array([2.0])
    >>> transform.update(
    ...   w, transform.init(w), w, grad_fn=grad_fn, ascent_fn=grad_fn
    ... )[0]
    Array([[3.],
           [4.]], dtype=float32)

  References:
    Mordido et al., *Lookbehind-SAM: k Steps Back, 1 Step Forward*, ICML 2024.
  """
  check_count("k", k)
  transform = perturbed_gradient(perturbation)
  inner = optax.with_extra_args_support(perturbation)

  def update_fn(
    ascent_grads: PyTree,
    state: PerturbedGradientState,
    params: PyTree | None = None,
    *,
    grad_fn: GradFn | None = None,
    value_and_grad_fn: ValueAndGradFn | None = None,
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, PerturbedGradientState]:
    loss_and_grads = value_and_grad(
      "lookbehind", params, grad_fn, value_and_grad_fn
    )
    if k > 1:
      ascent_fn = needed_ascent_fn("lookbehind", params, ascent_fn)
    if grad_fn is None:
      grad_fn = lambda p: loss_and_grads(p)[1]  # noqa: E731
    extra |= {
      "grad_fn": grad_fn,
      "value_and_grad_fn": value_and_grad_fn,
      "ascent_fn": ascent_fn,
    }
    point, ascent, states = params, ascent_grads, []
    found: list[PyTree] = []
    for i in range(k):
      if i > 0 and ascent_fn is not None:
        same = ascent_fn is grad_fn
        ascent = cast_like(found[-1] if same else ascent_fn(point), params)
      step, after = inner.update(ascent, state.perturbation, point, **extra)
      states.append(after)
      point = add_delta(point, step)
      loss, grads = loss_and_grads(point)
      found.append(cast_like(grads, params))
    moved = add_delta(point, params, -1.0)
    return jax.tree.map(lambda *g: jnp.stack(g), *found), state._replace(
      perturbation=states[0],
      perturbed_loss=jnp.asarray(loss, jnp.float32),
      perturbation_norm=plain_norm(moved).astype(jnp.float32),
    )

  return optax.GradientTransformationExtraArgs(transform.init, update_fn)


def slow_weights(
  optimizer: optax.GradientTransformation, alpha: Scalar = 0.5
) -> optax.GradientTransformationExtraArgs:
  r"""Takes an optimizer's steps one after another, and a part of their way.

  .. math:: f_0 = w, \qquad f_i = f_{i-1} + O(d_i), \qquad
     w \leftarrow w + \alpha (f_k - w)

  with O the optimizer, whose state runs on, and :math:`d_1, \ldots, d_k` the
  gradients that `lookbehind` stacks. The weights f take part in its decay
  alone. A schedule counts all k steps: pass `lambda t: rate(t // k)`.

  Args:
    optimizer: of the k steps, such as `optax.sgd(rate, momentum=0.9)`.
    alpha: the part of the way, in [0, 1].

  Raises:
    ValueError: alpha is outside [0, 1], or optimizer no transform; `update`
      without params, or with gradients that are not stacked.

  Example:
    >>> optimizer = slow_weights(optax.sgd(1.0), alpha=0.5)
    >>> w, stacked = jnp.array([2.0]), jnp.array([[3.0], [4.0]])
    >>> optimizer.update(stacked, optimizer.init(w), w)[0]
    Array([-3.5], dtype=float32)

  References:
    Mordido et al., *Lookbehind-SAM*, ICML 2024; Zhang et al., *Lookahead
    Optimizer*, NeurIPS 2019.
  """
  check_number("alpha", alpha, low=0, high=1)
  check_transform("optimizer", optimizer, "optax.sgd(0.1, momentum=0.9)")
  inner = optax.with_extra_args_support(optimizer)

  def update_fn(
    updates: PyTree,
    state: Any,
    params: PyTree | None = None,
    **extra: Any,
  ) -> tuple[PyTree, Any]:
    check_params("slow_weights", params)
    steps = _num_stacked(updates, params)
    fast = params
    total = jax.tree.map(lambda w: jnp.zeros_like(at_least_float32(w)), params)
    for i in range(steps):
      grads = jax.tree.map(lambda g, i=i: g[i], updates)
      step, state = inner.update(grads, state, fast, **extra)
      fast = optax.apply_updates(fast, step)
      total = add_delta(total, step)
    part = jnp.asarray(alpha)
    return jax.tree.map(
      lambda t, w: (part.astype(t.dtype) * t).astype(w.dtype), total, params
    ), state

  return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def _num_stacked(updates: PyTree, params: PyTree) -> int:
  pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True)
  numbers = set()
  for g, w in pairs:
    if g.ndim == 0 or g.shape[1:] != w.shape:
      raise ValueError(
        f"slow_weights is given gradients of shape {g.shape} for params of "
        f"{w.shape}: it takes those that lookbehind stacks, and clipping comes "
        "inside it, slow_weights(optax.chain(clip, sgd), alpha)"
      )
    numbers.add(g.shape[0])
  return numbers.pop() if numbers else 0
