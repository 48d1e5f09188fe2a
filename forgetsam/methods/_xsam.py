"""XSAM: descending from where the loss is largest, as a search finds it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from forgetsam._arrays import add_delta, cast_like, to_length, tree_norm, unit
from forgetsam._checks import check_count, check_number, check_rho
from forgetsam._passes import gate, loss_function
from forgetsam._schedules import value_at
from forgetsam._typing import PyTree, Scalar, ValueAndGradFn
from forgetsam.methods._turns import is_turn, older


class XSAMState(NamedTuple):
  """State of `xsam`.

  Attributes:
    count: of updates.
    age: of updates with an offset, in turns; see `_turns`.
    alpha: what the last search found.
  """

  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  age: Float[Array, ""]
  alpha: Float[Array, ""]


def xsam(
  rho_max: optax.ScalarOrSchedule,
  alpha_max: Scalar = 2.0,
  points: int = 21,
  update_every: int = 100,
) -> optax.GradientTransformationExtraArgs:
  r"""XSAM's combine rule: away from the maximum that a search finds.

  .. math:: u(\alpha) = \frac{\sin((1 - \alpha)\theta)\, \hat\delta +
     \sin(\alpha\theta)\, \hat g}{\sin\theta}, \qquad
     \cos\theta = \langle \hat\delta, \hat g \rangle

  .. math:: \alpha^* = \operatorname*{argmax}_{\alpha} L(w + \rho_{\max}
     u(\alpha)), \qquad \text{result} = \lVert g \rVert\, u(\alpha^*)

  with g the gradient at params + delta: the directions lie on the arc from the
  offset (alpha = 0) to that gradient (1, which is SAM), and beyond. Every
  `update_every` steps the loss is compared at equally spaced alphas; in the
  steps between, the last one is used. Two passes, and a forward pass per point
  at a search. With micro-batches each searches, and the mean is kept. Where
  offset and gradient have one direction, or there is no offset, it is SAM.
  With `multi_step`, the arc begins at the whole offset. Not X-SAM (Duan et al.,
  2026), another method.

  Args:
    rho_max: radius of the search; a float, at least 0, or a schedule of the
      update count.
    alpha_max: the last alpha; the first is 0.
    points: how many alphas are compared, at least 2, known before tracing.
    update_every: steps per search, at least 1; the first with an offset
      searches.

  Raises:
    ValueError: an argument is out of its range; `update` without
      `value_and_grad_fn`, which has the loss.

  Example:
    >>> from forgetsam import perturbed_gradient, sam
    >>> functions = jax.value_and_grad(lambda w: jnp.sum(w**4))
    >>> transform = perturbed_gradient(sam(0.1), xsam(0.5, points=5))
    >>> w = jnp.array([1.0, 0.2])
    >>> grads, state = transform.update(
    ...   functions(w)[1], transform.init(w), w, value_and_grad_fn=functions
    ... )
    >>> state.perturbation.combine.alpha
    Array(2., dtype=float32)

  References:
    Chen and Zhou, *Revisiting Sharpness-Aware Minimization: A More Faithful and
    Effective Implementation*, ICLR 2026.
  """
  check_rho("rho_max", rho_max)
  check_number("alpha_max", alpha_max, low=0)
  check_count("points", points, at_least=2)
  check_count("update_every", update_every)

  def init_fn(params: PyTree) -> XSAMState:
    return XSAMState(jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros(()))

  def update_fn(
    grads: PyTree,
    state: XSAMState,
    params: PyTree | None = None,
    *,
    delta: PyTree,
    value_and_grad_fn: ValueAndGradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, XSAMState]:
    loss_fn = loss_function("xsam", value_and_grad_fn)
    radius = value_at(rho_max, state.count)
    direction = _arc(delta, grads)

    def loss_at(alpha: Array) -> Array:
      return loss_fn(add_delta(params, direction(alpha), radius))

    def search(like: Array) -> Array:
      alphas = jnp.linspace(0, alpha_max, points, dtype=like.dtype)
      return alphas[jnp.argmax(jax.lax.map(loss_at, alphas))]

    moved = tree_norm(delta) != 0
    due = is_turn(state.age, update_every) & moved
    norm = tree_norm(grads)
    found = gate(due, search)(norm.astype(state.alpha.dtype))
    alpha = jnp.where(due, found, state.alpha)
    result = cast_like(to_length(direction(alpha), norm), grads)
    age = jnp.where(moved, older(state.age, update_every), state.age)
    return result, XSAMState(optax.safe_increment(state.count), age, alpha)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _arc(start: PyTree, end: PyTree) -> Any:
  """Unit directions on the great circle: 0 is `start`, and 1 is `end`."""
  start, end = unit(start), unit(end)
  apart = tree_norm(add_delta(start, end, -1.0))
  # An arccos would lose half of the digits of small angles.
  angle = 2 * jnp.arctan2(apart, tree_norm(add_delta(start, end)))
  sine = jnp.sin(angle)
  on_line = sine < 64 * jnp.finfo(sine.dtype).eps
  alone = on_line | (tree_norm(start) == 0)

  def direction(alpha: Array) -> PyTree:
    alpha = alpha.astype(angle.dtype)
    of_start = jnp.where(alone, 0, jnp.sin((1 - alpha) * angle))
    of_end = jnp.where(alone, 1, jnp.sin(alpha * angle))
    return unit(add_delta(to_length(start, of_start), end, of_end))

  return direction
