"""The job `evaluate`: a run's best and last checkpoint on a list of sets."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import config_dict
from tqdm import tqdm

from forgetsam import data
from forgetsam.experiment.build import (
  CORRUPTED,
  Batches,
  EvaluationSet,
  adapt_to_sets,
  build_eval_batches,
  build_evaluation_sets,
  build_mesh,
  build_model,
  build_sharding,
  place_variables,
)
from forgetsam.experiment.config import check_config
from forgetsam.experiment.evaluation import (
  ALEXNET_ERRORS,
  beside_ema,
  evaluate_each,
  format_table,
  mean_corruption_error,
)
from forgetsam.experiment.run import (
  CHECKPOINTS,
  EVALUATION,
  Checkpoints,
  Clock,
  DataRecord,
  as_begun,
  check_saved,
  is_main,
  log_stage,
  num_devices,
  on_main,
  write_json,
)

Results = dict[str, dict[str, float]]


def evaluate_run(
  config: config_dict.ConfigDict, workdir: Path, *, started: float | None = None
) -> dict[str, Any]:
  """Scores checkpoints on the sets that `config.evaluation.sets` lists.

  Args:
    config: the run's configuration; sets, crop and batch size may differ.
    workdir: the run's folder.
    started: `time.monotonic()` at the program's start; now, if None.

  Returns:
    The content of `evaluation.json`: "last/step", "last/test/accuracy", ...,
    and the same under "best/" where training had a validation split. Corrupted
    sets also have "last/NAME/mce" and "last/NAME/corruption_error/KIND". With
    an average of the weights, its scores are under "last/test/ema/", ...

  Raises:
    ConfigError: the configuration is not the run's, nothing is saved yet, or a
      set is not there.
    CheckpointError: the checkpoints are damaged.
  """
  clock = Clock(started)
  check_config(config, num_devices(), trains=False)
  config = as_begun(workdir, config)
  on_main(lambda: check_saved(workdir, config))
  results: dict[str, Any] = {}
  with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
    log_stage(f"reading the checkpoints in {workdir}", clock.session())
    last = checkpoints.variables(checkpoints.steps()[::-1])
    classes = last.record["num_classes"]
    model = build_model(config, classes)
    mesh = build_mesh(config)
    record = DataRecord(workdir)
    log_stage("opening the data sets", clock.session())
    sets = build_evaluation_sets(config, model, mesh, record, classes)
    batches = build_eval_batches(config, build_sharding(mesh))
    found = {"last": last}
    if ranked := checkpoints.best_steps():
      found["best"] = checkpoints.variables(ranked)
    fitted = {
      name: [
        adapt_to_sets({"params": params, **checkpoint.model_state}, model, sets)
        for params in (checkpoint.params, checkpoint.ema)
        if params is not None
      ]
      for name, checkpoint in found.items()
    }
    for name, checkpoint in found.items():
      placed = [
        {
          shape: place_variables(config, model, mesh, variables)
          for shape, variables in each.items()
        }
        for each in fitted[name]
      ]
      scores = _score(placed, sets, batches, name)
      results[f"{name}/step"] = checkpoint.step
      results |= {
        f"{name}/{one}/{metric}": value
        for one, values in scores.items()
        for metric, value in values.items()
      }
      summary = _corruption_summary(scores)
      results |= {f"{name}/{key}": value for key, value in summary.items()}
      _print(f"{name}, step {checkpoint.step}", scores, summary)
  on_main(lambda: write_json(workdir / EVALUATION, results))
  record.write(begins=False)
  print(f"\nWritten to {workdir / EVALUATION}")
  return results


def _score(
  fitted: list[dict[tuple[int, ...], dict[str, Any]]],
  sets: list[EvaluationSet],
  batches: Callable[[data.BatchSource], Batches],
  name: str,
) -> Results:
  """Scores a checkpoint's own weights, and their average if it has one."""
  results: Results = {}
  hidden = None if is_main() else True  # None: unless on a terminal
  for one in tqdm(sets, desc=name, unit="set", disable=hidden):
    model_state, *averaged = (dict(x[one.source.eval_shape]) for x in fitted)
    params, ema = model_state.pop("params"), None
    if averaged:
      ema = averaged[0]["params"]
    results |= evaluate_each(
      beside_ema(one.steps, ema), params, model_state, batches(one.source)
    )
  return results


def _corruption_summary(results: Results) -> dict[str, float]:
  """The mean corruption error of each corrupted set that was scored."""
  summary: dict[str, float] = {}
  for name, end in itertools.product(CORRUPTED, ("", "/ema")):
    errors = {
      kind: 1 - results[f"{full}{end}"]["accuracy"]
      for kind, full in data.corrupted_sets(name).items()
      if "accuracy" in results.get(f"{full}{end}", {})
    }
    if len(errors) < len(data.corrupted_sets(name)):
      continue
    baseline = ALEXNET_ERRORS if name.startswith("imagenet") else None
    mean, each = mean_corruption_error(errors, baseline)
    key = f"{name}{end}"
    summary[f"{key}/mce"] = mean
    summary |= {f"{key}/corruption_error/{k}": v for k, v in each.items()}
  return summary


def _print(title: str, scores: Results, summary: dict[str, float]) -> None:
  print(f"\n{title}:\n\n{format_table(scores)}")
  for name, values in scores.items():
    if "worst_group_accuracy" in values:
      worst = 100 * values["worst_group_accuracy"]
      print(f"\n{name}: {worst:.2f} % top-1 in the worst group")
  for name in (f"{x}{end}" for x in CORRUPTED for end in ("", "/ema")):
    if f"{name}/mce" in summary:
      against = (
        "against AlexNet's published errors; the set is compressed once more, "
        "so not comparable with published mCE"
        if name.startswith("imagenet")
        else "not divided by a baseline"
      )
      print(f"\n{name}: mCE {100 * summary[f'{name}/mce']:.2f} % ({against})")
