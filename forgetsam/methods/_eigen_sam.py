"""Eigen-SAM: perturbing along the Hessian's first eigenvector, too."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from forgetsam._arrays import (
  add_delta,
  at_least_float32,
  cast_like,
  orthogonal,
  to_length,
  tree_dot,
  tree_norm,
  unit,
  wide_zeros,
)
from forgetsam._checks import check_count, check_number, check_rho
from forgetsam._passes import check_unmasked, gate, needed_grad_fn
from forgetsam._schedules import value_at
from forgetsam._typing import GradFn, PyTree, Scalar
from forgetsam.methods._turns import is_turn, older
from forgetsam.perturbations import GaussianDirectionState, gaussian_direction


class EigenSAMState(NamedTuple):
  """State of `eigen_sam`.

  Attributes:
    count: of updates.
    age: of updates that perturb, in turns; see `_turns`.
    eigenvector: the last estimate, in float32 or wider; zeros before the first.
    start: draws the vector that the first estimate starts from.
  """

  count: Int[Array, ""]  # type: ignore[assignment]  # mypy: tuple.count
  age: Float[Array, ""]
  eigenvector: PyTree
  start: GaussianDirectionState


def eigen_sam(
  rho: optax.ScalarOrSchedule,
  alpha: Scalar,
  freq: int = 100,
  steps: int = 5,
  seed: int | Array = 0,
  scaled_start: bool = False,
) -> optax.GradientTransformationExtraArgs:
  r"""Eigen-SAM's perturbation: the gradient, turned to the top eigenvector.

  .. math:: \hat g = g / \lVert g \rVert, \qquad
     \delta = \rho_t \bigl(\hat g + \alpha \operatorname{sign}(\langle g, v
     \rangle) (v - \langle v, \hat g \rangle \hat g)\bigr)

  with v the unit eigenvector of the loss's Hessian whose eigenvalue is largest
  in absolute value, as power iteration finds it: in every `freq`-th update,
  that many `steps` :math:`v \leftarrow H v / \lVert H v \rVert` on the current
  batch, from the last v. Before the first, at update `freq`, it is `sam`. The
  offset may be longer than rho, by :math:`\sqrt{1 + \alpha^2}` at most.

  Two passes, and a Hessian product (about two passes) per step of the
  iteration. The Hessian is the training loss's, whatever ascends. With
  micro-batches each iterates from the same v, and their mean's direction is
  kept.

  Args:
    rho: radius; a float, at least 0, or a schedule of the update count.
    alpha: weight of the eigenvector's part across the gradient.
    freq: updates per estimate, at least 1.
    steps: Hessian products per estimate, at least 1.
    seed: of the first vector, as in `gaussian_direction`.
    scaled_start: whether offsets before the first estimate are
      :math:`\rho_t g`, in proportion to the gradient, as in the official code.

  Raises:
    ValueError: an argument is out of its range; `update` without params or
      grad_fn, which `perturbed_gradient` passes on.

  Example:
    >>> from forgetsam import perturbed_gradient
    >>> grad_fn = lambda w: jnp.array([1.0, 4.0]) * w  # the Hessian's diagonal
    >>> perturbation = eigen_sam(rho=1.0, alpha=0.5, freq=1, steps=9)
    >>> w = jnp.array([3.0, 1.0])  # the gradient is (3, 4)
    >>> state = perturbation.init(w)
    >>> for _ in range(2):
    ...   delta, state = perturbation.update(
    ...     grad_fn(w), state, w, grad_fn=grad_fn
    ...   )
    >>> [round(float(d), 3) for d in delta]  # SAM's are 0.6 and 0.8
    [0.36, 0.98]

  References:
    Luo et al., *Explicit Eigenvalue Regularization Improves Sharpness-Aware
    Minimization*, NeurIPS 2024.
  """
  check_rho("rho", rho)
  check_number("alpha", alpha)
  check_count("freq", freq)
  check_count("steps", steps)
  first = gaussian_direction(seed)

  def init_fn(params: PyTree) -> EigenSAMState:
    return EigenSAMState(
      jnp.zeros((), jnp.int32),
      jnp.zeros(()),
      wide_zeros(params),
      first.init(params),
    )

  def update_fn(
    ascent_grads: PyTree,
    state: EigenSAMState,
    params: PyTree | None = None,
    *,
    grad_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, EigenSAMState]:
    grad_fn = needed_grad_fn("eigen_sam", params, grad_fn)
    check_unmasked(
      "eigen_sam",
      ascent_grads,
      "Restrict its offsets instead: chain(eigen_sam(...), "
      "only(optax.identity(), mask)).",
    )
    last = state.eigenvector
    # All micro-batches start from the same: their results are averaged.
    drawn, start = first.update(last, state.start)
    from_drawn = tree_norm(last) == 0
    seed_vector = jax.tree.map(
      lambda v, z: jnp.where(from_drawn, z, v), last, drawn
    )

    def iterate(point: PyTree) -> PyTree:
      def product(_: Array, v: PyTree) -> PyTree:
        return unit(jax.jvp(grad_fn, (point,), (v,))[1])

      # Of every device that the point is of.
      begin = add_delta(jax.tree.map(jnp.zeros_like, point), unit(seed_vector))
      return jax.lax.fori_loop(0, steps, product, begin)

    norm = tree_norm(ascent_grads)
    # Idle steps, whose gradient is zero, cost no pass.
    due = (state.age > 0) & is_turn(state.age, freq) & (norm != 0)
    found = gate(due, iterate)(jax.tree.map(at_least_float32, params))
    v = jax.tree.map(lambda new, old: jnp.where(due, new, old), found, last)
    known = state.age >= freq
    radius = jnp.asarray(value_at(rho, state.count)).astype(norm.dtype)
    one = jnp.ones_like(norm)
    length = jnp.where(known, one, norm) if scaled_start else one
    delta = to_length(ascent_grads, radius * length)
    side = jnp.where(known, jnp.sign(tree_dot(ascent_grads, v)), 0)
    weight = radius * jnp.asarray(alpha).astype(norm.dtype)
    across = orthogonal(unit(v), ascent_grads)
    delta = add_delta(delta, across, weight * side.astype(norm.dtype))
    count = optax.safe_increment(state.count)
    new_state = EigenSAMState(count, older(state.age, freq), v, start)
    return cast_like(delta, ascent_grads), new_state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
