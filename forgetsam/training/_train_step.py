"""The jitted training step: ascent, perturbation and descent on a mesh."""

from typing import Any

import jax
import optax
from jax.sharding import Mesh

from forgetsam._typing import AscentSignal, Forward, Loss
from forgetsam.training._checked_step import TrainStep
from forgetsam.training._descend import Metrics, descend
from forgetsam.training._hooks import (
  reads_ascent_gradient,
  reads_clean_gradient,
)
from forgetsam.training._mesh import (
  check_mesh,
  has_more_axes,
  replicated,
  split_batch,
  spread,
)
from forgetsam.training._metrics import MetricsFn, default_metrics
from forgetsam.training._micro_batches import (
  Share,
  average_over_micro_batches,
  share_of_one,
)
from forgetsam.training._micro_step import (
  Examples,
  Parts,
  micro_batch_step,
  num_examples,
  read_examples,
)
from forgetsam.training._placed_step import PlacedStep, constrained, gathering
from forgetsam.training._step_arguments import (
  check_arguments,
  check_m_sharpness,
  check_previous,
  check_state,
)
from forgetsam.training._train_state import TrainState, check_transforms
from forgetsam.training.factored import Decision, MSharpness, decide


def make_train_step(
  forward: Forward,
  *,
  loss: Loss,
  optimizer: optax.GradientTransformation,
  ascent: AscentSignal | None = None,
  perturb: optax.GradientTransformation | None = None,
  inputs: str = "image",
  labels: str = "label",
  metrics: MetricsFn | None = None,
  micro_batch_size: int | None = None,
  ascent_fraction: float = 1.0,
  m_sharpness: str = "loop",
  m_sharpness_chunk: int | None = None,
  mesh: Mesh | None = None,
  shard_opt_state: bool = False,
) -> TrainStep:
  r"""Builds the jitted, donated training step.

  With the batch split into consecutive micro-batches
  :math:`B_1, \ldots, B_n` of m examples, over all devices,

  .. math:: g = \frac1n \sum_i \nabla L_{B_i}\bigl(w +
     P(\nabla A_{B_i}(w))\bigr), \qquad w \leftarrow w + O(g)

  with L the loss, A the ascent objective, P the perturbation (where `perturb`
  combines, its rule in place of the plain gradient), and O the optimizer. One
  collective averages gradients, model state and metrics. A step whose loss,
  perturbed loss or gradient is not finite keeps the old state and sets the
  metric `skipped`.

  Args:
    forward: the model, `forward(params, model_state, inputs, *, train, key) ->
      (outputs, model_state)`, such as `models.forward(module)`; outputs are
      logits, or any tree that `loss` takes.
    loss: `(outputs, labels) -> scalar`, the batch mean in it; with a mask in
      the batch it is called with `where=`, and so is the signal. One that
      returns a number per example `[B]` or position is averaged by weight.
    optimizer: any optax chain; it sees the averaged gradient, the training
      loss as the extra argument `value`, and, where it reads them,
      `clean_grads`, the clean pass's gradient of the loss.
    ascent: the ascent signal; `None` ascends the loss.
    perturb: a `perturbed_gradient`; `None` is plain training.
    inputs: the key of the batch that `forward` takes; any tree of arrays that
      have examples first.
    labels: the key that `loss` takes, another such tree; a loss that needs no
      labels may share the inputs' key.
    metrics: `(outputs, labels, where) -> dict` of scalars, or of arrays per
      example or position, averaged by weight; `None` is the accuracy where
      loss or signal is one of classes, as this package's, and else nothing.
    micro_batch_size: m, the examples of one perturbation (and of one BatchNorm
      batch); it must divide each device's share. `None` takes the share whole,
      and then the result depends on the number of devices.
    m_sharpness: "loop" runs one micro-batch after another. "factored" takes
      them together, by the layers' inputs and output cotangents alone: the same
      gradient to rounding, at a cost that hardly depends on m, for every
      perturbation that reads norms and inner products of the ascent gradient
      (`sam`, `friendly_sam`, `only`, schedules, with `surrogate_gap` or
      `weighted`; no elementwise one, such as `asam` by default). "auto" takes
      what is faster here, and the loop where it must:
      `step.m_sharpness(state, batch)` says which, and why.
    m_sharpness_chunk: how many examples are taken together, whole micro-batches
      that divide a device's share; `None` bounds their memory.
    ascent_fraction: the share of each micro-batch, its first examples (rounded
      up), that the clean pass takes, in (0, 1]: ascent gradient, loss, metrics
      and model state are theirs, and SAM costs 1 + ascent_fraction gradients.
    mesh: a mesh with the axis "data", over which micro-batches are divided;
      `None` runs on the default device. The devices along an axis "fsdp" share
      the examples of a micro-batch, of which they must divide m, and gather
      parameters for each pass; all further axes are the compiler's, as "model"
      for tensor parallelism. Arrays stay where the state has them.
    shard_opt_state: whether each device holds and updates a part of the
      optimizer's state (ZeRO-1: Rajbhandari et al., 2020), for one collective
      more (two where the perturbation reads that state); as in
      `create_train_state`.

  Returns:
    `step(state, batch, key) -> (state, metrics)`. The batch has inputs, labels
    (for the built-in losses `[...]` or `[..., K]` beside logits `[..., K]`),
    and may have "mask": weights of at least 0, of examples `[B]` or positions.
    Then :math:`1 / n` becomes the micro-batch's part of all weights, metrics
    and states are weighted means, a micro-batch without weight adds nothing,
    and a batch without any is skipped. BatchNorm sees all examples of a
    micro-batch that has a weight. A `perturb` that reads the batch before, as
    `sampa` does, finds that one's inputs and labels under "previous", of a
    batch without a mask. `key` is the run's key, the same at every
    step: the step folds in `state.step` and the global micro-batch index.
    `state` is donated. Metrics are scalars: loss and the task's (accuracy) of
    the clean pass, grad_norm, skipped; with `perturb` also perturbed_loss,
    perturbation_norm, and ascent_grad_norm where the perturbation reads the
    ascent gradient. A label that is no class makes the loss nan, and the step
    is skipped.

  Raises:
    ValueError: `m_sharpness="factored"` for a step that needs the loop;
      `ascent` or an `ascent_fraction` without `perturb`, a fraction
      outside (0, 1], a `perturb` that never evaluates a gradient, an
      `optimizer` that `create_train_state` refuses or that needs arguments
      besides these, sizes that do not divide, labels or a mask that do not fit
      the outputs, keys of the batch that nothing reads, a mask for a mean loss
      or a signal without `where`, metrics with a name of the step's own, a mesh
      without an axis "data", or `shard_opt_state` without a mesh.

  Example:
    >>> import jax.numpy as jnp
    >>> import forgetsam as fs
    >>> module = fs.models.create("mlp", num_classes=3)
    >>> params, model_state = fs.models.initialise(
    ...   module, jax.random.key(0), (4, 4, 1)
    ... )
    >>> optimizer = fs.sgdw(0.1)
    >>> perturb = fs.perturbed_gradient(fs.sam(rho=0.05))
    >>> step = make_train_step(
    ...   fs.models.forward(module),
    ...   loss=fs.softmax_cross_entropy(),
    ...   optimizer=optimizer,
    ...   ascent=fs.output_bias_forgetting(),
    ...   perturb=perturb,
    ...   micro_batch_size=4,
    ... )
    >>> state = fs.create_train_state(params, model_state, optimizer, perturb)
    >>> batch = {"image": jnp.ones((8, 4, 4, 1)), "label": jnp.arange(8) % 3}
    >>> state, metrics = step(state, batch, jax.random.key(1))
    >>> int(state.step), round(float(metrics["perturbation_norm"]), 4)
    (1, 0.05)
  """
  check_arguments(ascent, perturb, micro_batch_size, ascent_fraction)
  check_m_sharpness(m_sharpness, m_sharpness_chunk)
  check_mesh(mesh, shard=shard_opt_state)
  check_transforms(optimizer, perturb)
  optimizer = optax.with_extra_args_support(optimizer)
  if perturb is not None:
    perturb = optax.with_extra_args_support(perturb)

  def parts_of(
    state: TrainState, batch: dict[str, Any]
  ) -> tuple[Parts, Examples]:
    check_state(perturb, state)
    examples = read_examples(batch, inputs, labels)
    check_previous(perturb, examples)
    share = num_examples(examples) // (
      1 if mesh is None else mesh.shape["data"]
    )
    reads_ascent = perturb is not None and reads_ascent_gradient(
      perturb, state, micro_batch_size or share, examples.previous is not None
    )
    parts = Parts(
      forward=forward,
      loss=loss,
      ascent=ascent,
      perturb=perturb,
      metrics=metrics or default_metrics(loss, ascent),
      ascent_fraction=ascent_fraction,
      reads_ascent=reads_ascent,
      reads_clean=reads_clean_gradient(optimizer, state),
    )
    return parts, examples

  def decision(
    parts: Parts, state: TrainState, share: Share, *, tries: bool = False
  ) -> Decision:
    refusal = None
    if parts.reads_clean:
      refusal = "the optimizer reads the clean gradient"
    elif share.first.previous is not None:
      refusal = "the perturbation reads the batch before"
    elif mesh is not None and has_more_axes(mesh):
      refusal = "parameters are divided over devices"
    return decide(
      *(parts, m_sharpness, m_sharpness_chunk, refusal, state, share),
      tries=tries,
    )

  def step(
    state: TrainState,
    batch: dict[str, Any],
    key: jax.Array,
    placed: tuple[TrainState] | None = None,
  ) -> tuple[TrainState, Metrics]:
    parts, examples = parts_of(state, batch)
    if placed is not None and mesh is not None:
      model = gathering(forward, placed[0].params, mesh)
      parts = parts._replace(forward=model)
    result = average_over_micro_batches(
      micro_batch_step(parts),
      state,
      examples,
      key,
      size=micro_batch_size,
      mesh=mesh,
      choose=lambda *place: decision(parts, *place).together,
    )
    new_state, found = descend(
      optimizer, state, result, reads_clean=parts.reads_clean
    )
    if placed is not None:
      new_state = constrained(new_state, placed[0])
    elif shard_opt_state and mesh is not None and not has_more_axes(mesh):
      # XLA chooses the same where it follows the old state; this is certain.
      spreads = spread(mesh, new_state.opt_state)
      new_state = new_state.replace(
        opt_state=jax.lax.with_sharding_constraint(new_state.opt_state, spreads)
      )
    return new_state, found

  def report(state: TrainState, batch: dict[str, Any]) -> MSharpness:
    found: list[MSharpness] = []

    def choose(state: TrainState, batch: dict[str, Any], key: Any) -> None:
      parts, examples = parts_of(state, batch)
      share = share_of_one(examples, micro_batch_size, mesh, key)
      found.append(decision(parts, state, share, tries=True).report)

    jax.eval_shape(choose, state, batch, jax.random.key(0))
    return found[0]

  shardings: dict[str, Any] = {}
  if mesh is not None:
    whole = replicated(mesh)
    if has_more_axes(mesh):
      batch_at = (None, split_batch(mesh), whole)
      placed_step = PlacedStep(
        step, mesh, 1, donate_argnums=0, in_shardings=batch_at
      )
      return TrainStep(placed_step, mesh, inputs, labels, report)
    # What is None keeps the placement that it has.
    opt_state = None if shard_opt_state else whole
    state_at = TrainState(whole, whole, whole, opt_state, whole)
    at = (state_at, split_batch(mesh), whole)
    shardings = {"in_shardings": at, "out_shardings": (state_at, whole)}
  jitted = jax.jit(step, donate_argnums=0, **shardings)
  return TrainStep(jitted, mesh, inputs, labels, report)
