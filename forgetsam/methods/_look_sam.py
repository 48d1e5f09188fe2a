"""LookSAM: SAM's gradient in every k-th step, its flat part in between."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from forgetsam._arrays import (
  add_delta,
  cast_like,
  orthogonal,
  tree_norm,
  unit,
  wide_zeros,
)
from forgetsam._checks import check_count, check_number
from forgetsam._passes import (
  gate,
  keep_memory,
  value_and_grad,
  zeros_unless,
)
from forgetsam._typing import GradFn, PyTree, Scalar, ValueAndGradFn
from forgetsam.perturbations import PerturbedGradientState, perturbed_gradient

# Of a gradient's length: below, its parts are float32's rounding.
_ROUNDING = 64 * float(jnp.finfo(jnp.float32).eps)


class LookSAMState(NamedTuple):
  """Memory of `look_sam`; `flat_grads` is the last :math:`g_v`, not rounded."""

  perturbation: Any
  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  flat_grads: PyTree


def look_sam(
  perturbation: optax.GradientTransformation,
  k: int,
  alpha: Scalar,
  per_array: bool = False,
  eps: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
  r"""A perturbed gradient in every k-th step; its flat part in the others.

  .. math:: g = \nabla L(w), \qquad
     t \bmod k = 0:\quad g_s = \nabla L(w + P(g_a)), \quad
     g_v = g_s - \langle g_s, \hat g \rangle \hat g, \quad
     \text{result} = g_s; \qquad
     \text{otherwise:}\quad \text{result} =
     g + \alpha \frac{\lVert g \rVert}{\lVert g_v \rVert} g_v

  with P the perturbation, :math:`g_a` the ascent gradient and
  :math:`\hat g = g / \lVert g \rVert`, over the whole tree. It takes the place
  of `perturbed_gradient`. The steps in between evaluate the plain gradient
  alone; a k-th step costs three gradients, or two where `ascent_fn` is
  `grad_fn`, as in `make_train_step` without another ascent.

  In between, the state's perturbed_loss is the loss at the weights themselves
  and its perturbation_norm 0. A schedule of rho counts all steps. Where the
  offset is zero, the steps in between are plain. With micro-batches, the *mean*
  of their :math:`g_v` is stored: each adds the same direction to its own
  gradient, in proportion to that one's norm.

  Args:
    perturbation: from ascent gradients to offsets, such as `sam(rho)`.
    k: steps per perturbed gradient, at least 1, known before tracing.
    alpha: weight of the flat part, in units of the gradient's norm.
    per_array: whether inner products and norms of g_v run over each array
      alone, as in some other implementations.
    eps: added to the norm of g_v, at least 0, as these do.

  Returns:
    A transformation with the arguments of `perturbed_gradient` and its state
    around `LookSAMState`; without `ascent_fn` it uses the given gradient.

  Raises:
    ValueError: k is not an integer of at least 1, or alpha is not finite;
      `update` without params or a gradient function; use under `optax.masked`
      or `optax.partition`.

  Example:
    >>> from forgetsam import sam
    >>> transform = look_sam(sam(rho=1.0), k=2, alpha=1.0)
    >>> grad_fn = jax.grad(lambda w: w[0] + 0.5 * w[0] ** 2 * w[1])
    >>> w = jnp.zeros(2)  # the gradient is (1, 0), and at w + (1, 0) (1, 0.5)
    >>> state = transform.init(w)
    >>> for _ in range(2):
    ...   g, state = transform.update(grad_fn(w), state, w, grad_fn=grad_fn)
    ...   print(g)
    [1.  0.5]
    [1. 1.]

  References:
    Liu et al., *Towards Efficient and Scalable SAM*, CVPR 2022, algorithm 1.
  """
  check_count("k", k)
  check_number("alpha", alpha)
  check_number("eps", eps, low=0)
  transform = perturbed_gradient(perturbation)

  def over(f: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function of trees, or of each of their arrays."""
    return partial(jax.tree.map, f) if per_array else f

  def add_flat(g: PyTree, v: PyTree) -> PyTree:
    length = tree_norm(v)
    share = length / jnp.where(length == 0, 1, length + eps)
    return add_delta(g, unit(v), alpha * tree_norm(g) * share)

  def init_fn(params: PyTree) -> PerturbedGradientState:
    state = transform.init(params)
    memory = LookSAMState(
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
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, PerturbedGradientState]:
    loss_and_grads = value_and_grad(
      "look_sam", params, grad_fn, value_and_grad_fn
    )
    memory = state.perturbation
    due = memory.count % k == 0
    loss, plain = loss_and_grads(params)
    plain = cast_like(plain, params)

    def perturbed(point: PyTree) -> tuple[Array, PyTree]:
      def perturb(p: PyTree) -> tuple[Array, PyTree]:
        value, grads = loss_and_grads(p)
        return value.astype(loss.dtype), cast_like(grads, plain)

      return jax.lax.cond(due, perturb, lambda _: (loss, plain), point)

    gated = None if ascent_fn is None else gate(due, ascent_fn)
    if gated is None:
      g_a = zeros_unless(due, ascent_grads)
    elif ascent_fn is grad_fn:
      g_a = zeros_unless(due, plain)
    else:
      g_a = cast_like(gated(params), ascent_grads)
    grads, new_state = transform.update(
      g_a,
      state._replace(perturbation=memory.perturbation),
      params,
      value_and_grad_fn=perturbed,
      ascent_fn=gated,
      **extra,
    )
    norm = new_state.perturbation_norm
    apart = over(orthogonal)(grads, plain)
    # Without an offset, what is left of the two gradients is rounding, which
    # must not be stretched to alpha times their length.
    real = (norm > 0) & (tree_norm(apart) > _ROUNDING * tree_norm(grads))
    flat = keep_memory(due, zeros_unless(real, apart), memory.flat_grads)
    new_memory = LookSAMState(
      keep_memory(due, new_state.perturbation, memory.perturbation),
      optax.safe_increment(memory.count),
      flat,
    )
    between = over(add_flat)(plain, flat)
    result = jax.tree.map(
      lambda g_s, g: jnp.where(due, g_s, g), grads, cast_like(between, plain)
    )
    return result, new_state._replace(
      perturbation=new_memory,
      perturbation_norm=jnp.where(due, norm, jnp.zeros_like(norm)),
    )

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
