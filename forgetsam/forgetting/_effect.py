"""A perturbation's mean effect over the micro-batches that it may come from."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from forgetsam._arrays import add_delta
from forgetsam._checks import check_count
from forgetsam._estimate import estimate_mean
from forgetsam._typing import PyTree
from forgetsam.forgetting._offsets import DeltaFn, Examples

EffectFn = Callable[[PyTree, PyTree, Any], PyTree]


def effect_over_repeats(
  effect_fn: EffectFn,
  delta_fn: DeltaFn,
  params: PyTree,
  examples: Examples,
  context: Any = None,
  *,
  m: int,
  repeats: int,
  key: jax.Array,
) -> PyTree:
  r"""The mean of any effect of a perturbation, over random micro-batches.

  .. math:: \bar e = \frac1R \sum_{r=1}^R
     e\bigl(w, w + \delta(w; B_r)\bigr), \qquad \lvert B_r \rvert = m

  with every :math:`B_r` drawn without replacement from the examples. The mean
  is unbiased for the mean over micro-batches; its standard error is that over
  repeats, with the network and the examples given. One repeat is compiled, once
  for given functions and m, and called in a Python loop.

  *Controls.* The same effect of random offsets of the same length, and of
  offsets from held-out examples: `model_specific_forgetting` has both built in.

  Args:
    effect_fn: `(params, perturbed_params, context) -> pytree of arrays`.
    delta_fn: `(params, images, labels, *, micro_batch) -> offset`, such as
      `offset_fn` makes; `micro_batch` is the repeat's index.
    params: the network's weights.
    examples: images and labels to draw micro-batches from.
    context: what else the effect reads, such as a probe; any pytree.
    m: examples in a micro-batch.
    repeats: number of micro-batches; 10 to 30 for SAM, 50 to 400 for OBF give
      a relative error of a tenth.
    key: of the draws.

  Returns:
    The effect's pytree with an `Estimate` at each array.

  Raises:
    ValueError: m exceeds the number of examples, or repeats is below 1.

  Example:
    >>> import forgetsam as fs
    >>> from forgetsam.forgetting import offset_fn
    >>> delta_fn = offset_fn(
    ...   lambda w, x: x @ w, fs.output_bias_forgetting(), fs.sam(rho=0.5)
    ... )
    >>> length = effect_over_repeats(
    ...   lambda w, moved, _: jnp.linalg.norm(moved - w), delta_fn,
    ...   jnp.zeros((3, 2)), (jnp.ones((8, 3)), jnp.arange(8) // 4),
    ...   m=3, repeats=4, key=jax.random.key(0),
    ... )
    >>> round(float(length.value), 4)
    0.5
  """
  check_count("repeats", repeats)
  if not 1 <= m <= len(examples[1]):
    raise ValueError(
      f"m={m} must be at least 1 and at most the number of examples, "
      f"{len(examples[1])}"
    )
  draws = [
    _one_repeat(effect_fn, delta_fn, m, params, examples, context, key, index)
    for index in range(repeats)
  ]
  return over_repeats(stack(draws))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _one_repeat(
  effect_fn: EffectFn,
  delta_fn: DeltaFn,
  m: int,
  params: PyTree,
  examples: Examples,
  context: Any,
  key: jax.Array,
  index: int | jax.Array,
) -> PyTree:
  images, labels = draw(examples, m, jax.random.fold_in(key, index))
  delta = delta_fn(params, images, labels, micro_batch=index)
  return effect_fn(params, add_delta(params, delta), context)


def draw(examples: Examples, size: int, key: jax.Array) -> Examples:
  images, labels = examples
  indices = jax.random.choice(key, len(labels), (size,), replace=False)
  return jnp.asarray(images)[indices], jnp.asarray(labels)[indices]


def stack(draws: list[Any]) -> Any:
  """A list of trees to a tree of `[repeats, ...]` arrays."""
  return jax.tree.map(lambda *xs: jnp.stack(xs), *draws)


@jax.jit
def over_repeats(draws: Any) -> Any:
  """A tree of `[repeats, ...]` arrays to `Estimate`s of their means."""
  return jax.tree.map(estimate_mean, draws)
