"""The mask of the entries with the largest Fisher information."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import at_least_float32, tree_norm, wide_zeros
from forgetsam._checks import check_count, check_params, check_real
from forgetsam._passes import check_unmasked
from forgetsam._typing import PyTree, Scalar
from forgetsam.methods._sparse_masks import (
  SparseMaskState,
  booleans,
  check_mask,
  flat,
  is_largest,
  renewed,
  share,
  unflattened,
)
from forgetsam.methods._turns import is_turn, older


def fisher_mask(
  sparsity: Scalar,
  every: int,
  num_samples: int = 128,
  start: int = 0,
  fisher: Callable[..., PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""The mask of the entries with the largest Fisher information, for `only`.

  .. math:: M = \bigl[F_i \text{ is of the } n (1 - s) \text{ largest}\bigr],
     \qquad F = \sum_j (\nabla \ell_j)^2

  over examples j, for all n entries of params together. It is renewed in every
  `every`-th update that perturbs, before the offset; until the first time, it
  is empty.

  Args:
    sparsity: s in [0, 1], the fraction of entries that stay.
    every: updates from one mask to the next, at least 1.
    num_samples: examples, the first of each micro-batch, whose gradients are
      taken one after the other (extra argument `losses_fn`, which
      `make_train_step` provides). In an update that renews the mask each
      micro-batch has its own; from then on it is that of their mean.
    start: how many updates perturb nothing before it is first renewed, an
      integer; 1 in the official code.
    fisher: what gives F instead: a function of params and of all extra
      arguments, `(params, **extra) -> tree`, such as one of other examples.
      Under optax's masks, params are those that they leave.

  Raises:
    ValueError: a number is out of range; `update` without params, or without
      losses_fn and fisher.

  Example:
    >>> from forgetsam import only, sam
    >>> mask = fisher_mask(sparsity=0.5, every=1)
    >>> perturbation = only(sam(rho=1.0), mask)
    >>> w = jnp.array([1.0, 2.0])
    >>> perturbation.update(
    ...   w, perturbation.init(w), w, losses_fn=lambda w: w[None, 1] ** 2
    ... )[0]
    Array([0., 1.], dtype=float32)

  References:
    Mi et al., *Make Sharpness-Aware Minimization Stronger: A Sparsified
    Perturbation Approach*, NeurIPS 2022, algorithm 1.
  """
  check_mask(sparsity, every)
  check_count("num_samples", num_samples)
  check_count("start", start, at_least=0)

  def init_fn(params: PyTree) -> SparseMaskState:
    check_real("fisher_mask", params)
    zeros = wide_zeros(params)
    age = jnp.asarray(-start, jnp.float32)
    return SparseMaskState(jnp.zeros((), jnp.int32), age, zeros, zeros)

  def update_fn(
    updates: PyTree,
    state: SparseMaskState,
    params: PyTree | None = None,
    **extra: Any,
  ) -> tuple[PyTree, SparseMaskState]:
    check_params("fisher_mask", params)
    information = fisher or _fisher_of(num_samples, extra.get("losses_fn"))
    if fisher is None:  # one of the caller's own takes the arrays it gets
      check_unmasked(
        "fisher_mask",
        params,
        "Put it around: only(optax.partition(...), fisher_mask(...)).",
      )
    # Idle steps, whose gradient is zero, cost no pass.
    due = is_turn(state.age, every) & (tree_norm(updates) != 0)
    settles = is_turn(state.age - 1, every)
    keep = share(optax.tree.size(params), 1 - sparsity)
    scores = renewed(
      due,
      state.scores,
      lambda point: information(point, **extra),
      jax.tree.map(at_least_float32, params),
    )
    # The scores of the update before are those of all micro-batches by now.
    mask = renewed(
      due | settles,
      state.mask,
      lambda s: unflattened(is_largest(flat(s), keep), s),
      scores,
    )
    count = optax.safe_increment(state.count)
    age = older(state.age, every)
    return booleans(mask), SparseMaskState(count, age, mask, scores)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _fisher_of(
  num_samples: int, losses_fn: Callable[[PyTree], Array] | None
) -> Callable[..., PyTree]:
  """The sum of squared gradients of the first examples' losses."""
  if losses_fn is None:
    raise ValueError(
      "fisher_mask needs losses_fn, the function params -> loss of each "
      "example alone: call update(ascent_grads, state, params, "
      "losses_fn=losses_fn), as make_train_step does, or pass fisher to it"
    )

  def fisher(point: PyTree, **extra: Any) -> PyTree:
    losses, pullback = jax.vjp(losses_fn, point)
    examples = jnp.arange(losses.size)

    def squared(i: int | Array) -> PyTree:
      # Like the losses, which on a mesh are each device's own.
      ones, zeros = jnp.ones_like(losses), jnp.zeros_like(losses)
      (g,) = pullback(jnp.where(examples == i, ones, zeros))
      return jax.tree.map(lambda x: jnp.square(x), g)

    # The first outside of the loop, whose sums then lie where the others do.
    return jax.lax.fori_loop(
      1,
      min(num_samples, losses.size),
      lambda i, total: jax.tree.map(jnp.add, total, squared(i)),
      squared(0),
    )

  return fisher
