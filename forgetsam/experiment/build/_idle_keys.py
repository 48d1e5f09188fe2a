"""Warns of keys that come to nothing in a run as short as it is."""

from collections.abc import Iterator

from absl import logging
from ml_collections import config_dict


def warn_of_idle_keys(
  config: config_dict.ConfigDict, steps_per_epoch: int
) -> None:
  """Logs a warning for each key that reaches beyond the run's last step."""
  for text in _idle_keys(config, config.epochs * steps_per_epoch):
    logging.warning("Warning: %s", text)


def _idle_keys(config: config_dict.ConfigDict, num_steps: int) -> Iterator[str]:
  epochs, warmup = config.epochs, config.schedule.warmup_epochs
  if warmup >= epochs:
    peak = config.optimizer.learning_rate
    yield (
      f"config.schedule.warmup_epochs={warmup:g} is not below config.epochs="
      f"{epochs}: the run ends in its warm-up, at {epochs / warmup:.0%} of the"
      f" learning rate of {peak:g}. Such a run learns less than one with"
      " --config.schedule.warmup_epochs=0."
    )
  perturbed = config.perturbation.name != "none"
  probed = bool(config.probe.perturbations)
  for key, value, active, effect in [
    (
      "perturbation.every_k",
      config.perturbation.every_k,
      perturbed,
      "the first step alone ascends, and all others reuse its direction",
    ),
    (
      "look_sam.k",
      config.look_sam.k,
      perturbed,
      "the first step alone is perturbed",
    ),
    (
      "checkpoint.every_steps",
      config.checkpoint.every_steps,
      config.checkpoint.every_steps is not None,
      "nothing is saved but at evaluations",
    ),
    (
      "probe.every_steps",
      config.probe.every_steps,
      probed,
      "nothing is probed",
    ),
  ]:
    if active and value > num_steps:
      steps = f"exceeds the run's {num_steps} steps"
      yield f"config.{key}={value} {steps}: {effect}."
