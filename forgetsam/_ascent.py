"""Ascent signals: what the perturbation ascends, as a gradient of the logits.

A signal maps `(logits [B, K], labels [B] or [B, K])` to the cotangent
`d objective / d logits [B, K]`, the batch mean included. A model's pullback
turns it into the ascent gradient; signals are never differentiated through.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from forgetsam._arrays import at_least_float32, conj
from forgetsam._checks import check_choice, check_number
from forgetsam._losses import target_distribution
from forgetsam._typing import AscentSignal, Labels, Logits, Loss, PyTree, Scalar

_ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "softmax": jax.nn.softmax}


def output_bias_forgetting(
  lam: Scalar | None = None,
  gamma: Scalar = 1.0,
  activation: str = "sigmoid",
) -> AscentSignal:
  r"""The ascent signal of output bias forgetting (OBF).

  For output probabilities p, target y and the uniform distribution u = 1/K it
  ascends, with :math:`\alpha` held fixed,

  .. math:: (1 - \alpha)\, \mathrm{CE}(p, y) - \mathrm{CE}(p, u), \qquad
     \alpha = \gamma \max\Bigl(0,
       \frac{1 - \lambda / p_y}{1 - \lambda}\Bigr), \qquad
     p_y = \langle p, y \rangle,

  in logit space the direction :math:`u - \alpha p - (1 - \alpha) y`: confident
  examples move towards u, those of :math:`p_y \le \lambda` forget their label.

  Args:
    lam: :math:`\lambda` in [0, 1), the probability of the label at and below
      which an example counts as not learned; `None` means 1/K.
    gamma: :math:`\gamma` in [0, 1]; at 0 the direction is u - y.
    activation: how p comes from the logits, "sigmoid" (the official code's
      choice for every model) or "softmax".

  Returns:
    A function of logits `[batch, classes]` and labels (`[batch]` integers, or
    `[batch, classes]` distributions) to the direction divided by the batch
    size, in the logits' shape and dtype.

  Raises:
    ValueError: lam is outside [0, 1), gamma outside [0, 1], the activation is
      unknown, or the logits have one class.

  Example:
    >>> signal = output_bias_forgetting(gamma=0.0)
    >>> signal(jnp.zeros((1, 4)), jnp.array([2]))  # u - y
    Array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32)

  References:
    Vani et al., *Forget Sharpness*, ICML 2024.
  """
  if lam is not None:
    check_number("lam", lam, low=0, high=1, exclude_high=True)
  check_number("gamma", gamma, low=0, high=1)
  check_choice("activation", activation, tuple(_ACTIVATIONS))

  def signal(logits: Logits, labels: Labels) -> Float[Array, "batch classes"]:
    logits = jnp.asarray(logits)
    z = at_least_float32(logits)
    batch, num_classes = z.shape
    if num_classes < 2:
      raise ValueError(
        f"logits of shape {z.shape} have one class: output bias forgetting "
        "needs at least two; give a binary classifier two outputs"
      )
    uniform = 1 / num_classes
    threshold = uniform if lam is None else lam
    p = _ACTIVATIONS[activation](z)
    y = target_distribution(labels, num_classes, z.dtype)
    # A saturated p_y may be exactly 0; with lam = 0 the ratio must stay 0.
    p_y = jnp.sum(p * y, axis=-1, keepdims=True)
    p_y = jnp.maximum(p_y, jnp.finfo(z.dtype).tiny)
    alpha = gamma * jnp.maximum(0, (1 - threshold / p_y) / (1 - threshold))
    direction = uniform - alpha * p - (1 - alpha) * y
    return (direction / batch).astype(logits.dtype)

  return signal


def loss_ascent(loss: Loss) -> AscentSignal:
  r"""The ascent signal of standard SAM: the gradient of `loss`.

  .. math:: \partial L(z, y) / \partial z

  Args:
    loss: `(logits [batch, classes], labels) -> scalar`, the batch mean in it.

  Example:
    >>> from forgetsam import softmax_cross_entropy
    >>> signal = loss_ascent(softmax_cross_entropy())
    >>> signal(jnp.zeros((1, 4)), jnp.array([2]))  # p - y
    Array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32)

  References:
    Foret et al., *Sharpness-Aware Minimization*, ICLR 2021.
  """
  return jax.grad(loss)


def pseudo_loss(signal: AscentSignal) -> Loss:
  r"""A scalar function of the logits whose gradient is the signal.

  .. math:: \ell(z, y) = \sum_{b,k} \mathrm{sg}(s(z, y))_{bk}\, z_{bk}

  For code that is built on `jax.grad` of a loss. Its value, that of the
  official implementation's pseudo-loss, has no meaning of its own.

  Args:
    signal: an ascent signal.

  Example:
    >>> objective = pseudo_loss(output_bias_forgetting(gamma=0.0))
    >>> jax.grad(objective)(jnp.zeros((1, 4)), jnp.array([2]))
    Array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32)
  """

  def loss(logits: Logits, labels: Labels) -> Float[Array, ""]:
    direction = jax.lax.stop_gradient(signal(logits, labels))
    return jnp.sum(direction * logits)

  return loss


class AscentAux(NamedTuple):
  """Results of the clean pass of `ascent_and_descent`."""

  logits: Float[Array, "batch classes"]
  loss: Float[Array, ""]


def ascent_and_descent(
  logits_fn: Callable[[PyTree], Array], loss: Loss, signal: AscentSignal
) -> Callable[
  [PyTree, Labels], tuple[PyTree, Callable[[PyTree], PyTree], AscentAux]
]:
  r"""The ascent gradient and the descent gradient's function, in one pass.

  The safe way to OBF in one's own training loop: handing `perturbed_gradient`
  the gradient of the loss instead of the *signal's* would silently be SAM.

  Args:
    logits_fn: `params -> logits [batch, classes]` on the batch at hand.
    loss: the training loss, `(logits, labels) -> scalar`.
    signal: the ascent signal, for example `output_bias_forgetting()`.

  Returns:
    A function of `(params, labels)` to the ascent gradient at params, the
    function `params -> gradient of the loss`, and `AscentAux(logits, loss)`.
    Gradients of complex parameters are optax's, the conjugate of `jax.grad`'s.

  Example:
    >>> import optax, forgetsam as fs
    >>> images, labels = jnp.ones((4, 3)), jnp.array([0, 1, 0, 1])
    >>> params = {"kernel": jnp.ones((3, 2))}
    >>> optimizer = optax.chain(
    ...   fs.perturbed_gradient(fs.sam(rho=0.05)), optax.sgd(0.1)
    ... )
    >>> ascent_grads, grad_fn, aux = fs.ascent_and_descent(
    ...   lambda p: images @ p["kernel"],
    ...   fs.softmax_cross_entropy(),
    ...   fs.output_bias_forgetting(),
    ... )(params, labels)
    >>> updates, opt_state = optimizer.update(
    ...   ascent_grads, optimizer.init(params), params, grad_fn=grad_fn
    ... )
  """

  def both(
    params: PyTree, labels: Labels
  ) -> tuple[PyTree, Callable[[PyTree], PyTree], AscentAux]:
    logits, pullback = jax.vjp(logits_fn, params)
    ascent_grads = conj(pullback(signal(logits, labels))[0])

    def grad_fn(params: PyTree) -> PyTree:
      return conj(jax.grad(lambda p: loss(logits_fn(p), labels))(params))

    return ascent_grads, grad_fn, AscentAux(logits, loss(logits, labels))

  return both
