"""The job `train`: trains, saves, resumes, and sums up."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import config_dict

import forgetsam as fs
from forgetsam.experiment.build import build_experiment, log_m_sharpness
from forgetsam.experiment.config import (
  ConfigError,
  check_config,
  config_hash,
  config_to_dict,
)
from forgetsam.experiment.run import (
  CHECKPOINTS,
  SUMMARY,
  Checkpoints,
  Clock,
  DataRecord,
  EpochMeans,
  Experiment,
  Loop,
  NonFiniteSteps,
  Preemption,
  Reporter,
  WorkdirLock,
  Writer,
  as_begun,
  check_delta_examples,
  check_jax_settings,
  check_wandb,
  check_workdir,
  claim_workdir,
  is_main,
  log_stage,
  num_devices,
  on_main,
  open_writers,
  print_summary,
  read_json,
  tree_sha256,
  with_recorded_modules,
  write_json,
)
from forgetsam.training import place


def train(
  config: config_dict.ConfigDict, workdir: Path, *, started: float | None = None
) -> dict[str, Any]:
  """Trains a model, or goes on with what was started in the same folder.

  Args:
    config: a configuration as `configs/` builds it.
    workdir: the run's folder.
    started: `time.monotonic()` at the program's start; now, if None.

  Returns:
    The content of `summary.json`.

  Raises:
    ConfigError: the configuration is refused, or the folder belongs to another.
    NonFiniteStepError: training diverged.
    PreemptedError: SIGTERM or Ctrl-C came; the state is saved.
    CheckpointError: the folder's checkpoints are all damaged.
  """
  clock = Clock(started)
  config = with_recorded_modules(workdir, config)
  check_config(config, num_devices())
  config = as_begun(workdir, config)
  on_main(lambda: check_workdir(workdir, config))
  on_main(lambda: check_wandb(config.log.wandb))
  done = on_main(
    lambda: read_json(
      workdir / SUMMARY,
      steps=int,
      wall_seconds=float,
      startup_seconds=float,
    )
  )
  if done is not None:
    print(f"The run in {workdir} is complete.")
    print_summary(workdir, done)
    return done
  with WorkdirLock(workdir), Preemption() as preemption:
    return _train(config, workdir, clock, preemption)


def _train(
  config: config_dict.ConfigDict,
  workdir: Path,
  clock: Clock,
  preemption: Preemption,
) -> dict[str, Any]:
  record = DataRecord(workdir)
  pinned = record.pinned(config)
  log_stage(f"opening the data set {pinned.data.name}", clock.session())
  experiment = build_experiment(pinned)
  log_m_sharpness(config, experiment)
  log_stage(f"initialising {config.model.name}", clock.session())
  with Checkpoints(workdir / CHECKPOINTS, experiment.keep) as checkpoints:
    state, means, non_finite = _start(experiment, checkpoints, clock, workdir)
    record.check(config.data.name, experiment.sources.identity)
    if config.init_from is not None and not int(state.step):
      record.check_start(config.init_from, tree_sha256(state.params))
    # Not before all that may refuse the configuration.
    record.write()
    on_main(lambda: claim_workdir(workdir, config))
    start = int(state.step) + non_finite.skipped
    writers: list[Writer] = []  # they are process 0's, and so is its error
    on_main(lambda: writers.extend(open_writers(workdir, config, start)))
    with Reporter(
      start, experiment.num_steps, experiment.intervals, writers
    ) as reporter:
      loop = Loop(
        experiment,
        checkpoints,
        reporter,
        means,
        clock,
        preemption,
        non_finite,
      )
      profiles = experiment.profile and is_main()
      state = loop.run(state, workdir / "profile" if profiles else None)
      results = _final_results(experiment, checkpoints, state, reporter)
  summary = {
    "job": "train",
    "config_hash": config_hash(config_to_dict(config)),
    "steps": int(state.step),
    "skipped_steps": non_finite.skipped,
    "skipped_examples": experiment.sources.left_out,
    "wall_seconds": clock.wall(),
    "startup_seconds": clock.startup,
    **{f"train/{name}": value for name, value in means.means().items()},
    **results,
    "params_sha256": tree_sha256(state.params),
  }
  on_main(lambda: write_json(workdir / SUMMARY, summary))
  print_summary(workdir, summary)
  return summary


def _start(
  experiment: Experiment,
  checkpoints: Checkpoints,
  clock: Clock,
  workdir: Path,
) -> tuple[fs.TrainState, EpochMeans, NonFiniteSteps]:
  check_jax_settings(checkpoints.newest_record(), workdir)
  # What a checkpoint holds need not be read where a run started from.
  resumes = bool(checkpoints.steps())
  state = experiment.create_state(fresh=not resumes)
  record: dict[str, Any] = {}
  restored = checkpoints.restore_latest(state)
  if restored is not None:
    state, record = restored
    _refuse_other_data(experiment, record, workdir)
    check_delta_examples(record, experiment.delta_examples, workdir)
    clock.before = record["wall_seconds"]
  means = EpochMeans(experiment.steps_per_epoch, record.get("means"))
  non_finite = NonFiniteSteps(
    workdir,
    experiment.skip_non_finite,
    experiment.num_steps,
    experiment.train_indices,
    record.get("non_finite"),
  )
  if restored is not None:
    done = int(state.step) + non_finite.skipped
    print(f"Resuming at step {done} of {experiment.num_steps}.")
  return state, means, non_finite


def _refuse_other_data(
  experiment: Experiment, record: dict[str, Any], workdir: Path
) -> None:
  sources = experiment.sources
  assert sources.train is not None
  now = [len(sources.train), sources.left_out]
  before = record.get("examples", now)
  if now != before:
    raise ConfigError(
      f"--workdir={workdir} is refused: its run trains on {before[0]} examples,"
      f" with {before[1]} of the set left out, and now it is {now[0]} with "
      f"{now[1]}: another order\n  allowed: the data as they were "
      "(config.data.dir; config.data.skip_corrupt leaves out what cannot be "
      "read), or another --workdir"
    )


def _final_results(
  experiment: Experiment,
  checkpoints: Checkpoints,
  state: fs.TrainState,
  reporter: Reporter,
) -> dict[str, Any]:
  """Validation and test of the last state, and test of the best one."""
  checkpoints.wait()
  held_out = experiment.sources.validation
  splits = ["test"] if held_out is None else ["validation", "test"]
  results: dict[str, Any] = {}

  def add(variables: Any, split: str, prefix: str = "") -> None:
    for name, result in experiment.evaluate(variables, split).items():
      results.update(
        {f"{prefix}{name}/{key}": value for key, value in result.items()}
      )
      if split == "test" and not prefix:
        reporter.evaluation(experiment.num_steps, name, result)

  for split in splits:
    add(state, split)
  if ranked := checkpoints.best_steps():
    best = checkpoints.variables(ranked)
    params, model_state = place(  # once for all batches
      (best.params, best.model_state),
      jax.tree.map(lambda x: x.sharding, (state.params, state.model_state)),
    )
    best = best._replace(params=params, model_state=model_state)
    results["best/step"] = best.step
    add(best, "test", "best/")
    found = {k: v for k, v in results.items() if k.startswith("best/")}
    reporter.scalars(experiment.num_steps, found)
  return results
