"""The job `sweep`: variants over seeds, to tune or to compare on test data."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
from ml_collections import config_dict

from forgetsam.experiment.config import ConfigError, SweepFlags, refusal
from forgetsam.experiment.jobs.evaluate import evaluate_run
from forgetsam.experiment.jobs.train import train
from forgetsam.experiment.run import DataRecord, NonFiniteStepError, read_json
from forgetsam.experiment.sweep import (
  Outcome,
  Progress,
  Record,
  Records,
  Runner,
  Setting,
  Trial,
  check_trials,
  parse_grid,
  plan_trials,
  read_settings,
  report_comparison,
  report_tuning,
  settings,
)


def sweep(
  file: str, overrides: Sequence[str], flags: SweepFlags, workdir: Path
) -> None:
  """Runs what is not finished yet, and reports on everything asked for.

  Each finished run has its record in the folder. A tuning sweep evaluates on
  the validation split alone; a comparison also on the test split.

  Args:
    file: the configurations' file.
    overrides: `--config.key=value` arguments, for every variant.
    flags: variants, seeds, and what to choose from or to apply.
    workdir: the sweep's folder.

  Raises:
    ConfigError: a variant, key, value or flag is refused, or the folder holds
      records of other configurations.
  """
  seeds = range(flags.first_seed, flags.first_seed + flags.seeds)
  trials = plan_trials(file, overrides, _settings_of(flags, seeds))
  validates = all(trial.config.data.validation for trial in trials)
  splits = ["validation"] if flags.tune or validates else []
  splits += [] if flags.tune else ["test"]
  check_trials(
    trials, seeds, splits=splits, num_devices=jax.local_device_count()
  )
  records = Records(workdir, "tune" if flags.tune else "report")
  found = {
    (i, seed): records.find(trial, seed)
    for i, trial in enumerate(trials)
    for seed in seeds
  }
  began = any(record is not None for record in found.values())
  data_record = DataRecord(workdir, began)
  scored = None if flags.keep_runs else tuple(splits)
  _run_missing(trials, found, records, scored, data_record)
  finished = [
    (trial, [record for seed in seeds if (record := found[i, seed])])
    for i, trial in enumerate(trials)
  ]
  report = report_tuning if flags.tune else report_comparison
  report(workdir, finished, seeds)


def _run_missing(
  trials: Sequence[Trial],
  found: dict[tuple[int, int], Record | None],
  records: Records,
  splits: tuple[str, ...] | None,
  data_record: DataRecord,
) -> None:
  """Fills in the records that are None; splits None keeps the runs' folders."""
  missing = [key for key, record in found.items() if record is None]
  if not missing:
    return
  runner = Runner()
  runner.record = data_record
  for i in {i for i, _ in missing}:  # refused before the first run, if at all
    runner.prepare(trials[i].config)
  with Progress(len(found), len(found) - len(missing)) as progress:
    for i, seed in missing:
      trial = trials[i]
      config = trial.with_seed(seed)
      outcome: Outcome | Record
      if splits is None:
        folder = records.path(trial, seed).with_suffix("")
        outcome = _train_and_keep(config, folder)
      else:
        outcome = runner.run(config, splits)
      record = found[i, seed] = records.add(trial, config, outcome)
      name = " ".join([trial.variant, *filter(None, [trial.label])])
      progress.finished(f"{name}, seed {seed}", record)


def _train_and_keep(config: config_dict.ConfigDict, workdir: Path) -> Record:
  """Trains as the main job does, and scores `config.evaluation.sets`."""
  began, before = time.perf_counter(), 0.0
  diverged_at, metrics = None, {}
  try:
    results = train(config, workdir)
    # Of a run that was cut off, what came before counts, too.
    before, began = results["wall_seconds"], time.perf_counter()
    if config.evaluation.sets:
      results = results | evaluate_run(config, workdir)
    metrics = {
      k: v for k, v in results.items() if type(v) is float and "/" in k
    }
  except NonFiniteStepError as error:
    diverged_at = error.step
  return Record(metrics, diverged_at, before + time.perf_counter() - began)


def _settings_of(
  flags: SweepFlags, seeds: range
) -> dict[str, Iterable[Setting]]:
  """The settings of each variant: a grid's, a file's, or as configured."""
  if flags.settings is not None:
    return _settings_from_file(flags.settings, flags.variants, seeds)
  grid = parse_grid(flags.grid) if flags.grid is not None else {}
  return {variant: settings(grid) for variant in flags.variants}


def _settings_from_file(
  path: Path, variants: Sequence[str], seeds: range
) -> dict[str, Iterable[Setting]]:
  best = read_json(path)
  if best is None:
    text = "the best.json that a sweep with --grid has written"
    raise ConfigError(refusal("--settings", str(path), text))
  for variant in variants:
    if variant not in best:
      text = f"variants with a setting in {path}: {', '.join(best)}"
      raise ConfigError(refusal("--variants", variant, text))
    chosen = best[variant]
    if not isinstance(chosen, dict) or not (
      isinstance(chosen.get("seeds"), list)
      and isinstance(chosen.get("overrides"), dict)
    ):
      text = f"a best.json; in this, {variant!r} lacks seeds or overrides"
      raise ConfigError(refusal("--settings", str(path), text))
    used = set(best[variant]["seeds"]) & set(seeds)
    if used:
      text = (
        f"fresh seeds: {variant}'s setting was chosen with seeds up to "
        f"{max(best[variant]['seeds'])}"
      )
      raise ConfigError(refusal("--first_seed", seeds.start, text))
  return {v: [read_settings(best, v)] for v in variants}
