"""Descending on the examples whose losses a perturbation raises most."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from forgetsam._arrays import add_delta, at_least_float32, cast_like, conj
from forgetsam._checks import check_number, is_number
from forgetsam._typing import PyTree, Scalar


def sharpest_examples(
  fraction: Scalar, strict: bool = False
) -> optax.GradientTransformationExtraArgs:
  r"""A combine rule that descends on a part of the examples alone.

  .. math:: g = \frac1k \sum_{i \in S} \nabla \ell_i(w + \delta), \qquad
     S = \text{the k largest of } \ell_i(w + \delta) - \ell_i(w)

  with k the given fraction of the micro-batch, rounded down. It needs the extra
  argument `losses_fn`, params -> the loss of each example, as `make_train_step`
  passes it; the weights in a batch's mask are not read.

  Which examples are chosen is known only in the step, and arrays have the same
  shapes in every step: the backward pass runs over all examples, with zeros for
  the others, and takes no less time.

  Args:
    fraction: of examples to keep, in (0, 1], a Python number.
    strict: whether S lacks the k-th, as in ESAM's official code.

  Raises:
    ValueError: fraction is outside (0, 1], or keeps none; `update` without
      losses_fn.

  Example:
    >>> from forgetsam import perturbed_gradient, sam
    >>> x = jnp.array([1.0, 3.0])
    >>> losses_fn = lambda w: 0.5 * (x * w) ** 2
    >>> grad_fn = jax.grad(lambda w: jnp.mean(losses_fn(w)))
    >>> transform = perturbed_gradient(sam(rho=1.0), sharpest_examples(0.5))
    >>> w = jnp.array(1.0)
    >>> grads, _ = transform.update(
    ...   grad_fn(w), transform.init(w), w, grad_fn=grad_fn, losses_fn=losses_fn
    ... )
    >>> print(grads)  # of the second example, at w = 2
    18.0

  References:
    Du et al., *Efficient Sharpness-aware Minimization*, ICLR 2022, section 3.2:
    sharpness-sensitive data selection.
  """
  check_number("fraction", fraction, low=0, high=1)
  if not is_number(fraction) or fraction == 0:
    raise ValueError(f"fraction={fraction!r} must be a number in (0, 1]")

  def update_fn(
    grads: PyTree,
    state: optax.EmptyState,
    params: PyTree | None = None,
    *,
    delta: PyTree,
    losses_fn: Callable[[PyTree], Array] | None = None,
    **extra: Any,
  ) -> tuple[PyTree, optax.EmptyState]:
    if losses_fn is None:
      raise ValueError(
        "sharpest_examples needs losses_fn, the function params -> loss of each"
        " example of the current batch: call update(ascent_grads, state, "
        "params, grad_fn=grad_fn, losses_fn=losses_fn). make_train_step "
        "provides it."
      )
    if fraction == 1:
      return grads, state
    before = losses_fn(params)
    after, pullback = jax.vjp(losses_fn, add_delta(params, delta))
    rise = at_least_float32(after) - at_least_float32(before)
    weights = _mean_of_largest(rise, fraction, strict).astype(after.dtype)
    return cast_like(conj(pullback(weights)[0]), grads), state

  return optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update_fn
  )


def _mean_of_largest(
  rise: Float[Array, " batch"], fraction: Any, strict: bool
) -> Float[Array, " batch"]:
  """The weights of a mean over the largest entries, and zeros for the rest."""
  # Rounded first: 0.29 * 100 is a little less than 29.
  count = int(round(fraction * len(rise), 6))
  if count <= strict:
    raise ValueError(
      f"fraction={fraction} keeps none of {len(rise)} examples"
      f"{' where strict leaves out one' if strict else ''}: take more of them"
    )
  values, places = jax.lax.top_k(rise, count)
  if not strict:
    return jnp.zeros_like(rise).at[places].set(1 / count)
  chosen = rise > values[-1]
  number = jnp.maximum(jnp.sum(chosen), 1).astype(rise.dtype)
  return chosen.astype(rise.dtype) / number
