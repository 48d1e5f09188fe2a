"""Weights of earlier runs, for notebooks or for another run to start from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
from absl import logging
from ml_collections import config_dict

from forgetsam import interop
from forgetsam._paths import local_path
from forgetsam.experiment.build._model import build_model
from forgetsam.experiment.config import ConfigError, chosen_options, refusal
from forgetsam.experiment.run import (
  CHECKPOINTS,
  Checkpoints,
  DataRecord,
  as_begun,
  load_config,
)

ModelState = dict[str, Any]
Start = Callable[[Any, ModelState], tuple[Any, ModelState]]


def build_start(config: config_dict.ConfigDict) -> Start:
  """Builds the function that puts weights of `config.init_from` into a model.

  Args:
    config: a checked configuration. `init_from` is the folder of a run of ours,
      whose best checkpoint is taken, a PyTorch model's file, or a folder with
      such a file as Hugging Face and timm save it.

  Returns:
    `start(params, model_state)`, of the model's own initial parameters and
    other collections: what to start from instead. Their head is kept where the
    other has another size, and all of them where `init_from` is none. It reads
    the files, and raises a ConfigError where they cannot be used.
  """
  init_from = config.init_from
  options = {k: v for k, v in config.model.items() if v is not None}
  options |= chosen_options(config, "model.options")
  name = options.pop("name")
  del options["options"]

  def start(params: Any, model_state: ModelState) -> tuple[Any, ModelState]:
    if init_from is None:
      return params, model_state
    initial = {"params": params, **model_state}
    try:
      loaded = _load(init_from, name, options)
      variables, changes = interop.adapt(loaded, initial)
    except (ImportError, OSError, ValueError) as error:
      raise ConfigError(
        refusal(
          "config.init_from",
          init_from,
          "the folder of a run, or a .safetensors, .pth or .pth.tar file, or a "
          f"folder with such a file, of a model like config.model: {error}",
        )
      ) from error
    for change in changes:
      logging.warning("config.init_from=%s: %s.", init_from, change)
    return variables.pop("params"), variables

  return start


def _load(init_from: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
  path = local_path("config.init_from", init_from)
  if path.is_dir() and interop.weights_in(path) is None:
    return load_run(path)[1]
  return interop.from_torch(name, path, strict=False, **options)


def load_run(
  workdir: str | Path, checkpoint: str = "best", *, ema: bool = False
) -> tuple[nn.Module, dict[str, Any], config_dict.ConfigDict]:
  """Loads the model that a run trained; needs no data.

  Args:
    workdir: the run's folder.
    checkpoint: "best" by validation accuracy, or by the loss where the task has
      no accuracy (the last one where the run has no validation split); or
      "last".
    ema: whether to take the average of the weights that
      `config.optimizer.ema` keeps, in their place.

  Returns:
    The model, its variables and the run's configuration, with the version of
    its data:
    `model.apply(variables, images, train=False)` gives the logits.

  Raises:
    ValueError: the folder holds no run or no checkpoint that is whole,
      `checkpoint` is neither "best" nor "last", or the run keeps no average.
  """
  if checkpoint not in ("best", "last"):
    raise ValueError(f"checkpoint={checkpoint!r} must be 'best' or 'last'")
  workdir = local_path("workdir", workdir)
  config = as_begun(workdir, load_config(workdir))
  config.data.name = DataRecord(workdir).full_name(config.data.name)
  if not (workdir / CHECKPOINTS).is_dir():
    raise ValueError(f"workdir={workdir} has no checkpoint yet")
  with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
    steps = checkpoints.steps()[::-1]
    if checkpoint == "best":
      steps = checkpoints.best_steps() or steps
    found = checkpoints.variables(steps)
  if ema and found.ema is None:
    raise ValueError(
      f"ema=True is refused: the run in {workdir} keeps no average of its "
      "weights (config.optimizer.ema)"
    )
  params = found.ema if ema else found.params
  model = build_model(config, found.record["num_classes"])
  return model, {"params": params, **found.model_state}, config
