"""The functions of one model, for all networks, radii and gammas."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import models
from forgetsam._typing import AscentSignal, Loss, PyTree
from forgetsam.experiment.build import build_model
from forgetsam.forgetting import DeltaFn, LogitsFn, offset_fn


class PerturbedNetwork(NamedTuple):
  """A network, and the numbers of the perturbation that it is measured by.

  The estimators take it for the network's parameters: one compiled program
  serves every radius and gamma.

  Attributes:
    weights: the network's parameters.
    rho: the perturbation's radius.
    gamma: output bias forgetting's gamma; others do not read it.
  """

  weights: PyTree
  rho: jax.Array
  gamma: jax.Array


def perturbed(
  weights: PyTree, rho: float, gamma: float = 1.0
) -> PerturbedNetwork:
  """A network with a perturbation's numbers."""
  return PerturbedNetwork(weights, jnp.float32(rho), jnp.float32(gamma))


def network_logits(forward: Callable[..., Any]) -> LogitsFn:
  """The logits of a `PerturbedNetwork`, of a model without state."""

  def logits_fn(network: PerturbedNetwork, images: Any) -> jax.Array:
    return forward(network.weights, {}, images, train=False, key=None)[0]

  return logits_fn


def traced_offset_fn(
  forward: Callable[..., Any],
  loss: Loss,
  *,
  ascent: str,
  perturbation: str,
  activation: str,
) -> DeltaFn:
  r"""As `offset_fn`, with radius and gamma from the `PerturbedNetwork`.

  Example:
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images @ params, model_state
    >>> delta_fn = traced_offset_fn(
    ...   forward, fs.softmax_cross_entropy(), ascent="loss",
    ...   perturbation="sam", activation="softmax",
    ... )
    >>> network = perturbed(jnp.zeros((2, 3)), rho=0.5)
    >>> delta = delta_fn(network, jnp.eye(2), jnp.array([0, 1]))
    >>> float(jnp.linalg.norm(delta.weights)), float(delta.rho)
    (0.5, 0.0)
  """

  def logits_fn(weights: PyTree, images: Any) -> jax.Array:
    return forward(weights, {}, images, train=False, key=None)[0]

  def delta_fn(
    params: PerturbedNetwork, images: Any, labels: Any, *, micro_batch: Any = 0
  ) -> PerturbedNetwork:
    inner = offset_fn(
      logits_fn,
      _signal(ascent, loss, params.gamma, activation),
      _perturbation(perturbation, params.rho),
    )
    delta = inner(params.weights, images, labels, micro_batch=micro_batch)
    zero = jnp.zeros_like(params.rho)
    return PerturbedNetwork(delta, zero, zero)

  return delta_fn


def _signal(
  ascent: str, loss: Loss, gamma: jax.Array, activation: str
) -> AscentSignal:
  if ascent == "loss":
    return fs.loss_ascent(loss)
  return fs.output_bias_forgetting(gamma=gamma, activation=activation)


def _perturbation(name: str, rho: jax.Array) -> Any:
  if name == "sam":
    return fs.sam(rho)
  return fs.asam(rho) if name == "asam" else fs.random_perturbation(rho, 0)


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
