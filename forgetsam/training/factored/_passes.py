"""The passes of all micro-batches, side by side."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._ascent import loss_ascent
from forgetsam._objectives import ascent_direction, mean_loss
from forgetsam._typing import PyTree
from forgetsam.training._micro_step import (
  Examples,
  Parts,
  Weights,
  clean_metrics,
  finite_where_nothing_counts,
  first_examples,
  kept_without_weight,
  total_weight,
)
from forgetsam.training._train_state import TrainState
from forgetsam.training.factored._gradient import Gradient
from forgetsam.training.factored._network import Network
from forgetsam.training.factored._pass import (
  Offset,
  next_state,
  perturbed_outputs,
  run_pass,
  tap_shapes,
)


class CleanPasses(NamedTuple):
  """Of each micro-batch, but for the model's state after the last."""

  metrics: dict[str, Array]
  weights: Weights | None
  ascent: Gradient
  model_state: PyTree


def clean_passes(
  parts: Parts,
  network: Network,
  state: TrainState,
  batch: Examples,
  keys: jax.Array,
  varying: Callable[[PyTree], PyTree],
) -> CleanPasses:
  leaves = jax.tree.leaves(state.params)
  state_leaves = jax.tree.leaves(state.model_state)
  taps = _taps(network, varying)

  def alone(
    batch: Examples, key: jax.Array
  ) -> tuple[dict[str, Array], Weights | None, Gradient, list[Array]]:
    batch = finite_where_nothing_counts(batch)
    clean = first_examples(batch, parts.ascent_fraction)
    found = run_pass(
      network, leaves, clean.inputs, key, state_leaves, taps=taps
    )
    rest = clean.labels, clean.mask
    metrics = clean_metrics(parts, found.outputs, clean)
    direction = ascent_direction(parts.signal, "ascent", found.outputs, *rest)
    weights = None
    if batch.mask is not None:
      weights = Weights(total_weight(batch.mask), total_weight(clean.mask))
    return metrics, weights, found.pullback(direction), found.captured

  metrics, weights, ascent, captured = jax.vmap(alone)(batch, keys)

  def advance(
    leaves: list[Array], micro: tuple[list[Array], Weights | None]
  ) -> tuple[list[Array], None]:
    captured, weights = micro
    new = next_state(network, captured, leaves)
    return kept_without_weight(new, leaves, weights), None

  if state_leaves:
    # Without captured values where the state is a count of steps.
    state_leaves, _ = jax.lax.scan(
      advance, state_leaves, (captured, weights), length=len(keys)
    )
  structure = jax.tree.structure(state.model_state)
  model_state = jax.tree.unflatten(structure, state_leaves)
  return CleanPasses(metrics, weights, ascent, model_state)


class PerturbedPasses(NamedTuple):
  """The passes at `at` plus an offset of each micro-batch."""

  parts: Parts
  network: Network
  state: TrainState
  batch: Examples
  keys: jax.Array
  at: Sequence[Array]
  offset: Offset
  varying: Callable[[PyTree], PyTree]

  def _each(self, alone: Callable[..., Any]) -> Any:
    gradient, scales, weights, arrays = self.offset

    def with_offset(
      batch: Examples, key: jax.Array, own: tuple[Gradient, Any, Any]
    ) -> Any:
      gradient, scales, weights = own
      offset = Offset(gradient, scales, weights, arrays)
      return alone(finite_where_nothing_counts(batch), key, offset)

    own = gradient, scales, weights
    return jax.vmap(with_offset)(self.batch, self.keys, own)

  def mean_gradient(self, shares: Array) -> tuple[Array, list[Array]]:
    """Losses [n], and the gradient of their mean with respect to `at`."""
    state_leaves = jax.tree.leaves(self.state.model_state)

    def mean(at: list[Array]) -> tuple[Array, Array]:
      def alone(batch: Examples, key: jax.Array, offset: Offset) -> Array:
        outputs = perturbed_outputs(
          self.network, at, batch.inputs, key, state_leaves, offset
        )
        return mean_loss(self.parts.loss, outputs, batch.labels, batch.mask)

      losses = self._each(alone)
      counts = shares.astype(losses.dtype)
      return jnp.sum(jnp.where(counts == 0, 0, counts * losses)), losses

    (_, losses), grads = jax.value_and_grad(mean, has_aux=True)(list(self.at))
    return losses.astype(jnp.float32), grads

  def gradients(self) -> tuple[Array, Gradient]:
    """Losses [n], and each one's own gradient."""
    state_leaves = jax.tree.leaves(self.state.model_state)
    taps = _taps(self.network, self.varying)

    def alone(
      batch: Examples, key: jax.Array, offset: Offset
    ) -> tuple[Array, Gradient]:
      found = run_pass(
        self.network,
        self.at,
        batch.inputs,
        key,
        state_leaves,
        taps=taps,
        offset=offset,
      )

      rest = batch.labels, batch.mask
      value = mean_loss(self.parts.loss, found.outputs, *rest)
      signal = loss_ascent(self.parts.loss)
      direction = ascent_direction(signal, "loss", found.outputs, *rest)
      return value.astype(jnp.float32), found.pullback(direction)

    return self._each(alone)


def _taps(
  network: Network, varying: Callable[[PyTree], PyTree]
) -> dict[tuple[int, ...], Array]:
  return {
    site: varying(jnp.zeros(shape.shape, shape.dtype))
    for site, shape in tap_shapes(network).items()
  }
