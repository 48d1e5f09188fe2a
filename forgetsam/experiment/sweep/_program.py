"""The compiled program that runs of one shape share."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

import forgetsam as fs
from forgetsam import data
from forgetsam.experiment.build import Experiment, build_experiment
from forgetsam.experiment.sweep._batches import read_batch
from forgetsam.experiment.sweep._hyper_parameters import Parts, put_together

Numbers = dict[str, Any]


class Program:
  """Start, steps and evaluation of all runs that differ in numbers only.

  Attributes:
    start: `numbers -> state`.
    advance: `(numbers, state, resident, xs) -> (state, metrics)`: as many
      steps as `xs` has, in one loop on the device; metrics are stacked.
    eval_step: as `make_eval_step` builds it.
    steps_per_epoch: updates in an epoch.
    num_steps: updates in the run.
    loops: whether several steps go into one loop; see `_has_convolution`.
  """

  def __init__(self, parts: Parts, sources: data.Sources):
    def build(numbers: Numbers) -> Experiment:
      return build_experiment(put_together(parts.frame, numbers), sources)

    sizes = build(parts.numbers)
    self.eval_step = sizes.eval_step
    self.steps_per_epoch = sizes.steps_per_epoch
    self.num_steps = sizes.num_steps
    self.start: Callable[[Numbers], fs.TrainState] = jax.jit(
      lambda numbers: build(numbers).create_state()
    )
    self.loops = jax.default_backend() != "cpu" or not _has_convolution(sizes)
    self.advance = jax.jit(_advance(build, self.loops), donate_argnums=1)


def _advance(
  build: Callable[[Numbers], Experiment], loops: bool
) -> Callable[..., tuple[fs.TrainState, dict[str, Array]]]:
  def advance(
    numbers: Numbers, state: fs.TrainState, resident: dict[str, Array], xs: Any
  ) -> tuple[fs.TrainState, dict[str, Array]]:
    run = build(numbers)

    def body(
      state: fs.TrainState, x: Any
    ) -> tuple[fs.TrainState, dict[str, Array]]:
      return run.train_step(state, read_batch(resident, x), run.key)

    if loops:
      return jax.lax.scan(body, state, xs)
    state, metrics = body(state, jax.tree.map(lambda x: x[0], xs))
    return state, jax.tree.map(lambda m: m[None], metrics)

  return advance


def _has_convolution(experiment: Experiment) -> bool:
  """Whether the model convolves.

  XLA's CPU backend runs convolutions inside a loop about 12 times slower.
  """
  shape = (1, *experiment.sources.image_shape)
  jaxpr = jax.make_jaxpr(
    lambda image: experiment.model.init(jax.random.key(0), image, train=False)
  )(jax.ShapeDtypeStruct(shape, "float32"))
  return "conv_general_dilated" in str(jaxpr)
