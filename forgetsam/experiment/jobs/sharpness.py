"""The job `sharpness`: the training loss around a run's checkpoints."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

import forgetsam as fs
from forgetsam import data, models, sharpness
from forgetsam.experiment.build import build_loss, build_mesh, is_streamed
from forgetsam.experiment.config import ConfigError, refusal
from forgetsam.experiment.jobs._measuring import (
  Measured,
  flatten,
  open_run,
)
from forgetsam.experiment.jobs._panels import sharpness_panels
from forgetsam.experiment.jobs._progress import Progress
from forgetsam.experiment.jobs._sharpness_calls import (
  ASCENTS,
  COSTS,
  SAMPLES,
  counted,
  plan,
)
from forgetsam.experiment.jobs._shown import report
from forgetsam.experiment.run import Clock, Variables

SHARPNESS = "sharpness.json"

_ADAPTIVE = (("", False), ("adaptive_", True))


def measure_sharpness(
  config: config_dict.ConfigDict, workdir: Path, *, started: float | None = None
) -> dict[str, Any]:
  """Measures curvature and balls of the training loss, without smoothing.

  The examples are the first of the training split, with the crop of evaluation
  images (streamed ones resized bilinearly, as the paper's).

  Args:
    config: the run's configuration; `config.sharpness` may differ.
    workdir: the run's folder.
    started: `time.monotonic()` at the program's start; now, if None.

  Returns:
    The content of `sharpness.json`: "last/hessian/largest/0", ..., each
    stochastic one with "/standard_error" beside it. Pictures of what is
    printed, of the spectral density, and of the loss's surface where asked for,
    lie beside the file.

  Raises:
    ConfigError: the configuration is not the run's, or nothing is saved yet.
  """
  config = config.copy_and_resolve_references()
  which = config.sharpness.checkpoint
  run = open_run(config, workdir, which, Clock(started), change=_as_the_paper)
  results: dict[str, Any] = {}
  with Progress("measuring", plan(config, run), COSTS) as progress:
    measure = _measurer(config, run, workdir, progress)
    for name, checkpoint in run.checkpoints.items():
      found = measure(name, checkpoint)
      results |= flatten({name: {"step": checkpoint.step, **found}})
  params = next(iter(run.checkpoints.values())).params
  panels = sharpness_panels(config, sharpness.layer_groups(params))
  report(panels, results, workdir / SHARPNESS)
  return results


def _as_the_paper(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  if is_streamed(config):
    config = config.copy_and_resolve_references()
    config.evaluation.resize_method = "bilinear"
  return config


def _measurer(
  config: config_dict.ConfigDict,
  run: Measured,
  workdir: Path,
  progress: Progress,
) -> Callable[[str, Variables], dict[str, Any]]:
  options, mesh = config.sharpness, build_mesh()
  if options.surface_points and run.sources.label_dtype.kind != "i":
    allowed = (
      "0 where labels are no classes: OBF's direction is one of its axes"
    )
    key = "config.sharpness.surface_points"
    raise ConfigError(refusal(key, options.surface_points, allowed))
  assert run.sources.train is not None
  batches, small = (
    list(
      data.first_batches(run.sources.train, options.examples, batch_size=size)
    )
    for size in (config.evaluation.batch_size, options.micro_batch_size)
  )
  forward: Any = models.forward(run.model)
  clean = config.copy_and_resolve_references()
  clean.loss.label_smoothing = 0.0
  if "label_smoothing" in clean.loss.options:
    clean.loss.options.label_smoothing = 0.0
  loss = build_loss(clean, run.sources.num_classes)
  signal = fs.pseudo_loss(fs.output_bias_forgetting())

  def measure(name: str, checkpoint: Variables) -> dict[str, Any]:
    params, state = checkpoint.params, checkpoint.model_state
    whole = counted(
      sharpness.dataset_loss(forward, loss, state, batches, mesh=mesh), progress
    )
    parts = sharpness.dataset_loss(forward, loss, state, small)
    found = _all_measures(whole, params, options)
    for prefix, adaptive in _ADAPTIVE:
      found[f"{prefix}m_sharpness"] = sharpness.m_sharpness(
        parts, params, options.rho, adaptive=adaptive
      )
      progress.done("micro_batches")
    if options.density_samples:
      _draw_density(whole, params, options, workdir / name)
    if options.surface_points:
      bias = sharpness.dataset_loss(forward, signal, state, batches, mesh=mesh)
      _draw_surface(whole, bias, params, options, workdir / name)
    if options.layers:
      found["layer"] = {
        layer: _all_measures(*sharpness.restrict(whole, params, mask), options)
        for layer, mask in sharpness.layer_groups(params).items()
      }
    return found

  return measure


def _all_measures(
  loss: sharpness.DatasetLoss, params: Any, options: config_dict.ConfigDict
) -> dict[str, Any]:
  key = jax.random.key(0)
  found: dict[str, Any] = {
    "loss": loss.value(params),
    "examples": loss.num_examples,
    "gradient_norm": sharpness.gradient_norm(loss, params),
  }
  for name, product in [
    ("hessian", loss.hessian_vector_product),
    ("gauss_newton", loss.gauss_newton_vector_product),
  ]:
    matvec = functools.partial(product, params)
    found[name] = {
      **_eigenvalues(matvec, params, options, key),
      "trace": sharpness.hutchinson_trace(
        matvec, params, key, num_samples=options.trace_samples
      ),
      "xtrace": sharpness.xtrace(
        matvec, params, key, num_samples=options.trace_samples
      ),
    }
  for prefix, adaptive in _ADAPTIVE:
    ball: dict[str, Any] = {"rho": options.rho, "key": key}
    found[f"{prefix}average"] = sharpness.average_sharpness(
      loss, params, **ball, num_samples=SAMPLES, adaptive=adaptive
    )
    worst = sharpness.worst_case_sharpness(
      loss, params, **ball, num_steps=ASCENTS, adaptive=adaptive
    )
    found[f"{prefix}worst_case"] = worst.increase
  return found


def _eigenvalues(
  matvec: Callable[[Any], Any],
  params: Any,
  options: config_dict.ConfigDict,
  key: jax.Array,
) -> dict[str, Any]:
  found = sharpness.extreme_eigenvalues(
    matvec, params, key, num_steps=options.lanczos_steps, top=options.top
  )
  largest = {
    str(i): {"": value, "error": error}
    for i, (value, error) in enumerate(
      zip(found.largest, found.largest_error, strict=True)
    )
  }
  smallest = {"": found.smallest, "error": found.smallest_error}
  return {"largest": largest, "smallest": smallest}


def _draw_density(
  loss: sharpness.DatasetLoss,
  params: Any,
  options: config_dict.ConfigDict,
  stem: Path,
) -> None:
  density = sharpness.spectral_density(
    functools.partial(loss.hessian_vector_product, params),
    params,
    jax.random.key(1),
    num_steps=options.lanczos_steps,
    num_samples=options.density_samples,
  )
  arrays = {name: np.asarray(v) for name, v in density._asdict().items()}
  path = stem.with_name(f"{stem.name}_spectral_density.npz")
  np.savez(path, allow_pickle=False, **arrays)
  sharpness.plot_spectral_density(density).savefig(path.with_suffix(".png"))


def _draw_surface(
  loss: sharpness.DatasetLoss,
  bias: sharpness.DatasetLoss,
  params: Any,
  options: config_dict.ConfigDict,
  stem: Path,
) -> None:
  """Along the loss's ascent and OBF's directions, three radii far."""
  directions = sharpness.orthonormal(
    loss.value_and_gradient(params)[1], bias.value_and_gradient(params)[1]
  )
  grid = 3 * options.rho * jnp.linspace(-1, 1, options.surface_points)
  surface = sharpness.loss_surface(loss.value, params, directions, grid)
  path = stem.with_name(f"{stem.name}_surface.npz")
  np.savez(path, surface=surface, grid=np.asarray(grid))
  names = ("the loss's ascent", "OBF")
  figure = sharpness.plot_loss_surface(surface, grid, names=names)
  figure.savefig(path.with_suffix(".png"))
