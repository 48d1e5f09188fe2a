"""The examples that share a delta, which stay as many when a run goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from forgetsam.experiment.config import ConfigError, refusal
from forgetsam.experiment.run._processes import num_devices

DELTA_EXAMPLES = "delta_examples"


def micro_batch(config: config_dict.ConfigDict) -> int:
  """The examples of a micro-batch; by default, all that a device has.

  Devices that `config.mesh.fsdp` or `config.mesh.model` joins share them.

  Args:
    config: a checked configuration.
  """
  shares = num_devices() // (config.mesh.fsdp * config.mesh.model)
  return config.micro_batch_size or config.batch_size // shares


def delta_examples(config: config_dict.ConfigDict) -> int | None:
  """The same where weights are perturbed, and None elsewhere.

  Args:
    config: a checked configuration.
  """
  return None if config.perturbation.name == "none" else micro_batch(config)


def check_delta_examples(
  record: Mapping[str, Any], now: int | None, where: Path
) -> None:
  """Refuses to go on where a device's share of the batch is another one.

  Args:
    record: of the run before; those of older versions do not say.
    now: what `delta_examples` is here.
    where: the folder or file that has the record.

  Raises:
    ConfigError: it names the key, and both numbers.
  """
  before = record.get(DELTA_EXAMPLES, now)
  if now != before:
    allowed = (
      f"devices and a config.mesh that divide the batch as where {where} "
      f"began: micro-batches, a device's share, have {before} examples there, "
      f"and would have {now} here. Or another --workdir; where runs are to "
      "move, start them with config.micro_batch_size"
    )
    raise ConfigError(refusal("config.micro_batch_size", None, allowed))
