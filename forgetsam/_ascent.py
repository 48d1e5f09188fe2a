"""Ascent signals: what the perturbation ascends, as a gradient of the logits.

A signal maps `(logits [..., K], labels [...] or [..., K])` to the cotangent
`d objective / d logits [..., K]`, the mean over positions included. A model's
pullback turns it into the ascent gradient; signals are never differentiated
through.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from forgetsam._arrays import conj
from forgetsam._checks import check_choice, check_number
from forgetsam._labels import check_floats, labelled
from forgetsam._objectives import (
  apply,
  ascent_direction,
  is_of_classes,
  mean_loss,
  of_classes,
)
from forgetsam._typing import AscentSignal, Loss, PyTree, Scalar

_ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "softmax": jax.nn.softmax}


def output_bias_forgetting(
  lam: Scalar | None = None,
  gamma: Scalar = 1.0,
  activation: str = "sigmoid",
) -> AscentSignal:
  r"""The ascent signal of output bias forgetting (OBF).

  For output probabilities p, target y and the uniform distribution u = 1/K it
  ascends, with :math:`\alpha` held fixed, the mean over examples of

  .. math:: (1 - \alpha)\, \mathrm{CE}(p, y) - \mathrm{CE}(p, u), \qquad
     \alpha = \gamma \max\Bigl(0,
       \frac{1 - \lambda / p_y}{1 - \lambda}\Bigr), \qquad
     p_y = \langle p, y \rangle,

  in logit space the direction :math:`u - \alpha p - (1 - \alpha) y`: confident
  examples move towards u, those of :math:`p_y \le \lambda` forget their label.
  Where logits have more axes, as tokens `[B, T, K]` or pixels `[B, H, W, K]`,
  each position i has its own :math:`\alpha_i`, and its direction the weight
  :math:`v_i / \sum_j v_j` (v = 1 where no weights are given).

  Args:
    lam: :math:`\lambda` in [0, 1), the probability of the label at and below
      which an example counts as not learned; `None` means 1/K.
    gamma: :math:`\gamma` in [0, 1]; at 0 the direction is u - y.
    activation: how p comes from the logits, "sigmoid" (the official code's
      choice for every model) or "softmax".

  Returns:
    `signal(logits, labels, where=None)` with arguments as of
    :func:`sigmoid_cross_entropy`: the weighted directions, in the logits' shape
    and dtype; nan where a label is no class, 0 where the weight is 0.

  Raises:
    ValueError: lam is outside [0, 1), gamma outside [0, 1], or the activation
      is unknown.

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

  def signal(
    logits: Any, labels: Any, where: Any = None
  ) -> Float[Array, "*batch classes"]:
    given = labelled(logits, labels, where)
    z, y = given.logits, given.targets
    uniform = 1 / z.shape[-1]
    threshold = uniform if lam is None else lam
    p = _ACTIVATIONS[activation](z)
    # A saturated p_y may be exactly 0; with lam = 0 the ratio must stay 0.
    p_y = jnp.sum(p * y, axis=-1, keepdims=True)
    p_y = jnp.maximum(p_y, jnp.finfo(z.dtype).tiny)
    alpha = gamma * jnp.maximum(0, (1 - threshold / p_y) / (1 - threshold))
    direction = uniform - alpha * p - (1 - alpha) * y
    return given.share(direction).astype(jnp.asarray(logits).dtype)

  return of_classes(signal)


def loss_ascent(loss: Loss) -> AscentSignal:
  r"""The ascent signal of standard SAM: the gradient of `loss`.

  .. math:: \partial L(z, y) / \partial z

  Args:
    loss: `(outputs, labels) -> scalar`, the batch mean in it, or one number an
      example; the signal takes the same arguments, and weights where `loss`
      takes them or leaves the mean to the signal. Outputs may be a tree.

  Example:
    >>> from forgetsam import softmax_cross_entropy
    >>> signal = loss_ascent(softmax_cross_entropy())
    >>> signal(jnp.zeros((1, 4)), jnp.array([2]))  # p - y
    Array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32)

  References:
    Foret et al., *Sharpness-Aware Minimization*, ICLR 2021.
  """

  def signal(outputs: PyTree, labels: PyTree, where: Any = None) -> PyTree:
    counts = (jnp.bool_, jnp.integer)  # beside the logits, such as tokens
    rest = [
      z
      for z in jax.tree.leaves(outputs)
      if not any(jnp.issubdtype(jnp.result_type(z), kind) for kind in counts)
    ]
    check_floats("logits", rest or outputs)

    def value(outputs: PyTree) -> Float[Array, ""]:
      return mean_loss(loss, outputs, labels, where, "signal")

    return jax.grad(value, allow_int=True)(outputs)

  return of_classes(signal) if is_of_classes(loss) else signal


def pseudo_loss(signal: AscentSignal) -> Loss:
  r"""A scalar function of the logits whose gradient is the signal.

  .. math:: \ell(z, y) = \sum_{i,k} \mathrm{sg}(s(z, y))_{ik}\, z_{ik}

  For code that is built on `jax.grad` of a loss. Its value, that of the
  official implementation's pseudo-loss, has no meaning of its own.

  Args:
    signal: an ascent signal; weights, as `where=`, are passed on to it.

  Example:
    >>> objective = pseudo_loss(output_bias_forgetting(gamma=0.0))
    >>> jax.grad(objective)(jnp.zeros((1, 4)), jnp.array([2]))
    Array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32)
  """

  def loss(
    outputs: PyTree, labels: PyTree, where: Any = None
  ) -> Float[Array, ""]:
    direction = apply(signal, "signal", outputs, labels, where)

    def product(d: Array, z: Any) -> Array:
      d = jax.lax.stop_gradient(d)
      # What has no weight may be nan.
      return jnp.sum(d * (z if where is None else jnp.where(d == 0, 0, z)))

    return jax.tree.reduce(jnp.add, jax.tree.map(product, direction, outputs))

  return loss


class AscentAux(NamedTuple):
  """Results of the clean pass of `ascent_and_descent`."""

  logits: PyTree  # `[..., classes]`, or what else `logits_fn` returns
  loss: Float[Array, ""]


def ascent_and_descent(
  logits_fn: Callable[[PyTree], PyTree], loss: Loss, signal: AscentSignal
) -> Callable[..., tuple[PyTree, Callable[[PyTree], PyTree], AscentAux]]:
  r"""The ascent gradient and the descent gradient's function, in one pass.

  The safe way to OBF in one's own training loop: handing `perturbed_gradient`
  the gradient of the loss instead of the *signal's* would silently be SAM.

  Args:
    logits_fn: `params -> logits [..., classes]` on the batch at hand, or any
      tree of outputs that loss and signal take.
    loss: the training loss, as in `make_train_step`.
    signal: the ascent signal, for example `output_bias_forgetting()`.

  Returns:
    A function of `(params, labels, where=None)` to the ascent gradient at
    params, the function `params -> gradient of the loss`, and
    `AscentAux(logits, loss)`. `where` are weights of examples or positions, for
    a loss and a signal that take them. Gradients of complex
    parameters are optax's, the conjugate of `jax.grad`'s.

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
    params: PyTree, labels: PyTree, where: Any = None
  ) -> tuple[PyTree, Callable[[PyTree], PyTree], AscentAux]:
    def value(logits: Any) -> Float[Array, ""]:
      return mean_loss(loss, logits, labels, where)

    logits, pullback = jax.vjp(logits_fn, params)
    direction = ascent_direction(signal, "signal", logits, labels, where)
    ascent_grads = conj(pullback(direction)[0])

    def grad_fn(params: PyTree) -> PyTree:
      return conj(jax.grad(lambda p: value(logits_fn(p)))(params))

    return ascent_grads, grad_fn, AscentAux(logits, value(logits))

  return both
