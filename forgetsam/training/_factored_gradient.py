"""The gradient of m-sharpness for a training loop of one's own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from forgetsam._arrays import cast_like
from forgetsam._typing import AscentSignal, Forward, Loss, PyTree
from forgetsam.training._hooks import reads_ascent_gradient
from forgetsam.training._metrics import default_metrics
from forgetsam.training._micro_batches import average_over_micro_batches
from forgetsam.training._micro_step import Examples, Parts, micro_batch_step
from forgetsam.training._step_arguments import (
  check_arguments,
  check_m_sharpness,
)
from forgetsam.training._train_state import TrainState, check_transforms
from forgetsam.training.factored import decide


class GradientAux(NamedTuple):
  """Results beside the gradient of `factored_gradient`.

  Attributes:
    metrics: of the clean pass, and `ascent_grad_norm`, averaged.
    model_state: after the last micro-batch.
  """

  metrics: dict[str, Array]
  model_state: PyTree


def factored_gradient(
  forward: Forward,
  *,
  loss: Loss,
  perturb: optax.GradientTransformation,
  micro_batch_size: int,
  ascent: AscentSignal | None = None,
  m_sharpness: str = "factored",
  m_sharpness_chunk: int | None = None,
) -> Callable[..., tuple[PyTree, Any, GradientAux]]:
  r"""The gradient of m-sharpness, at a cost that hardly depends on m.

  With consecutive micro-batches :math:`B_1, \ldots, B_n` of m examples, the
  perturbation P and the ascent objective A,

  .. math:: g = \frac1n \sum_i \nabla L_{B_i}\bigl(w +
     P(\nabla A_{B_i}(w))\bigr).

  No gradient and no offset of a micro-batch is formed where the layers' inputs
  and their outputs' cotangents do: it is what `make_train_step` descends, for
  loops that have an optimizer, a schedule or a state of their own.

  Args:
    forward: the model, as in `make_train_step`.
    loss: the training loss, as in `make_train_step`.
    perturb: a `perturbed_gradient`; whoever calls keeps its state.
    micro_batch_size: m, the examples of one perturbation; it divides the batch.
    ascent: the ascent signal; `None` ascends the loss.
    m_sharpness: "factored", which refuses what it cannot do, "auto" or "loop",
      as in `make_train_step`.
    m_sharpness_chunk: how many examples are taken together; `None` bounds their
      memory.

  Returns:
    A function of `(params, perturb_state, inputs, labels, key, *, where=None,
    model_state={}, opt_state=())` to the gradient in the parameters' dtypes,
    the new `perturb_state` and `GradientAux(metrics, model_state)`. Call it
    under `jax.jit`. The key is this step's; micro-batches fold in their number.
    `where` are weights of examples or positions, and `opt_state` is for
    perturbations along the momentum.

  Raises:
    ValueError: an argument that `make_train_step` refuses, or a step that
      cannot be factored where `m_sharpness` is "factored".

  Example:
    >>> import forgetsam as fs
    >>> def forward(params, model_state, inputs, *, train, key):
    ...   return inputs @ params["kernel"], model_state
    >>> perturb = fs.perturbed_gradient(fs.sam(rho=0.05))
    >>> gradient = fs.factored_gradient(
    ...   forward,
    ...   loss=fs.softmax_cross_entropy(),
    ...   perturb=perturb,
    ...   micro_batch_size=1,
    ... )
    >>> params = {"kernel": jnp.ones((3, 2))}
    >>> images, labels = jnp.ones((4, 3)), jnp.array([0, 1, 0, 0])
    >>> grads, perturb_state, aux = jax.jit(gradient)(
    ...   params, perturb.init(params), images, labels, jax.random.key(0)
    ... )
    >>> round(float(perturb_state.perturbation_norm), 4)
    0.05

  References:
    Foret et al., *Sharpness-Aware Minimization*, ICLR 2021, section 4.1, on m.
  """
  check_arguments(ascent, perturb, micro_batch_size, 1.0)
  check_m_sharpness(m_sharpness, m_sharpness_chunk)
  check_transforms(optax.identity(), perturb)
  transform = optax.with_extra_args_support(perturb)

  def gradient(
    params: PyTree,
    perturb_state: Any,
    inputs: PyTree,
    labels: PyTree,
    key: jax.Array,
    *,
    where: Any = None,
    model_state: PyTree = None,
    opt_state: Any = (),
  ) -> tuple[PyTree, Any, GradientAux]:
    model_state = {} if model_state is None else model_state
    step = jnp.zeros((), jnp.int32)
    state = TrainState(step, params, model_state, opt_state, perturb_state)
    parts = Parts(
      forward=forward,
      loss=loss,
      ascent=ascent,
      perturb=transform,
      metrics=default_metrics(loss, ascent),
      ascent_fraction=1.0,
      reads_ascent=reads_ascent_gradient(transform, state, micro_batch_size),
      reads_clean=False,
    )
    choice = parts, m_sharpness, m_sharpness_chunk, None
    result = average_over_micro_batches(
      micro_batch_step(parts),
      state,
      Examples(inputs, labels, where),
      key,
      size=micro_batch_size,
      mesh=None,
      choose=lambda *place: decide(*choice, *place, tries=False).together,
    )
    grads = cast_like(result.grads, params)
    aux = GradientAux(result.metrics, result.model_state)
    return grads, result.perturb_state, aux

  return gradient
