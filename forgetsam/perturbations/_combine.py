"""Rules that combine the clean and the perturbed gradient.

A rule maps `(ascent_grads, delta, grads)`, three trees with params' structure,
to the descent gradient, in float32 inside and in the dtypes of `grads`.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from forgetsam._arrays import at_least_float32, cast_like, orthogonal, unit
from forgetsam._checks import check_choice, check_number
from forgetsam._combination import Leaf
from forgetsam._passes import needed_grad_fn
from forgetsam._typing import GradFn, PyTree, Scalar

Combine = Callable[[PyTree, PyTree, PyTree], PyTree]


def surrogate_gap(
  alpha: Scalar, normalized: bool = False, minimize: str = "perturbed"
) -> Combine:
  r"""GSAM's combine rule: descend the perturbed loss, ascend across it.

  .. math:: g = g_p - \alpha \bigl(a - \langle a, \hat g_p \rangle \hat g_p
     \bigr), \qquad \hat g_p = g_p / \lVert g_p \rVert

  with :math:`g_p` the gradient at params + delta and a the ascent gradient,
  or, normalised, :math:`a = \delta / \lVert \delta \rVert` (0 where
  :math:`\delta = 0`). To first order, the perturbed loss falls as fast as
  without the correction, which is orthogonal to :math:`g_p`.

  The official code can minimise the loss itself instead, and *adds* what of
  :math:`g_p` is orthogonal to its gradient:

  .. math:: g = a + \alpha \bigl(g_p - \langle g_p, \hat a \rangle \hat a
     \bigr)

  Then a must be the gradient of the *loss*: see `with_clean_gradient`.

  Args:
    alpha: weight of the orthogonal part (normalised: in units of the gradient).
    normalized: whether to project the offset's direction instead of the raw
      ascent gradient.
    minimize: "perturbed" or "clean", the loss that is descended.

  Raises:
    ValueError: alpha is nan or infinite, minimize is neither, or it is "clean"
      with normalized.

  Example:
    >>> import jax.numpy as jnp
    >>> combine = surrogate_gap(alpha=0.5)
    >>> combine(jnp.array([1.0, 2.0]), None, jnp.array([3.0, 0.0]))
    Array([ 3., -1.], dtype=float32)

  References:
    Zhuang et al., *Surrogate Gap Minimization*, ICLR 2022, algorithm 1.
  """
  check_number("alpha", alpha)
  check_choice("minimize", minimize, ("perturbed", "clean"))
  if normalized and minimize == "clean":
    raise ValueError(
      "normalized=True must be False where minimize='clean', which projects "
      "the perturbed gradient"
    )

  def combine(ascent_grads: PyTree, delta: PyTree, grads: PyTree) -> PyTree:
    if minimize == "clean":
      across = orthogonal(grads, ascent_grads)
      return _sum(1.0, ascent_grads, alpha, across, like=grads)
    across = orthogonal(unit(delta) if normalized else ascent_grads, grads)
    return _sum(1.0, grads, -alpha, across, like=grads)

  return combine


def _sum(
  a: Scalar, left: PyTree, b: Scalar, right: PyTree, like: PyTree
) -> PyTree:
  """`a * left + b * right`, in float32 or wider inside."""

  def add(x: Leaf, y: Leaf, z: Leaf) -> Leaf:
    total = a * at_least_float32(x)
    return (total + b * at_least_float32(y)).astype(z.dtype)

  return jax.tree.map(add, left, right, like)


def weighted(gamma: Scalar) -> Combine:
  r"""WSAM's combine rule: the loss and a weighted sharpness.

  .. math:: L(w) + \frac{\gamma}{1 - \gamma}
     \bigl(L(w + \delta) - L(w)\bigr), \qquad
     g = \frac{1 - 2\gamma}{1 - \gamma}\, g_a + \frac{\gamma}{1 - \gamma}\, g_p

  with :math:`g_p` the gradient at params + delta and :math:`g_a` the ascent
  gradient, which must be that of the *loss* (output bias forgetting's would be
  descended: see `with_clean_gradient`). Gamma 0 is plain training, 1/2 is SAM.
  `decoupled_wsam` adds the sharpness outside of the optimizer's momentum.

  Args:
    gamma: in [0, 1); the paper takes 0.8 to 0.95.

  Raises:
    ValueError: gamma is outside [0, 1).

  Example:
    >>> import jax.numpy as jnp
    >>> combine = weighted(gamma=0.75)  # the sharpness three times
    >>> combine(jnp.array([1.0, 2.0]), None, jnp.array([2.0, 2.0]))
    Array([4., 2.], dtype=float32)

  References:
    Yue et al., *Sharpness-Aware Minimization Revisited*, KDD 2023.
  """
  check_number("gamma", gamma, low=0, high=1, exclude_high=True)
  weight = gamma / (1 - gamma)

  def combine(ascent_grads: PyTree, delta: PyTree, grads: PyTree) -> PyTree:
    return _sum(1 - weight, ascent_grads, weight, grads, like=grads)

  return combine


def with_clean_gradient(
  combine: Combine,
) -> optax.GradientTransformationExtraArgs:
  r"""Gives a combine rule the loss's gradient in place of the ascent gradient.

  .. math:: g = C\bigl(\nabla L(w), \delta, \nabla L(w + \delta)\bigr)

  For rules that descend or measure what they are given, such as `weighted` and
  `stable_sam`, where something other than the loss is ascended, such as output
  bias forgetting. It costs a third gradient, but none where `ascent_fn` is
  `grad_fn`, as in `make_train_step` without another ascent.

  Args:
    combine: a rule such as `weighted(gamma)`, a function.

  Returns:
    A rule for `perturbed_gradient`.

  Raises:
    ValueError: combine is not a function; `update` without params or grad_fn.

  Example:
    >>> from forgetsam import perturbed_gradient, sam
    >>> rule = with_clean_gradient(weighted(gamma=0.0))  # plain training
    >>> transform = perturbed_gradient(sam(rho=1.0), rule)
    >>> w, of_another_ascent = jax.numpy.array([2.0]), jax.numpy.array([-1.0])
    >>> transform.update(
    ...   of_another_ascent, transform.init(w), w, grad_fn=lambda w: w
    ... )[0]
    Array([2.], dtype=float32)
  """
  if not callable(combine):
    raise ValueError(
      f"combine={combine!r} must be a function of (ascent_grads, delta, grads),"
      " such as weighted(gamma)"
    )

  def update_fn(
    grads: PyTree,
    state: optax.EmptyState,
    params: PyTree | None = None,
    *,
    ascent_grads: PyTree,
    delta: PyTree,
    grad_fn: GradFn | None = None,
    ascent_fn: GradFn | None = None,
    **extra: Any,
  ) -> tuple[PyTree, optax.EmptyState]:
    grad_fn = needed_grad_fn("with_clean_gradient", params, grad_fn)
    clean = ascent_grads
    if ascent_fn is not grad_fn:
      clean = cast_like(grad_fn(params), grads)
    return combine(clean, delta, grads), state

  return optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update_fn
  )
