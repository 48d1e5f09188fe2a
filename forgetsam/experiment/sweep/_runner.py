"""Runs one configuration after another in one process."""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import data
from forgetsam.experiment.build import build_data, build_sources
from forgetsam.experiment.config import config_to_dict, reads_previous
from forgetsam.experiment.evaluation import beside_ema, evaluate_each
from forgetsam.experiment.run import DataRecord, own_metrics
from forgetsam.experiment.sweep._program import (
  TRACED,
  Numbers,
  Program,
  RunBatches,
  option_numbers,
  take_apart,
  traced_keys,
)


class Outcome(NamedTuple):
  """How a run ended.

  Attributes:
    metrics: `train/*` over the last epoch, then `validation/*` and `test/*` of
      the last step; empty where the run diverged.
    diverged_at: the step, from 0, that was not finite; or None.
    seconds: wall seconds, compilation included.
    state: the last state.
  """

  metrics: dict[str, float]
  diverged_at: int | None
  seconds: float
  state: fs.TrainState


class Runner:
  """Keeps data and compiled programs from one run to the next.

  Attributes:
    record: of the data of the folder that the runs belong to, with which they
      are to stay; None where there is no folder.
  """

  def __init__(self) -> None:
    self.record: DataRecord | None = None
    self._images: dict[str, data.ImageData] = {}
    self._sources: dict[tuple[str, int], RunBatches] = {}
    self._batches: dict[tuple[str, str, int], list[Any]] = {}
    self._traced: dict[tuple[str, int, str], tuple[str, ...]] = {}
    self._programs: dict[tuple[str, int, str], Program] = {}

  def images(self, config: config_dict.ConfigDict) -> data.ImageData:
    """The data of a configuration, loaded once.

    Raises:
      ConfigError: the configuration does not fit the data.
    """
    key = _data_key(config)
    if key not in self._images:
      record = self.record
      images = build_data(config if record is None else record.pinned(config))
      build_sources(config, images)  # refuses what does not fit
      if record is not None:
        record.check(config.data.name, images.identity)
        record.write()
      self._images[key] = images
    return self._images[key]

  def prepare(self, config: config_dict.ConfigDict) -> None:
    """Loads the data and builds the program; compiles nothing.

    Raises:
      ConfigError: the configuration fits neither the data nor the model.
    """
    self._program(config)

  def run(
    self,
    config: config_dict.ConfigDict,
    splits: tuple[str, ...],
    on_epoch: Callable[[int, fs.TrainState], None] | None = None,
  ) -> Outcome:
    """Trains as the main job does, and evaluates the last state.

    Args:
      config: a checked configuration.
      splits: what to evaluate on: "validation", "test", or both.
      on_epoch: called with the number of epochs done and the state, before
        training and after every epoch that was finite. The state's buffers are
        taken back when it returns.

    Returns:
      The outcome; a run that is not finite ends there, and is no error.
    """
    began = time.perf_counter()
    program, numbers = self._program(config)
    source = self._source(config)
    size = source.steps_at_once(program.steps_per_epoch) if program.loops else 1
    state = program.start(numbers)
    epoch: list[dict[str, Array]] = []
    done, num_steps = 0, program.num_steps
    if on_epoch is not None:
      on_epoch(0, state)
    chunks = source.chunks(
      config.seed, num_steps, size, previous=reads_previous(config)
    )
    for xs in chunks:
      state, metrics = program.advance(numbers, state, source.resident, xs)
      epoch = [] if done % program.steps_per_epoch == 0 else epoch
      epoch.append(metrics)
      done += size
      if done % program.steps_per_epoch == 0:
        skipped = np.concatenate([jax.device_get(m["skipped"]) for m in epoch])
        if skipped.any():
          first = done - len(skipped) + int(np.argmax(skipped))
          return Outcome({}, first, time.perf_counter() - began, state)
        if on_epoch is not None:
          on_epoch(done // program.steps_per_epoch, state)
    shown = [n for n in ("loss", "accuracy") if n in metrics]
    results = {
      f"train/{name}": float(np.mean([jax.device_get(m[name]) for m in epoch]))
      for name in [*shown, *own_metrics(metrics)]
      if name != "skipped"
    }
    for split in splits:
      scores = evaluate_each(
        beside_ema({split: program.eval_step}, state.ema),
        state.params,
        state.model_state,
        self._eval_batches(config, split),
      )
      results |= {
        f"{name}/{metric}": value
        for name, values in scores.items()
        for metric, value in values.items()
      }
    return Outcome(results, None, time.perf_counter() - began, state)

  def _program(self, config: config_dict.ConfigDict) -> tuple[Program, Numbers]:
    images = self.images(config)
    data_key = len(images.train), repr(images.image_shape)
    options = (*TRACED, *option_numbers(config))
    family = take_apart(config, options).shape, *data_key
    if family not in self._traced:
      sources = build_sources(config, images)
      self._traced[family] = traced_keys(config, sources)
    parts = take_apart(config, self._traced[family])
    key = parts.shape, *data_key
    if key not in self._programs:
      self._programs[key] = Program(parts, build_sources(config, images))
    return self._programs[key], parts.numbers

  def _source(self, config: config_dict.ConfigDict) -> RunBatches:
    key = _data_key(config), config.batch_size
    if key not in self._sources:
      train: Any = build_sources(config, self.images(config)).train
      self._sources[key] = RunBatches(config, train)
    return self._sources[key]

  def _eval_batches(
    self, config: config_dict.ConfigDict, split: str
  ) -> list[Any]:
    size = config.evaluation.batch_size
    key = _data_key(config), split, size
    if key not in self._batches:
      source = getattr(build_sources(config, self.images(config)), split)
      batches = source.eval_batches(batch_size=size, groups=True)
      self._batches[key] = [jax.device_put(batch) for batch in batches]
    return self._batches[key]


def _data_key(config: config_dict.ConfigDict) -> str:
  return json.dumps(config_to_dict(config)["data"], sort_keys=True)
