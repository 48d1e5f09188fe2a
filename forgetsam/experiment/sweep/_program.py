"""The compiled program that runs of one shape share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import data
from forgetsam.experiment.build import Experiment, build_experiment
from forgetsam.experiment.config import KEYS, config_from_dict, config_to_dict
from forgetsam.experiment.sweep._batches import read_batch

# The factories that these reach accept traced numbers. Other keys that are
# compiled give the program its shape: names, sizes, counts of steps.
TRACED = tuple(key for key, row in KEYS.items() if row.traced)
_NOT_COMPILED = {key for key, row in KEYS.items() if not row.compiled}

Numbers = dict[str, Any]
Stepped = tuple[fs.TrainState, dict[str, Array]]


class Parts(NamedTuple):
  """A configuration, taken apart for compilation."""

  numbers: Numbers  # the traced keys that are set
  frame: dict[str, Any]  # all keys, nested
  # Equal where the program is shared. Keys that are none are in it: they choose
  # a branch.
  shape: str


def take_apart(config: config_dict.ConfigDict) -> Parts:
  """Separates a configuration's numbers from the program's shape."""
  frame = config_to_dict(config)
  flat = flatten_dict(frame, sep=".")
  numbers = {
    key: KEYS[key].rule.kind(flat[key])
    for key in TRACED
    if flat[key] is not None
  }
  shape = {
    key: value
    for key, value in flat.items()
    if key not in numbers and key not in _NOT_COMPILED
  }
  return Parts(numbers, frame, repr(sorted(shape.items())))


def put_together(
  frame: Mapping[str, Any], numbers: Mapping[str, Any]
) -> config_dict.ConfigDict:
  """The configuration of `frame` with other, perhaps traced, numbers."""
  flat = flatten_dict(dict(frame), sep=".") | numbers
  return config_from_dict(unflatten_dict(flat, sep="."))


class Program:
  """Start, steps and evaluation of all runs that differ in numbers only.

  `advance` takes as many steps as `xs` has, in one loop on the device where
  `loops`, and stacks their metrics.
  """

  def __init__(self, parts: Parts, sources: data.Sources):
    def build(numbers: Numbers) -> Experiment:
      return build_experiment(put_together(parts.frame, numbers), sources)

    sizes = build(parts.numbers)
    loops = jax.default_backend() != "cpu" or not _has_convolution(sizes)

    def start(numbers: Numbers) -> fs.TrainState:
      return build(numbers).create_state()

    def advance(
      numbers: Numbers,
      state: fs.TrainState,
      resident: dict[str, Array],
      xs: Any,
    ) -> Stepped:
      run = build(numbers)

      def body(state: fs.TrainState, x: Any) -> Stepped:
        return run.train_step(state, read_batch(resident, x), run.key)

      if loops:
        return jax.lax.scan(body, state, xs)
      state, metrics = body(state, jax.tree.map(lambda x: x[0], xs))
      return state, jax.tree.map(lambda m: m[None], metrics)

    self.start, self.loops = jax.jit(start), loops
    self.advance = jax.jit(advance, donate_argnums=1)
    self.eval_step = sizes.eval_step
    self.steps_per_epoch = sizes.steps_per_epoch
    self.num_steps = sizes.num_steps


def _has_convolution(experiment: Experiment) -> bool:
  """XLA's CPU backend runs convolutions inside a loop 12 times slower."""
  shape = (1, *experiment.sources.image_shape)
  jaxpr = jax.make_jaxpr(
    lambda image: experiment.model.init(jax.random.key(0), image, train=False)
  )(jax.ShapeDtypeStruct(shape, "float32"))
  return "conv_general_dilated" in str(jaxpr)
