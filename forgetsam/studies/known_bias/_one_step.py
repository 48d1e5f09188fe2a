"""One training step: its perturbation forgets, its descent learns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from forgetsam._typing import Loss, PyTree
from forgetsam.forgetting import DeltaFn, LogitsFn, add_offset
from forgetsam.studies.known_bias._influence import ImagePairs, influence


class LogChange(NamedTuple):
  """Changes of the log influences of the patch and of the content."""

  patch: Float[Array, ""]
  content: Float[Array, ""]

  @property
  def balance(self) -> Float[Array, ""]:
    """The change of log(patch / content): negative where bias loses weight."""
    return self.patch - self.content


class StepEffect(NamedTuple):
  """One training step, taken apart.

  Attributes:
    forgotten: by the perturbation; negative where it forgets.
    learned: by the descent step that follows, per unit of learning rate.
  """

  forgotten: LogChange
  learned: LogChange


def step_effect(
  logits_fn: LogitsFn, loss: Loss, delta_fn: DeltaFn | None
) -> Callable[[PyTree, Any, Any, ImagePairs], StepEffect]:
  r"""A function that takes one training step apart.

  With :math:`I(w)` the influence of the patch or of the content,
  :math:`B_j` the micro-batches and :math:`\delta_j` their perturbations,

  .. math:: \text{forgotten} = \frac1J \sum_j \log\frac{I(w + \delta_j)}{I(w)},
     \qquad \text{learned} = -\Bigl\langle \nabla \log I(w),
       \frac1J \sum_j \nabla L_{B_j}(w + \delta_j) \Bigr\rangle.

  The first is what the perturbations do to the network; it is undone before the
  weights move. The second is what training does to them: the derivative of
  log I along the step, without momentum and weight decay.

  Args:
    logits_fn: `(params, images) -> logits [batch, classes]`, deterministic.
    loss: the training loss.
    delta_fn: `(params, images, labels, *, micro_batch) -> offset`, such as
      `forgetting.offset_fn` makes; None does not perturb: plain training.

  Returns:
    `(params, images [J, m, ...], labels [J, m], pairs) -> StepEffect`, jitted.

  References:
    Vani et al., *Forget Sharpness*, ICML 2024, for perturbed forgetting.
  """

  def log_influence(params: PyTree, pairs: ImagePairs) -> LogChange:
    found = influence(logits_fn, params, pairs)
    return LogChange(jnp.log(found.patch), jnp.log(found.content))

  def one(
    params: PyTree, images: Any, labels: Any, index: Array, pairs: ImagePairs
  ) -> tuple[LogChange, PyTree]:
    moved = params
    if delta_fn is not None:
      delta = delta_fn(params, images, labels, micro_batch=index)
      moved = add_offset(params, delta)
    gradient = jax.grad(lambda p: loss(logits_fn(p, images), labels))(moved)
    return log_influence(moved, pairs), gradient

  @jax.jit
  def effect(
    params: PyTree, images: Any, labels: Any, pairs: ImagePairs
  ) -> StepEffect:
    each, gradients = jax.lax.map(
      lambda x: one(params, x[0], x[1], x[2], pairs),
      (images, labels, jnp.arange(len(labels))),
    )
    descent = jax.tree.map(lambda g: -g.mean(axis=0), gradients)
    before, learned = jax.jvp(
      lambda p: log_influence(p, pairs), (params,), (descent,)
    )
    forgotten = jax.tree.map(lambda a, b: jnp.mean(a) - b, each, before)
    return StepEffect(forgotten, learned)

  return effect
