"""Trains and measures networks that have no record yet."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import forgetsam as fs
from forgetsam import data
from forgetsam.experiment.sweep import Outcome, Progress, Records, Runner, Trial
from forgetsam.studies.correlation._measures import Functions, Measures
from forgetsam.studies.correlation._plan import Arm

# Epochs at which forgetting is measured along training.
ALONG = (1, 3, 10)
_SHARE_ALONG = 0.5


def run_study(arms: Sequence[Arm], workdir: Path) -> None:
  """Runs what is not finished, and leaves a record of each network.

  Args:
    arms: as `plan_study` returns them.
    workdir: the study's folder, with a folder for each arm.

  Raises:
    ConfigError: the folder holds records of other configurations, or the data
      does not fit.
  """
  records = {arm.name: Records(workdir / arm.name, "report") for arm in arms}
  planned = [(arm, *run) for arm in arms for run in arm.runs()]
  missing = [
    (arm, trial, seed)
    for arm, trial, seed in planned
    if records[arm.name].find(trial, seed) is None
  ]
  if not missing:
    return
  runner, functions = Runner(), None
  measures: dict[str, Measures] = {}
  with Progress(len(planned), len(planned) - len(missing)) as progress:
    for arm, trial, seed in missing:
      if arm.name not in measures:
        images = runner.images(trial.config)
        functions = functions or Functions(trial.config, images.num_classes)
        test = None
        if arm.test is not None:
          where = trial.config.data
          test = data.load_split(where.name, arm.test, data_dir=where.dir)
        measures[arm.name] = Measures(functions, images, trial.config, test)
      outcome = run_network(runner, measures[arm.name], trial, seed)
      record = records[arm.name].add(trial, trial.with_seed(seed), outcome)
      name = f"{arm.name} {trial.variant} {trial.label}, seed {seed}"
      progress.finished(name, record)


def run_network(
  runner: Runner, measures: Measures, trial: Trial, seed: int
) -> Outcome:
  """Trains one network and measures it along training and at its end.

  Returns:
    The run's outcome, with the measures among its metrics: as `NAME` at the
    end and `NAME@EPOCH` along training.
  """
  began = time.perf_counter()
  config = trial.with_seed(seed)
  along: dict[str, float] = {}
  untrained: list[Any] = []

  def on_epoch(done: int, state: fs.TrainState) -> None:
    if done == 0:
      untrained.append(jax.tree.map(np.array, state.params))
    if done in ALONG and done < config.epochs:
      found = measures.common_forgetting(state.params, _SHARE_ALONG)
      along.update({f"{name}@{done}": v for name, v in found.items()})

  outcome = runner.run(config, ("validation", "test"), on_epoch)
  metrics = {}
  if outcome.diverged_at is None:
    weights = outcome.state.params
    metrics = (
      outcome.metrics
      | measures.fit(weights)
      | measures.sharpness(weights)
      | measures.common_forgetting(weights)
      | measures.own_forgetting(weights, config)
      | measures.specific_forgetting(weights, untrained[0])
      | along
    )
  seconds = time.perf_counter() - began
  return outcome._replace(metrics=metrics, seconds=seconds)
