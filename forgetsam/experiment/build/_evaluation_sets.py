"""From `config.evaluation.sets` to the sets that `--job=evaluate` scores."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Mesh
from ml_collections import config_dict

from forgetsam import data, interop, models
from forgetsam.experiment.build._data import build_sources, is_streamed
from forgetsam.experiment.build._image_options import build_stream_options
from forgetsam.experiment.build._task import build_eval_step
from forgetsam.experiment.config import (
  ConfigError,
  is_module_attribute,
  refusal,
)
from forgetsam.experiment.run import DataRecord, on_main
from forgetsam.training import EvalStep

CORRUPTED = ("imagenet2012_corrupted", "cifar10_corrupted")


class EvaluationSet(NamedTuple):
  """One set and the ways to score it.

  Attributes:
    source: the examples.
    steps: evaluation steps, by the names that their results go by.
  """

  source: data.BatchSource
  steps: dict[str, EvalStep]


def build_evaluation_sets(
  config: config_dict.ConfigDict,
  model: nn.Module,
  mesh: Mesh | None,
  record: DataRecord,
  num_classes: int,
) -> list[EvaluationSet]:
  """Opens the sets that `config.evaluation.sets` lists, or the run's own.

  A name is TFDS's, and may go on with `@` and a split, as in
  `imagenet2012@train[:8192]`. The run's own files without a split are what it
  was tested on. A corrupted set's name stands for all of its corruptions and
  severities. Sets that show a part of the classes are scored over these, and
  over all under the name with `_all_classes`.

  Args:
    config: a checked configuration.
    model: the model to score.
    mesh: the mesh to score it on.
    record: of the run's data. Sets that it knows are opened in the version that
      it names; the others are added to it.
    num_classes: of the run's data.

  Returns:
    The sets; without a list, the run's validation split, if any, and its test
    split.

  Raises:
    ConfigError: a set is not there, has changed, or does not fit the model.
  """
  forward: Any = models.forward(model)
  sources = _own_sources(config, record)
  if config.evaluation.sets:
    options = _stream_options(config, record)
    sources = {
      name: _open(config, name, num_classes, record, options)
      for name in _names(config)
    }
  return [
    EvaluationSet(
      source, _steps(config, forward, name, source, mesh, num_classes)
    )
    for name, source in sources.items()
  ]


def adapt_to_sets(
  variables: dict[str, Any], model: nn.Module, sets: Sequence[EvaluationSet]
) -> dict[tuple[int, ...], dict[str, Any]]:
  """The variables for each shape of images: position embeddings interpolated.

  Raises:
    ConfigError: the model cannot take a set's images.
  """
  adapted: dict[tuple[int, ...], dict[str, Any]] = {}
  for name, source in [(n, one.source) for one in sets for n in one.steps]:
    shape = source.eval_shape
    if shape in adapted:
      continue
    spec = jax.ShapeDtypeStruct(shape, source.eval_dtype)
    try:
      params, model_state = jax.eval_shape(
        functools.partial(models.initialise, model, image_shape=spec),
        jax.random.key(0),
      )
      initial = {"params": nn.unbox(params), **model_state}
      adapted[shape] = interop.adapt(variables, initial).variables
    except ValueError as error:
      raise ConfigError(
        f"config.evaluation.sets is refused: the model cannot take the images "
        f"of {name}, of shape {shape}\n  {error}"
      ) from error
  return adapted


def _own_sources(
  config: config_dict.ConfigDict, record: DataRecord
) -> dict[str, data.BatchSource]:
  if config.evaluation.sets:
    return {}
  sources = _run_sources(config, record)
  held_out = sources.validation
  own = {} if held_out is None else {"validation": held_out}
  return {**own, "test": sources.test}


def _run_sources(
  config: config_dict.ConfigDict, record: DataRecord
) -> data.Sources:
  sources = build_sources(record.pinned(config), job=True)
  record.check(config.data.name, sources.identity)
  return sources


def _names(config: config_dict.ConfigDict) -> list[str]:
  names: list[str] = []
  for name in config.evaluation.sets.split(","):
    name = name.strip()
    several = (
      data.corrupted_sets(name).values() if name in CORRUPTED else [name]
    )
    names += [n for n in several if n not in names]
  return names


def _open(
  config: config_dict.ConfigDict,
  name: str,
  num_classes: int,
  record: DataRecord,
  options: data.StreamOptions,
) -> data.BatchSource:
  """A set's split, with its images as the run's evaluation sees them."""
  base, split = name, ""
  if "@" in name and not os.path.exists(name):
    base, _, split = name.rpartition("@")
  key = "evaluation.sets"
  if is_module_attribute(base):
    return _of_function(config, base, split or "test", num_classes, record)
  full = record.available(base, config.data.dir, key)
  if not split and os.path.abspath(full) == record.full_name(config.data.name):
    return _run_sources(config, record).test
  source: data.StreamedSplit | data.MemorySource | None
  try:
    own = data.open_own(full)
    source = data.array_split(
      own,
      split or "test",
      mean=options.mean,
      std=options.std,
      memory_limit=config.data.memory_limit,
    )
    if source is None:
      source = data.stream_split(
        own or full,
        split or None,
        options,
        data_dir=config.data.dir,
        agree=on_main,
      )
  except (OSError, ValueError) as error:
    raise ConfigError(
      f"config.evaluation.sets={config.evaluation.sets!r} is refused: {name} "
      f"cannot be scored\n  {error}"
    ) from error
  record.check(base, source.identity, key)
  _check_classes(config, name, source, num_classes)
  record.check_classes(base, config.data.name)
  return source


def _check_classes(
  config: config_dict.ConfigDict,
  name: str,
  source: data.BatchSource,
  num_classes: int,
) -> None:
  if source.num_classes != num_classes:
    raise ConfigError(
      refusal(
        "config.evaluation.sets",
        config.evaluation.sets,
        f"sets with the model's {num_classes} classes; {name} has "
        f"{source.num_classes}",
      )
    )


def _stream_options(
  config: config_dict.ConfigDict, record: DataRecord
) -> data.StreamOptions:
  """Images as stored, where those that the run took were not cropped."""
  options = build_stream_options(config, job=True)
  try:
    cropped = config.data.stream or is_streamed(record.pinned(config))
  except ConfigError:  # other sets may be there alone
    cropped = False
  if cropped:
    return options
  as_stored = dataclasses.replace(options.eval_crop, short_side=None)
  return dataclasses.replace(options, eval_crop=as_stored)


def _of_function(
  config: config_dict.ConfigDict,
  name: str,
  split: str,
  num_classes: int,
  record: DataRecord,
) -> data.BatchSource:
  """A split of what `module:attribute` gives; options are the run's own."""
  if name != config.data.name:
    config = config.copy_and_resolve_references()
    config.data.name, config.data.options = name, {}
  sources = build_sources(config, job=True)
  record.check(name, sources.identity, "evaluation.sets")
  source = getattr(sources, split, None)
  if not isinstance(source, data.BatchSource):
    allowed = f"{name} with @train, @validation or @test, where it has that"
    raise ConfigError(
      refusal("config.evaluation.sets", config.evaluation.sets, allowed)
    )
  _check_classes(config, name, source, num_classes)
  return source


def _steps(
  config: config_dict.ConfigDict,
  forward: Any,
  name: str,
  source: data.BatchSource,
  mesh: Mesh | None,
  num_classes: int,
) -> dict[str, EvalStep]:
  if config.metric.name != "classification" and (
    source.multi_label or source.classes is not None
  ):
    allowed = (
      f"classification where config.evaluation.sets has {name}, of several "
      "labels an example or a part of the classes"
    )
    raise ConfigError(
      refusal("config.metric.name", config.metric.name, allowed)
    )

  def step(classes: Any = None) -> EvalStep:
    return build_eval_step(
      config,
      forward,
      num_classes,
      mesh,
      classes=classes,
      multi_label=source.multi_label,
    )

  if source.classes is None:
    return {name: step()}
  return {name: step(source.classes), f"{name}_all_classes": step()}
