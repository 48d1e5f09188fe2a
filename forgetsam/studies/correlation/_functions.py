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
from forgetsam._typing import Loss, PyTree
from forgetsam.experiment.build import build_model
from forgetsam.forgetting import DeltaFn, LogitsFn, offset_fn

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


def perturbed(
  weights: PyTree, rho: float, gamma: float = 1.0
) -> PerturbedNetwork:
  return PerturbedNetwork(weights, jnp.float32(rho), jnp.float32(gamma))


def network_logits(forward: Callable[..., Any]) -> LogitsFn:
  """The logits of a `PerturbedNetwork`, of a model without state."""
  return lambda network, images: forward(
    network.weights, {}, images, train=False, key=None
  )[0]


def traced_offset_fn(
  forward: Callable[..., Any],
  loss: Loss,
  *,
  ascent: str,
  perturbation: str,
  activation: str,
) -> DeltaFn:
  """As `offset_fn`, with radius and gamma from the `PerturbedNetwork`."""

  def logits_fn(weights: PyTree, images: Any) -> jax.Array:
    return forward(weights, {}, images, train=False, key=None)[0]

  def delta_fn(
    params: PerturbedNetwork, images: Any, labels: Any, *, micro_batch: Any = 0
  ) -> PerturbedNetwork:
    signal = fs.loss_ascent(loss)
    if ascent != "loss":
      signal = fs.output_bias_forgetting(
        gamma=params.gamma, activation=activation
      )
    perturb = PERTURBATIONS[perturbation](params.rho)
    inner = offset_fn(logits_fn, signal, perturb)
    delta = inner(params.weights, images, labels, micro_batch=micro_batch)
    return perturbed(delta, 0.0, 0.0)

  return delta_fn


def offset_length(params: Any, moved: Any, _: Any) -> jax.Array:
  return tree_norm(optax.tree.sub(moved.weights, params.weights))


@functools.partial(jax.jit, static_argnums=0)
def loss_and_accuracy(
  logits_fn: Any, network: PerturbedNetwork, images: Any, labels: Any
) -> tuple[jax.Array, jax.Array]:
  logits = logits_fn(network, images)
  loss = fs.softmax_cross_entropy()(logits, labels)
  return loss, jnp.mean(jnp.argmax(logits, axis=1) == labels)


class Functions:
  """The compiled functions of one model, for all of the study's networks.

  Args:
    config: any network's; the model must have no state.
    num_classes: number of logits.
  """

  def __init__(self, config: config_dict.ConfigDict, num_classes: int):
    self.forward = models.forward(build_model(config, num_classes))
    self.loss = fs.softmax_cross_entropy()
    self.logits_fn = network_logits(self.forward)
    self._activation = config.ascent.activation

  @functools.cache  # noqa: B019  # as long as the study
  def delta_fn(self, ascent: str, perturbation: str) -> DeltaFn:
    """An offset of each `PerturbedNetwork`, the same object every time."""
    return traced_offset_fn(
      self.forward,
      self.loss,
      ascent=ascent,
      perturbation=perturbation,
      activation=self._activation,
    )
