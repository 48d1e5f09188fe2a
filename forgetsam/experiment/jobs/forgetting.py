"""The job `forgetting`: what perturbations make checkpoints forget."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import config_dict

from forgetsam import data, forgetting, models
from forgetsam.experiment.build import (
  Offset,
  build_offsets,
  build_start,
  check_classes,
  draw_probe,
  input_spec,
)
from forgetsam.experiment.config import (
  ConfigError,
  cause,
  own_components,
  refusal,
)
from forgetsam.experiment.jobs._measuring import (
  Measured,
  flatten,
  open_run,
)
from forgetsam.experiment.jobs._offset_measures import (
  Examples,
  logits_fn_of,
  measure_offset,
)
from forgetsam.experiment.jobs._panels import forgetting_panels
from forgetsam.experiment.jobs._progress import Progress
from forgetsam.experiment.jobs._shown import report
from forgetsam.experiment.run import (
  Clock,
  DataRecord,
  Variables,
  tree_sha256,
)

FORGETTING = "forgetting.json"
# Of a perturbation's measures, about.
_COSTS = {"probe": 1.0, "specific": 1.5, "shift": 0.5}


def measure_forgetting(
  config: config_dict.ConfigDict, workdir: Path, *, started: float | None = None
) -> dict[str, Any]:
  """Measures forgetting by the run's own and by common perturbations.

  Args:
    config: the run's configuration; `config.forgetting` may differ.
    workdir: the run's folder.
    started: `time.monotonic()` at the program's start; now, if None.

  Returns:
    The content of `forgetting.json`. For each checkpoint and perturbation:
    "probe/SPLIT/..." (information in the outputs, before and forgotten),
    "specific/..." (model-specific information, with its controls: held-out
    examples and an untrained network), "shift/..." (logits, confidence,
    calibration and class-prior bias around one offset) and, with
    `config.forgetting.layer`, "layer/..." (information in a representation).

  Raises:
    ConfigError: the configuration is not the run's, nothing is saved yet, or
      there are too few examples.
  """
  run = open_run(config, workdir, config.forgetting.checkpoint, Clock(started))
  check_classes("--job", "forgetting", run.sources)
  offsets = _offsets(config, run)
  pieces = len(run.checkpoints) * len(offsets)
  plan = dict.fromkeys(_COSTS, pieces)
  results: dict[str, Any] = {}
  with Progress("measuring", plan, _COSTS) as progress:
    measure = _measurer(config, run, offsets, DataRecord(workdir), progress)
    try:
      for name, checkpoint in run.checkpoints.items():
        found = {"step": checkpoint.step, **measure(checkpoint)}
        results |= flatten({name: found})
    except ValueError as error:
      options = config.forgetting.to_dict()
      raise ConfigError(
        f"config.forgetting={options} is refused\n  allowed: what fits the "
        f"run's data and model: {error}"
      ) from error
  report(forgetting_panels(config), results, workdir / FORGETTING)
  return results


def _offsets(
  config: config_dict.ConfigDict, run: Measured
) -> dict[str, Offset]:
  """Leaves out the run's own where a micro-batch alone does not give it."""
  offsets = build_offsets(config, run.sources.num_classes)
  if "perturbation.name" not in own_components(config):
    return offsets
  checkpoint, spec = next(iter(run.checkpoints.values())), run.sources
  batch = (
    jax.ShapeDtypeStruct((2, *spec.image_shape), spec.image_dtype),
    jax.ShapeDtypeStruct((2,), spec.label_dtype),
  )
  delta_fn = forgetting.offset_fn(
    logits_fn_of(run, checkpoint), *offsets["own"]
  )
  try:
    jax.eval_shape(delta_fn, checkpoint.params, *batch)
  except Exception as error:  # of a perturbation that may not be ours
    logging.warning(
      "config.perturbation.name=%r is not among what is measured: it needs more"
      " than a micro-batch, such as the optimizer's state (%s).",
      config.perturbation.name,
      cause(error, *(config.modules or (".",))),
    )
    del offsets["own"]
  return offsets


def _measurer(
  config: config_dict.ConfigDict,
  run: Measured,
  offsets: dict[str, Offset],
  record: DataRecord,
  progress: Progress,
) -> Callable[[Variables], dict[str, Any]]:
  """Draws the examples, and measures any checkpoint on them."""
  splits = _splits(config, run.sources)
  size = config.evaluation.batch_size
  probes = {
    name: draw_probe(source, config, run.sources.num_classes)
    for name, source in splits.items()
  }
  examples = {
    name: data.first_examples(
      splits[name], config.forgetting.examples, batch_size=size
    )
    for name in ("train", "held_out")
  }
  _check_options(config, run, examples)
  init_key, _ = jax.random.split(jax.random.key(config.seed))
  untrained, _ = build_start(config)(
    *models.initialise(run.model, init_key, input_spec(run.sources))
  )
  if config.init_from is not None:  # the control is what training began with
    record.check_start(config.init_from, tree_sha256(untrained))

  def measure(checkpoint: Variables) -> dict[str, Any]:
    return {
      name: measure_offset(
        config, run, checkpoint, offset, untrained, probes, examples, progress
      )
      for name, offset in offsets.items()
    }

  return measure


def _check_options(
  config: config_dict.ConfigDict, run: Measured, examples: dict[str, Examples]
) -> None:
  m, layer = config.forgetting.micro_batch_size, config.forgetting.layer
  for name, (images, _) in examples.items():
    if m > len(images):
      allowed = f"at most the number of {name} examples, {len(images)}"
      key = "config.forgetting.micro_batch_size"
      raise ConfigError(refusal(key, m, allowed))
  if layer is not None:
    first, image = next(iter(run.checkpoints.values())), images[:1]
    features = models.features(run.model, layer)
    try:
      jax.eval_shape(features, first.params, first.model_state, image)
    except ValueError as error:
      text = refusal("config.forgetting.layer", layer, str(error))
      raise ConfigError(text) from error


def _splits(
  config: config_dict.ConfigDict, sources: data.Sources
) -> dict[str, data.BatchSource]:
  """Held-out examples get wrong labels as often as training ones have them.

  A control must look like what it controls for: a perturbation from clean
  labels is another one, and the excess over it may have the wrong sign.
  """
  held_out, options = sources.validation, config.data
  if held_out is None:
    raise ConfigError(
      refusal(
        "config.data.validation",
        0.0,
        "a run with held-out examples: they are the control without which "
        "model-specific forgetting confirms anything",
      )
    )
  if options.label_noise and isinstance(held_out, data.MemorySource):
    noisy = data.mislabel(
      held_out.split,
      options.label_noise,
      num_classes=sources.num_classes,
      seed=options.split_seed,
    )
    held_out = dataclasses.replace(held_out, split=noisy)
  assert sources.train is not None
  return {"train": sources.train, "held_out": held_out, "test": sources.test}
