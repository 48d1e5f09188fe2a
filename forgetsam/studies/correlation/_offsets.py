"""Offsets whose radius and gamma are numbers, for one program over networks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import forgetsam as fs
from forgetsam._typing import AscentSignal, Loss, PyTree
from forgetsam.forgetting import DeltaFn, offset_fn

LogitsFn = Callable[[PyTree, Any], jax.Array]


class Probed(NamedTuple):
  """A network, and the numbers of the perturbation that probes it.

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


def probed(weights: PyTree, rho: float, gamma: float = 1.0) -> Probed:
  """A network with a perturbation's numbers."""
  return Probed(weights, jnp.float32(rho), jnp.float32(gamma))


def probed_logits(forward: Callable[..., Any]) -> LogitsFn:
  """A model's logits as a function of `Probed` and images, to be kept.

  Args:
    forward: as `fs.models.forward` makes it, of a model without state.
  """

  def logits_fn(network: Probed, images: Any) -> jax.Array:
    return forward(network.weights, {}, images, train=False, key=None)[0]

  return logits_fn


def probed_offset_fn(
  forward: Callable[..., Any],
  loss: Loss,
  *,
  ascent: str,
  perturbation: str,
  activation: str,
) -> DeltaFn:
  r"""As `offset_fn`, with the radius and gamma taken from the `Probed`.

  Args:
    forward: as `fs.models.forward` makes it, of a model without state.
    loss: what `ascent="loss"` ascends.
    ascent: "loss" or "output_bias_forgetting".
    perturbation: "sam", "asam" or "random".
    activation: of the outputs, for output bias forgetting.

  Returns:
    `delta_fn(network, images, labels, *, micro_batch=0)`: an offset of the
    weights, and zeros for the two numbers.

  Example:
    >>> def forward(params, model_state, images, *, train, key):
    ...   return images @ params, model_state
    >>> delta_fn = probed_offset_fn(
    ...   forward, fs.softmax_cross_entropy(), ascent="loss",
    ...   perturbation="sam", activation="softmax",
    ... )
    >>> network = probed(jnp.zeros((2, 3)), rho=0.5)
    >>> delta = delta_fn(network, jnp.eye(2), jnp.array([0, 1]))
    >>> float(jnp.linalg.norm(delta.weights)), float(delta.rho)
    (0.5, 0.0)
  """

  def logits_fn(weights: PyTree, images: Any) -> jax.Array:
    return forward(weights, {}, images, train=False, key=None)[0]

  def delta_fn(
    params: Probed, images: Any, labels: Any, *, micro_batch: Any = 0
  ) -> Probed:
    inner = offset_fn(
      logits_fn,
      _signal(ascent, loss, params.gamma, activation),
      _perturbation(perturbation, params.rho),
    )
    delta = inner(params.weights, images, labels, micro_batch=micro_batch)
    zero = jnp.zeros_like(params.rho)
    return Probed(delta, zero, zero)

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
