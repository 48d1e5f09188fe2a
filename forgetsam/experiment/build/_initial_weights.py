"""Where `config.init_from` makes a run start from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import config_dict

import forgetsam as fs
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.config import refusal

ModelState = dict[str, Any]
Start = Callable[[Any, ModelState], tuple[Any, ModelState]]


def build_start(config: config_dict.ConfigDict) -> Start:
  """What fits the weights that `config.init_from` names to the run's model.

  Args:
    config: a checked configuration. `init_from` is the folder of a run of ours,
      whose best checkpoint is taken, or a PyTorch model's file.

  Returns:
    `start(params, model_state)`, of the model's own initial parameters and
    other collections: what to start from instead. Their head is kept where the
    other has another size, and all of them where `init_from` is none. It reads
    the files, and raises a ConfigError where they cannot be used.
  """
  init_from = config.init_from
  options = {k: v for k, v in config.model.items() if v is not None}
  name = options.pop("name")

  def start(params: Any, model_state: ModelState) -> tuple[Any, ModelState]:
    if init_from is None:
      return params, model_state
    initial = {"params": params, **model_state}
    try:
      loaded = _load(init_from, name, options)
      variables, changes = fs.interop.adapt(loaded, initial)
    except ValueError as error:
      raise ConfigError(
        refusal(
          "config.init_from",
          init_from,
          "the folder of a run, or a .safetensors, .pth or .pth.tar file, of a "
          f"model like config.model: {error}",
        )
      ) from error
    for change in changes:
      logging.warning("config.init_from=%s: %s.", init_from, change)
    return variables.pop("params"), variables

  return start


def _load(init_from: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
  path = Path(init_from).expanduser()
  if path.is_dir():
    return fs.load_run(path)[1]
  return fs.interop.from_torch(name, path, **options)
