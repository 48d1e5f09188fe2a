"""Shared by runs of one shape: a compiled program, and its inputs."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import data, models
from forgetsam.experiment.build import (
  Experiment,
  beside_previous,
  build_experiment,
)
from forgetsam.experiment.config import (
  KEYS,
  config_from_dict,
  config_to_dict,
  leaves,
  own_components,
  reads_previous,
  row_of,
)

# The built-in factories that these reach accept traced numbers. Other keys that
# are compiled give the program its shape: names, sizes, counts of steps.
TRACED = tuple(key for key, row in KEYS.items() if row.traced)
# Of the images that are copied to the device at once.
_MOST_BYTES = 2**28

Numbers = dict[str, Any]
Stepped = tuple[fs.TrainState, dict[str, Array]]


class Parts(NamedTuple):
  """A configuration, taken apart for compilation."""

  numbers: Numbers  # the traced keys that are set
  frame: dict[str, Any]  # all keys, nested
  # Equal where the program is shared. Keys that are none are in it: they choose
  # a branch.
  shape: str


def take_apart(
  config: config_dict.ConfigDict, traced: Collection[str] = TRACED
) -> Parts:
  """Separates a configuration's numbers from the program's shape."""
  frame = config_to_dict(config)
  flat = flatten_dict(frame, sep=".")
  numbers = {
    key: KEYS[key].rule.kind(flat[key]) if key in KEYS else flat[key]
    for key in traced
    if flat[key] is not None
  }
  shape = {
    key: value
    for key, value in flat.items()
    if key not in numbers and ((row := row_of(key)) is None or row.compiled)
  }
  return Parts(numbers, frame, repr(sorted(shape.items())))


def option_numbers(config: config_dict.ConfigDict) -> list[str]:
  """The free options that are numbers, and may be traced by what has them."""
  return [
    key
    for key, value in leaves(config).items()
    if type(value) in (int, float)
    and key not in KEYS
    and (row := row_of(key)) is not None
    and row.traced
  ]


def traced_keys(
  config: config_dict.ConfigDict, sources: data.Sources
) -> tuple[str, ...]:
  """The numbers that this configuration's components accept as traced.

  This is tried, one after the other where all together fail.
  """
  options = option_numbers(config)
  if not own_components(config):
    return TRACED
  assert sources.train is not None
  (batch,) = sources.train.train_batches(
    batch_size=config.batch_size, seed=0, num_steps=1
  )
  if reads_previous(config):
    batch = beside_previous(batch, batch)

  def accepts(*keys: str) -> bool:
    parts = take_apart(config, keys)

    def start_and_step(numbers: Numbers) -> Any:
      run = build_experiment(put_together(parts.frame, numbers), sources)
      return run.train_step(run.create_state(), batch, run.key)

    try:
      jax.eval_shape(start_and_step, parts.numbers)
    except Exception:  # of code that is not ours; without tracing it is said
      return False
    return True

  for kept in (TRACED, ()):
    if accepts(*kept, *options):
      return (*kept, *options)
    if accepts(*kept):
      for option in options:
        kept = (*kept, option) if accepts(*kept, option) else kept
      return kept
  return ()


def put_together(
  frame: Mapping[str, Any], numbers: Mapping[str, Any]
) -> config_dict.ConfigDict:
  """The configuration of `frame` with other, perhaps traced, numbers."""
  flat = flatten_dict(dict(frame), sep=".") | numbers
  return config_from_dict(unflatten_dict(flat, sep="."))


class RunBatches:
  """The main job's batches, ready for a loop on the device.

  Without augmentation the split is copied to the device once, and a run needs
  the positions of its examples alone.
  """

  def __init__(self, config: config_dict.ConfigDict, source: data.MemorySource):
    self._source, self._batch_size = source, config.batch_size
    self._gathers = not (source.flip or source.crop_padding)
    self._positions: dict[tuple[int, int], np.ndarray] = {}
    self.resident: dict[str, Array] = {}
    if self._gathers:
      (batch,) = source.eval_batches(batch_size=len(source))
      if source.split.weights is None:
        del batch["mask"]
      self.resident = jax.tree.map(jnp.asarray, batch)

  def steps_at_once(self, steps_per_epoch: int) -> int:
    """The largest part of an epoch that fits, of those that divide it."""
    one = 4 * self._source.split.images[0].size * self._batch_size
    most = steps_per_epoch if self._gathers else max(1, _MOST_BYTES // one)
    parts = range(1, min(most, steps_per_epoch) + 1)
    return max(n for n in parts if steps_per_epoch % n == 0)

  def chunks(
    self, seed: int, num_steps: int, size: int, *, previous: bool = False
  ) -> Iterator[Any]:
    """Yields the inputs of the device loop, `size` steps at a time.

    With `previous`, a pair: these, and those of the steps before.
    """
    if self._gathers:
      steps = iter(self._all_positions(seed, num_steps))
    else:
      steps = self._source.train_batches(
        batch_size=self._batch_size, seed=seed, num_steps=num_steps
      )
    last = None
    for _ in range(num_steps // size):
      now = [next(steps) for _ in range(size)]
      before = [now[0] if last is None else last, *now[:-1]]
      last = now[-1]
      chunks = [
        jax.tree.map(lambda *xs: np.stack(xs), *some)
        for some in ([now, before] if previous else [now])
      ]
      yield tuple(chunks) if previous else chunks[0]

  def _all_positions(self, seed: int, num_steps: int) -> np.ndarray:
    """Where in the split each step finds its examples."""
    key = seed, num_steps
    if key not in self._positions:
      self._positions[key] = data.train_positions(
        len(self._source),
        batch_size=self._batch_size,
        seed=seed,
        start_step=0,
        num_steps=num_steps,
      ).astype(np.int32)
    return self._positions[key]


def _read_batch(resident: dict[str, Array], x: Any) -> dict[str, Array]:
  """One step's batch, of what `RunBatches` keeps and what it yields."""
  if isinstance(x, tuple):
    return beside_previous(*(_read_batch(resident, one) for one in x))
  if not resident:
    return dict(x)
  return {name: array[x] for name, array in resident.items()}


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
        return run.train_step(state, _read_batch(resident, x), run.key)

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
  model, sources = experiment.model, experiment.sources
  one = jax.ShapeDtypeStruct(sources.image_shape, sources.image_dtype)
  jaxpr = jax.make_jaxpr(lambda key: models.initialise(model, key, one))(
    jax.random.key(0)
  )
  return "conv_general_dilated" in str(jaxpr)
