"""A mask that drops some entries and grows others."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import add_delta, at_least_float32, wide_zeros
from forgetsam._checks import (
  check_choice,
  check_number,
  check_params,
  check_real,
  check_seed,
)
from forgetsam._schedules import value_at
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


def dynamic_mask(
  sparsity: Scalar,
  every: int,
  drop_rate: optax.ScalarOrSchedule = 0.5,
  drop: str = "gradient",
  growth: str = "random",
  seed: int | Array = 0,
) -> optax.GradientTransformationExtraArgs:
  r"""A mask that drops some entries and grows others, for `only`.

  .. math:: M^+ = \bigl[a_i M_i \text{ is of the } k (1 - r) \text{ largest}
     \bigr] \lor \bigl[b_i (1 - M_i) \text{ is of the } k r \text{ largest}
     \bigr], \qquad k = n (1 - s)

  with a score a to stay and b to come, for all n entries of params together.
  It begins at random. In every `every`-th update that perturbs, scores are
  taken after the ascent, and the new mask holds from the update after.

  Args:
    sparsity: s in [0, 1], the fraction of entries that stay.
    every: updates from one mask to the next, at least 1.
    drop_rate: r in [0, 1], or a schedule of the update count. The paper's falls
      along half a cosine: `optax.cosine_decay_schedule(0.5, num_steps)`.
    drop: a: "gradient", the ascent gradient's magnitude, "weight", that of the
      perturbed weights, or "random".
    growth: b: "random" or "gradient".
    seed: of the first mask and of random scores.

  Raises:
    ValueError: a number is out of range, or drop or growth no such name;
      `update` without params where drop is "weight".

  Example:
    >>> from forgetsam import only, sam
    >>> mask = dynamic_mask(sparsity=0.5, every=1, growth="gradient")
    >>> perturbation, g = only(sam(rho=1.0), mask), jnp.arange(1.0, 9.0)
    >>> state = perturbation.init(g)
    >>> first, state = perturbation.update(g, state, g)
    >>> second, state = perturbation.update(g, state, g)
    >>> kept = (first > 0) & (second > 0)
    >>> [int(jnp.sum(x)) for x in (first > 0, second > 0, kept)]
    [4, 4, 2]

  References:
    Mi et al., *Make Sharpness-Aware Minimization Stronger: A Sparsified
    Perturbation Approach*, NeurIPS 2022, algorithm 2.
  """
  check_mask(sparsity, every)
  if not callable(drop_rate):
    check_number("drop_rate", drop_rate, low=0, high=1)
  check_choice("drop", drop, ("gradient", "weight", "random"))
  check_choice("growth", growth, ("random", "gradient"))
  check_seed("seed", seed)

  def random(tree: PyTree, *words: int | Array) -> Array:
    key = jax.random.key(seed)
    for word in words:
      key = jax.random.fold_in(key, word)
    return jax.random.uniform(key, (optax.tree.size(tree),), flat(tree).dtype)

  def init_fn(params: PyTree) -> SparseMaskState:
    check_real("dynamic_mask", params)
    zeros = wide_zeros(params)
    keep = share(optax.tree.size(zeros), 1 - sparsity)
    mask = unflattened(is_largest(random(zeros), keep), zeros)
    weights = zeros if drop == "weight" else None
    age = jnp.asarray(-1.0)
    return SparseMaskState(jnp.zeros((), jnp.int32), age, mask, zeros, weights)

  def turn_over(
    mask: PyTree, scores: PyTree, weights: PyTree, count: Array
  ) -> PyTree:
    """The next mask, by the scores of the update before."""
    total = optax.tree.size(mask)
    rate = value_at(drop_rate, count)
    moved = jnp.minimum(
      share(total, 1 - sparsity, rate), share(total, sparsity)
    )
    given = {"gradient": scores, "weight": weights}
    here = flat(mask) > 0.5

    def of(name: str, word: int) -> Array:
      if name == "random":
        return random(mask, word, count)
      return jnp.abs(flat(given[name]))

    left = share(total, 1 - sparsity, 1 - rate)
    stays = is_largest(jnp.where(here, of(drop, 0), -1), left)
    comes = is_largest(jnp.where(here, -1, of(growth, 1)), moved)
    return unflattened(jnp.maximum(stays, comes), mask)

  def update_fn(
    updates: PyTree,
    state: SparseMaskState,
    params: PyTree | None = None,
    **extra: Any,
  ) -> tuple[PyTree, SparseMaskState]:
    before = state.count - 1
    mask = renewed(
      is_turn(state.age, every),
      state.mask,
      lambda mask, scores, weights: turn_over(mask, scores, weights, before),
      state.mask,
      state.scores,
      state.weights,
    )
    chosen, weights = booleans(mask), None
    if drop == "weight":
      check_params("dynamic_mask with drop='weight'", params)
      offset = jax.tree.map(
        lambda d, m: jnp.where(m, d, jnp.zeros_like(d)), updates, chosen
      )
      weights = add_delta(params, offset)
    scores = jax.tree.map(at_least_float32, updates)
    count = optax.safe_increment(state.count)
    age = older(state.age, every)
    return chosen, SparseMaskState(count, age, mask, scores, weights)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
