"""From `config.mesh` to the devices, and where a run's arrays lie on them."""

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import models
from forgetsam._typing import PyTree
from forgetsam.experiment.config import ConfigError, mesh_problems, refusal
from forgetsam.experiment.run import num_devices
from forgetsam.training import (
  has_more_axes,
  place,
  replicated,
  split_batch,
)


def build_mesh(config: config_dict.ConfigDict | None = None) -> Mesh | None:
  """The mesh of all processes' devices; None where there is one device.

  In the order of the processes: each has a consecutive part of a batch.

  Args:
    config: a checked configuration; None takes all devices along "data".

  Raises:
    ConfigError: the devices do not divide as `config.mesh` says.
  """
  count = num_devices()
  sizes: dict[str, int] = {}
  if config is not None:
    if problems := list(mesh_problems(dict(config.mesh), count)):
      raise ConfigError("\n".join(problems))
    sizes = {name: n for name, n in config.mesh.items() if n > 1}
    if config.mesh.model > 1 and jax.local_device_count() % config.mesh.model:
      allowed = (
        f"a divisor of a process's {jax.local_device_count()} devices, which "
        "share its part of a batch"
      )
      raise ConfigError(
        refusal("config.mesh.model", config.mesh.model, allowed)
      )
  if count == 1:
    return None
  devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  return Mesh(
    np.asarray(devices[:count]).reshape(-1, *sizes.values()),
    ("data", *sizes),
    axis_types=(jax.sharding.AxisType.Auto,) * (1 + len(sizes)),
  )


def build_sharding(mesh: Mesh | None) -> NamedSharding | None:
  """The placement of a batch on the mesh; None where there is none."""
  return None if mesh is None else split_batch(mesh)


def build_shardings(
  config: config_dict.ConfigDict,
  model: nn.Module,
  mesh: Mesh | None,
  params: PyTree,
) -> PyTree | None:
  """Where each parameter lies; None on a mesh with the axis "data" alone.

  Args:
    config: a checked configuration.
    model: the run's.
    mesh: the run's.
    params: the model's, or their shapes, in the boxes that Linen gives them.

  Raises:
    ConfigError: the model's parameters do not divide over `config.mesh.model`.
  """
  if not has_more_axes(mesh):
    return None
  size = config.mesh.model
  rules = models.tensor_parallel_rules(model) if size > 1 else ()
  try:
    found = fs.param_shardings(params, mesh, rules)
  except ValueError as error:
    raise ConfigError(refusal("config.mesh.model", size, str(error))) from error
  return found


def check_model_axis(
  config: config_dict.ConfigDict, shardings: PyTree | None
) -> None:
  """Refuses devices along "model" that would all do the same work."""
  size = config.mesh.model
  axes = [part or () for s in jax.tree.leaves(shardings) for part in s.spec]
  if size > 1 and not any("model" in part for part in axes):
    allowed = (
      f"1 where no parameter of {config.model.name} has an axis for it: the "
      "mlp, and ViTs, have; a model of one's own names its axes by Flax's "
      "with_partitioning"
    )
    raise ConfigError(refusal("config.mesh.model", size, allowed))


def place_variables(
  config: config_dict.ConfigDict,
  model: nn.Module,
  mesh: Mesh | None,
  variables: dict[str, PyTree],
) -> dict[str, PyTree]:
  """Divides a checkpoint's parameters as those of a run are.

  Args:
    config: a checked configuration.
    model: the checkpoint's.
    mesh: where to place them.
    variables: all collections of the model, with "params".
  """
  if not has_more_axes(mesh):
    return variables
  shardings = jax.tree.map(lambda _: replicated(mesh), variables)
  params = variables["params"]
  shardings["params"] = build_shardings(config, model, mesh, params)
  return place(variables, shardings)
