"""Measures what one perturbation makes one checkpoint forget."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from forgetsam import forgetting, models
from forgetsam.experiment.build import Offset, build_loss, draw_key
from forgetsam.experiment.jobs._measuring import Measured
from forgetsam.experiment.jobs._progress import Progress
from forgetsam.experiment.run import Variables

Examples = tuple[np.ndarray, np.ndarray]


def logits_fn_of(
  run: Measured, checkpoint: Variables
) -> Callable[..., jax.Array]:
  forward: Any = models.forward(run.model)

  def logits_fn(params: Any, images: Any) -> jax.Array:
    state = checkpoint.model_state
    return forward(params, state, images, train=False, key=None)[0]

  return logits_fn


def measure_offset(
  config: config_dict.ConfigDict,
  run: Measured,
  checkpoint: Variables,
  offset: Offset,
  untrained: Any,
  probes: dict[str, Examples],
  examples: dict[str, Examples],
  progress: Progress,
) -> dict[str, Any]:
  options, key = config.forgetting, draw_key(config)
  state = checkpoint.model_state
  logits_fn = logits_fn_of(run, checkpoint)
  delta_fn = forgetting.offset_fn(logits_fn, *offset)
  draws: dict[str, Any] = {
    "m": options.micro_batch_size,
    "repeats": options.repeats,
    "key": key,
  }
  found: dict[str, Any] = {}
  found["probe"] = forgetting.probe_forgetting(
    logits_fn,
    delta_fn,
    checkpoint.params,
    examples["train"],
    probes,
    **draws,
    batch_size=config.evaluation.batch_size,
  )
  progress.done("probe")
  found["specific"] = forgetting.model_specific_forgetting(
    logits_fn,
    delta_fn,
    checkpoint.params,
    untrained,
    examples["train"],
    examples["held_out"],
    **draws,
    loss=build_loss(config, run.sources.num_classes),
  )
  jax.block_until_ready(found)
  progress.done("specific")
  batch = tuple(x[: options.micro_batch_size] for x in examples["train"])
  moved = forgetting.add_offset(
    checkpoint.params, delta_fn(checkpoint.params, *batch)
  )
  found["shift"] = {
    name: forgetting.output_shift(
      logits_fn(checkpoint.params, images), logits_fn(moved, images), labels
    )
    for name, (images, labels) in probes.items()
  }
  if options.layer is not None:
    features = models.features(run.model, options.layer)
    found["layer"] = {
      name: _of_layer(
        config,
        features(checkpoint.params, state, images),
        features(moved, state, images),
        labels,
        run.sources.num_classes,
      )
      for name, (images, labels) in probes.items()
    }
  jax.block_until_ready(found)
  progress.done("shift")
  return found


def _of_layer(
  config: config_dict.ConfigDict,
  before: jax.Array,
  after: jax.Array,
  labels: np.ndarray,
  num_classes: int,
) -> forgetting.RepresentationForgetting:
  """With noise in units of the features' spread within classes."""
  scale = forgetting.feature_scale(before, labels, num_classes=num_classes)
  return forgetting.representation_forgetting(
    before,
    after,
    labels,
    config.forgetting.noise_std * scale,
    num_classes=num_classes,
  )
