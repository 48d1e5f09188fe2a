"""Trains the study's networks, and takes single steps apart."""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import forgetsam as fs
from forgetsam import forgetting
from forgetsam.experiment.build import (
  build_ascent,
  build_data,
  build_experiment,
  build_loss,
)
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.run import DataRecord, check_folder
from forgetsam.experiment.sweep import Mean, Runner, choose, mean_over_runs
from forgetsam.studies.known_bias._conditions import (
  ADDED,
  CURVE_SEEDS,
  REPORT_SEEDS,
  Condition,
  choose_rho,
  curve_conditions,
  plain_conditions,
)
from forgetsam.studies.known_bias._one_step import step_effect
from forgetsam.studies.known_bias._scoring import Scorer
from forgetsam.studies.known_bias._tables import key_of

FILE = "configs/biased_fashion_2k.py"
STEP_EPOCHS, STEP_EXAMPLES = (1, 3, 10, 30), 512


class Runs:
  """Finished runs, a line of JSON each; makes those that are missing."""

  def __init__(self, path: Path, overrides: Sequence[str]):
    self._path, self._overrides = path, overrides
    text = path.read_text() if path.exists() else ""
    try:  # a kill may have cut the last line short
      runs = [json.loads(line) for line in text.splitlines()]
      self._found = {(*key_of(run), run["seed"]): run for run in runs}
    except (ValueError, TypeError, KeyError) as error:
      raise ConfigError(
        f"{path} is refused: a line is not what the study wrote, {error}\n"
        "  allowed: the file without it; that run is then made again"
      ) from error
    self._runner = Runner()
    self._runner.record = DataRecord(path.parent, began=bool(self._found))
    self._scorer: Scorer | None = None

  def add(self, condition: Condition, seed: int, stage: str) -> dict[str, Any]:
    """The record of a run, from the file or made now."""
    run: dict[str, Any] = {**vars(condition), "seed": seed, "stage": stage}
    key = *key_of(run), seed
    if key in self._found:
      return self._found[key]
    config = condition.config(FILE, seed, self._overrides)
    if self._scorer is None:
      self._scorer = Scorer(config)
    outcome = self._runner.run(config, ("validation", "test"))
    run |= {"diverged": outcome.diverged_at is not None}
    if not run["diverged"]:
      run |= outcome.metrics | self._scorer.score(outcome.state.params)
    run["seconds"] = round(outcome.seconds, 2)
    with self._path.open("a") as file:
      file.write(json.dumps(run) + "\n")
    self._found[key] = run
    print(
      f"{stage} {condition.method} m={condition.micro_batch_size} "
      f"rho={condition.rho} wd={condition.weight_decay} seed={seed}: "
      f"validation {run.get('validation/accuracy', np.nan):.4f}, "
      f"{outcome.seconds:.1f} s",
      flush=True,
    )
    return run

  def validation(self, condition: Condition, stage: str) -> Mean | None:
    """Mean accuracy on biased validation images; None where a run diverged."""
    runs = [self.add(condition, seed, stage) for seed in CURVE_SEEDS]
    if any(run["diverged"] for run in runs):
      return None
    return mean_over_runs([run["validation/accuracy"] for run in runs])


def chosen_settings(runs: Runs) -> list[Condition]:
  """Stages 1 and 2: plain training's weight decay, then a rho for each m."""
  plain = plain_conditions()
  scores = [runs.validation(condition, "plain") for condition in plain]
  decays = [{"optimizer.weight_decay": c.weight_decay} for c in plain]
  index = choose(decays, scores)
  if index is None:
    raise SystemExit("plain training diverged at every weight decay")
  chosen = [plain[index]]
  curve = curve_conditions(plain[index].weight_decay)
  for _, group in itertools.groupby(curve, lambda c: c.family):
    family = list(group)
    means = [runs.validation(condition, "curve") for condition in family]
    rho = choose_rho([c.rho for c in family], means)
    chosen += [c for c in family if c.rho == rho]
  return chosen


def plain_networks(
  condition: Condition, seed: int, overrides: Sequence[str]
) -> Iterator[tuple[int, Any]]:
  """The weights of a plain run after some of its epochs."""
  config = condition.config(FILE, seed, overrides)
  experiment = build_experiment(config)
  state = experiment.create_state()
  per_epoch = experiment.steps_per_epoch
  for start, stop in itertools.pairwise((0, *STEP_EPOCHS)):
    for batch in experiment.train_batches(start * per_epoch, stop * per_epoch):
      state, _ = experiment.train_step(state, batch, experiment.key)
    # The next step takes the state's buffers back.
    yield stop, jax.tree.map(jnp.copy, state.params)


def step_effects(
  plain: Condition, overrides: Sequence[str]
) -> Iterable[dict[str, Any]]:
  """Stage 4: every method's step, from the same plain networks."""
  config = plain.config(FILE, 0, overrides)
  scorer = Scorer(config, num_pairs=500)
  biased = build_data(config)
  networks = [
    (seed, epoch, params)
    for seed in CURVE_SEEDS
    for epoch, params in plain_networks(plain, seed, overrides)
  ]
  for condition in [plain, *curve_conditions(plain.weight_decay)]:
    m = condition.micro_batch_size
    images, labels = (
      jnp.asarray(x[:STEP_EXAMPLES].reshape(-1, m, *x.shape[1:]))
      for x in (biased.train.images, biased.train.labels)
    )
    effect = effect_of(condition, scorer, biased.num_classes, overrides)
    for seed, epoch, params in networks:
      found = effect(params, images, labels, scorer.pairs)
      yield {
        **vars(condition),
        "seed": seed,
        "epoch": epoch,
        "forgotten_patch": float(found.forgotten.patch),
        "forgotten_content": float(found.forgotten.content),
        "learned_patch": float(found.learned.patch),
        "learned_content": float(found.learned.content),
      }
    print(f"one step: {condition.method} m={m} rho={condition.rho}", flush=True)


def effect_of(
  condition: Condition,
  scorer: Scorer,
  num_classes: int,
  overrides: Sequence[str],
) -> Any:
  """The method's step, as `step_effect` takes it apart."""
  config = condition.config(FILE, 0, overrides)
  logits_fn, loss = scorer.logits_fn, build_loss(config, num_classes)
  if condition.method == "plain":
    return step_effect(logits_fn, loss, None)
  perturbation = fs.sam(condition.rho)
  if condition.method == "random":
    perturbation = fs.random_perturbation(condition.rho, seed=0)
  signal = build_ascent(config, num_classes)
  delta_fn = forgetting.offset_fn(logits_fn, signal, perturbation)
  return step_effect(logits_fn, loss, delta_fn)


def run_study(workdir: Path, overrides: Sequence[str]) -> None:
  """Runs what is not finished of all stages; see `python -m` of this package.

  Args:
    workdir: the study's folder.
    overrides: `--config.key=value` arguments, for every run.
  """
  check_folder(workdir)
  began = time.perf_counter()
  runs = Runs(workdir / "runs.jsonl", overrides)
  chosen = chosen_settings(runs)
  (workdir / "chosen.json").write_text(
    json.dumps([vars(condition) for condition in chosen], indent=2) + "\n"
  )
  for seed in REPORT_SEEDS:
    for condition in chosen:
      runs.add(condition, seed, "report")
  steps = workdir / "one_step.jsonl"
  if not steps.exists():
    effects = step_effects(chosen[0], overrides)
    steps.write_text("".join(json.dumps(row) + "\n" for row in effects))
  for method, radii in ADDED.items():
    for rho in radii:
      runs.validation(Condition(method, 128, 0.0, rho), "added")
  print(f"{time.perf_counter() - began:.0f} s")
