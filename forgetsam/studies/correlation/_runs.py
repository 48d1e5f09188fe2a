"""Trains and measures networks that have no record yet."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import data, models
from forgetsam.experiment.build import build_model
from forgetsam.experiment.config import ConfigError, refusal
from forgetsam.experiment.run import DataRecord, read_json, write_json
from forgetsam.experiment.sweep import Outcome, Progress, Records, Runner, Trial
from forgetsam.studies.correlation._measures import Functions, Measures
from forgetsam.studies.correlation._plan import PER_CLASS, Arm

# The arm's file that says how large its probes are.
MEASURED = "measured.json"
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
  runner = Runner()
  runner.record = DataRecord(workdir, began=len(missing) < len(planned))
  measures = _all_measures(missing, runner, workdir)
  with Progress(len(planned), len(planned) - len(missing)) as progress:
    for arm, trial, seed in missing:
      outcome = run_network(runner, measures[arm.name], trial, seed)
      record = records[arm.name].add(trial, trial.with_seed(seed), outcome)
      name = f"{arm.name} {trial.variant} {trial.label}, seed {seed}"
      progress.finished(name, record)


def _all_measures(
  missing: Sequence[tuple[Arm, Trial, int]], runner: Runner, workdir: Path
) -> dict[str, Measures]:
  """The measures of each arm: what refuses one does so before any training."""
  measures: dict[str, Measures] = {}
  functions: Functions | None = None
  for arm, trial, _ in missing:
    if arm.name in measures:
      continue
    config = trial.config
    images = runner.images(config)
    per_class = config.forgetting.per_class
    _check_per_class(per_class, workdir / arm.name)
    _check_stateless(config, images)
    functions = functions or Functions(config, images.num_classes)
    test = None if arm.test is None else _test_split(arm, config, images)
    try:
      measures[arm.name] = Measures(functions, images, config, test)
    except ValueError as error:
      allowed = f"what the arm {arm.name!r} has: {error}"
      text = refusal("config.forgetting.per_class", per_class, allowed)
      raise ConfigError(text) from error
    write_json(workdir / arm.name / MEASURED, {"per_class": per_class})
  return measures


def _test_split(
  arm: Arm, config: config_dict.ConfigDict, images: data.ImageData
) -> data.Split:
  """Of the version that `images` are of."""
  assert arm.test is not None
  name = config.data.name
  if images.identity is not None:
    name = images.identity.name
  try:
    return data.load_split(name, arm.test, data_dir=config.data.dir)
  except ValueError as error:
    raise ConfigError(
      f"STUDY's arm {arm.name!r} cannot be tested on {arm.test!r}\n  {error}"
    ) from error


def _check_per_class(per_class: int, folder: Path) -> None:
  """Refuses another size of probes than that of the networks before."""
  before = read_json(folder / MEASURED)
  if before is None:  # nothing yet, or a study of an earlier version
    before = {
      "per_class": PER_CLASS if (folder / "runs").is_dir() else per_class
    }
  if before["per_class"] != per_class:
    allowed = f"{before['per_class']}, as in {folder}; or another --workdir"
    key = "config.forgetting.per_class"
    raise ConfigError(refusal(key, per_class, allowed))


def _check_stateless(
  config: config_dict.ConfigDict, images: data.ImageData
) -> None:
  model = build_model(config, images.num_classes, images.image_shape)
  _, state = jax.eval_shape(
    lambda key: models.initialise(model, key, images.image_shape),
    jax.random.key(0),
  )
  if state:
    allowed = "a model without BatchNorm in a study, such as mlp or vit_tiny"
    raise ConfigError(refusal("config.model.name", config.model.name, allowed))


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
