"""The functions of one model, for all networks, radii and gammas."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import models
from forgetsam._arrays import tree_norm
from forgetsam._typing import PyTree
from forgetsam.experiment.build import build_loss, build_model
from forgetsam.forgetting import DeltaFn, offset_fn

ASCENTS = ("loss", "output_bias_forgetting")
PERTURBATIONS: dict[str, Callable[[Any], Any]] = {
  "sam": fs.sam,
  "asam": fs.asam,
  "random": lambda rho: fs.random_perturbation(rho, seed=0),
}


class PerturbedNetwork(NamedTuple):
  """A network's weights, and the numbers of its perturbation.

  The estimators take it for parameters: one program serves all numbers.
  """

  weights: PyTree
  rho: jax.Array
  gamma: jax.Array  # of output bias forgetting; others do not read it


class Functions:
  """The compiled functions of one model, for all of the study's networks.

  Args:
    config: any network's; the model must have no state.
    num_classes: number of logits.

  Attributes:
    forward: the model's, as `fs.models.forward` makes it.
    loss: the training loss, without label smoothing.
  """

  def __init__(self, config: config_dict.ConfigDict, num_classes: int):
    self.forward = models.forward(build_model(config, num_classes))
    config = config.copy_and_resolve_references()
    config.loss.label_smoothing = 0.0
    self.loss = build_loss(config, num_classes)
    self._activation = config.ascent.activation

  @staticmethod
  def network(
    weights: PyTree, rho: float = 0.0, gamma: float = 1.0
  ) -> PerturbedNetwork:
    """Weights as the functions below take them."""
    return PerturbedNetwork(weights, jnp.float32(rho), jnp.float32(gamma))

  def logits_fn(self, network: PerturbedNetwork, images: Any) -> jax.Array:
    """The logits in evaluation mode."""
    return self._logits(network.weights, images)

  @functools.cache  # noqa: B019  # as long as the study
  def delta_fn(self, ascent: str, perturbation: str) -> DeltaFn:
    """An offset of each network, the same function for the same names.

    Args:
      ascent: "loss" or "output_bias_forgetting".
      perturbation: "sam", "asam" or "random".
    """
    perturb = PERTURBATIONS[perturbation]

    def delta_fn(
      params: PerturbedNetwork,
      images: Any,
      labels: Any,
      *,
      micro_batch: Any = 0,
    ) -> PerturbedNetwork:
      signal = fs.loss_ascent(self.loss)
      if ascent != "loss":
        signal = fs.output_bias_forgetting(
          gamma=params.gamma, activation=self._activation
        )
      inner = offset_fn(self._logits, signal, perturb(params.rho))
      delta = inner(params.weights, images, labels, micro_batch=micro_batch)
      return self.network(delta, gamma=0.0)

    return delta_fn

  def _logits(self, weights: PyTree, images: Any) -> jax.Array:
    return self.forward(weights, {}, images, train=False, key=None)[0]


def offset_length(params: Any, moved: Any, _: Any) -> jax.Array:
  return tree_norm(optax.tree.sub(moved.weights, params.weights))


@functools.partial(jax.jit, static_argnums=0)
def loss_and_accuracy(
  logits_fn: Any, network: PerturbedNetwork, images: Any, labels: Any
) -> tuple[jax.Array, jax.Array]:
  logits = logits_fn(network, images)
  loss = fs.softmax_cross_entropy()(logits, labels)
  return loss, jnp.mean(jnp.argmax(logits, axis=1) == labels)
