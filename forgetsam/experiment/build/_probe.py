"""Forgetting on a fixed probe, measured now and then during training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import config_dict

from forgetsam import data, forgetting
from forgetsam._typing import Forward
from forgetsam.experiment.build._offsets import build_common_offsets, draw_key
from forgetsam.experiment.build._task import check_classes
from forgetsam.experiment.config import ConfigError, refusal

Probe = Callable[[Any, Any], dict[str, Array]]

# Examples to draw a probe from, for each that is drawn.
_POOL = 8


def build_probe(
  config: config_dict.ConfigDict, sources: data.Sources, forward: Forward
) -> Probe | None:
  """Measures what common perturbations forget on fixed probes.

  One micro-batch gives each offset; fixed probes of training and of held-out
  examples (where there are any) give the information before and after it, in
  nats: "sam/train/conditional", and so on. None where nothing is to be logged.
  """
  names = [n for n in config.probe.perturbations.split(",") if n]
  if not names:
    return None
  check_classes(
    "config.probe.perturbations", config.probe.perturbations, sources
  )
  assert sources.train is not None
  splits = {"train": sources.train}
  if sources.validation is not None:
    splits["held_out"] = sources.validation
  probes = {
    name: draw_probe(source, config, sources.num_classes)
    for name, source in splits.items()
  }
  m = config.forgetting.micro_batch_size
  batch = data.first_examples(
    sources.train, m, batch_size=config.evaluation.batch_size
  )
  offsets = build_common_offsets(config, sources.num_classes)

  def probe(params: Any, model_state: Any) -> dict[str, Array]:
    def logits_fn(p: Any, images: Any) -> Array:
      return forward(p, model_state, images, train=False, key=None)[0]

    values: dict[str, Array] = {}
    before = {n: logits_fn(params, x) for n, (x, _) in probes.items()}
    for name in names:
      delta_fn = forgetting.offset_fn(logits_fn, *offsets[name])
      moved = forgetting.add_offset(params, delta_fn(params, *batch))
      for split, (images, labels) in probes.items():
        forgotten = forgetting.output_forgetting(
          before[split], logits_fn(moved, images), labels
        ).forgotten
        for kind in ("conditional", "unconditional"):
          estimate = getattr(forgotten, kind).jackknife
          values[f"{name}/{split}/{kind}"] = estimate.value
    return values

  return jax.jit(probe)


def draw_probe(
  source: data.BatchSource, config: config_dict.ConfigDict, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """As many examples of every class, from the split's first ones.

  Raises:
    ConfigError: a class has too few of them.
  """
  per_class = config.forgetting.per_class
  pool = max(_POOL * per_class * num_classes, config.forgetting.examples)
  images, labels = data.first_examples(
    source, pool, batch_size=config.evaluation.batch_size
  )
  try:
    chosen = forgetting.probe_indices(labels, per_class, draw_key(config))
  except ValueError as error:
    raise ConfigError(
      refusal("config.forgetting.per_class", per_class, str(error))
    ) from error
  return images[chosen], labels[chosen]
