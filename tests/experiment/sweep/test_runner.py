"""A sweep's runs are the main job's runs, and share what they can."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import config_dict
from sweep_runs import tiny_config

import forgetsam as fs
from forgetsam.experiment.build import build_experiment, build_sources
from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.jobs.train import train
from forgetsam.experiment.sweep import Runner
from forgetsam.experiment.sweep._program import Program, RunBatches, take_apart

pytestmark = pytest.mark.slow

CNN = {"model__name": "cnn", "model__widths": (4,), "model__hidden": None}
SGD = {"optimizer__name": "sgdw", "optimizer__clip": None}


@pytest.fixture(scope="module")
def runner() -> Runner:
  return Runner()


def step_by_step(
  config: config_dict.ConfigDict,
) -> tuple[fs.TrainState, list[dict[str, Any]]]:
  """The run as the main job's loop makes it."""
  experiment = build_experiment(config)
  state, history = experiment.create_state(), []
  for batch in experiment.train_batches(0, experiment.num_steps):
    state, metrics = experiment.train_step(state, batch, experiment.key)
    history.append(jax.device_get(metrics))
  return state, history


def assert_close(left: Any, right: Any) -> None:
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
    left,
    right,
  )


def test_a_run_agrees_with_the_main_job(
  runner: Runner, data_dir: Path, tmp_path: Path
):
  config = tiny_config(data_dir, "obf", seed=3, optimizer__ema=0.8, **SGD)
  summary = train(config, tmp_path / "run")
  outcome = runner.run(config, ("validation", "test"))
  assert outcome.diverged_at is None
  for name in ("train", "validation", "test", "validation/ema", "test/ema"):
    for metric in ("accuracy", "loss"):
      key = f"{name}/{metric}"
      assert outcome.metrics[key] == pytest.approx(summary[key], rel=1e-5), key
  _, variables, _ = fs.load_run(tmp_path / "run", checkpoint="last")
  assert_close(outcome.state.params, variables["params"])


CASES = {
  "random": ("random", SGD),  # its noise has a key from the traced seed
  "augmented": (  # dropout draws from the run's key
    "plain",
    SGD | {"data__flip": True, "data__crop_padding": 1, "model__dropout": 0.3},
  ),
  "the batch before": ("sam", SGD | {"method__name": "sampa", "epochs": 1}),
  "convolutions": ("plain", {**CNN, **SGD, "epochs": 1}),
}


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
  """Trains on one device, for which compiling takes less time."""
  monkeypatch.setattr(
    "forgetsam.experiment.build._experiment.build_mesh", lambda config: None
  )


@pytest.mark.parametrize("case", CASES)
def test_a_run_agrees_with_single_steps(
  case: str, one_device: None, data_dir: Path
):
  variant, values = CASES[case]
  config = tiny_config(data_dir, variant, seed=2, micro_batch_size=32, **values)
  state, history = step_by_step(config)
  outcome = Runner().run(config, ("validation",))
  assert int(outcome.state.step) == len(history) == 5 * config.epochs
  assert_close(outcome.state.params, state.params)
  last_epoch = np.mean([m["loss"] for m in history[-5:]])
  assert outcome.metrics["train/loss"] == pytest.approx(last_epoch, rel=1e-5)


def test_a_run_in_factors_agrees_with_the_loop(
  one_device: None, data_dir: Path
):
  values = {"model__hidden": (64,), "epochs": 1, **SGD}
  state, _ = step_by_step(tiny_config(data_dir, "obf", **values))
  values["m_sharpness"] = "factored"
  runner = Runner()
  outcome = runner.run(tiny_config(data_dir, "obf", **values), ("validation",))
  assert_close(outcome.state.params, state.params)
  values["m_sharpness_chunk"] = 12
  with pytest.raises(ConfigError, match=r"m_sharpness_chunk.*12.*multiple"):
    runner.prepare(tiny_config(data_dir, "obf", **values))


def test_a_run_that_goes_on_has_the_batch_before(
  one_device: None, data_dir: Path
):
  config = tiny_config(data_dir, "sam", method__name="sampa", **SGD)
  experiment = build_experiment(config)
  whole = list(experiment.train_batches(0, 4))
  rest = list(experiment.train_batches(2, 4))
  jax.tree.map(np.testing.assert_array_equal, rest, whole[2:])
  for before, batch in zip(whole[:1] + whole, whole, strict=False):
    np.testing.assert_array_equal(batch["previous"]["image"], before["image"])


def test_a_long_epoch_of_images_goes_to_the_device_in_parts(
  one_device: None, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
  values = {"data__flip": True, "micro_batch_size": 32, "seed": 1, **SGD}
  config = tiny_config(data_dir, "plain", **values)
  whole = Runner().run(config, ("validation",))
  step = 64 * 8 * 8 * 4  # bytes
  monkeypatch.setattr(
    "forgetsam.experiment.sweep._program._MOST_BYTES", 4 * step
  )
  parts = Runner().run(config, ("validation",))  # four do not divide five
  assert_close(parts.state.params, whole.state.params)
  assert parts.metrics == pytest.approx(whole.metrics, rel=1e-5)


@pytest.mark.parametrize(
  ("flip", "limit", "expected"),
  [(True, 4, 3), (True, 0.5, 1), (True, 100, 6), (False, 0.5, 6)],
)
def test_how_many_steps_go_to_the_device_at_once(
  flip: bool,
  limit: float,
  expected: int,
  data_dir: Path,
  monkeypatch: pytest.MonkeyPatch,
):
  step = 64 * 8 * 8 * 4  # bytes
  monkeypatch.setattr(
    "forgetsam.experiment.sweep._program._MOST_BYTES", int(limit * step)
  )
  config = tiny_config(data_dir, "plain", data__flip=flip)
  source = RunBatches(config, build_sources(config).train)
  assert source.steps_at_once(6) == expected


def test_only_convolutions_leave_the_loop(data_dir: Path):
  for values, loops in ((SGD, True), (CNN | SGD, False)):
    config = tiny_config(data_dir, "plain", **values)
    program = Program(take_apart(config), build_sources(config))
    assert program.loops is loops


@contextmanager
def counted_compilations() -> Iterator[list[str]]:
  seen: list[str] = []

  def note(name: str, *_: Any, **__: Any) -> None:
    if name.endswith("backend_compile_duration"):
      seen.append(name)

  jax.monitoring.register_event_duration_secs_listener(note)
  yield seen
  jax.monitoring.unregister_event_duration_listener(note)


def test_runs_that_differ_in_numbers_share_one_program(
  runner: Runner, data_dir: Path
):
  first = tiny_config(data_dir, "obf", seed=3, **SGD)
  runner.run(first, ("validation", "test"))
  other = {
    "seed": 11,
    "perturbation__rho": 0.4,
    "ascent__gamma": 0.5,
    "optimizer__learning_rate": 0.02,
    "optimizer__momentum": 0.5,
    "optimizer__weight_decay": 0.0,
    "schedule__min_learning_rate": 0.001,
    "loss__label_smoothing": 0.1,
    "data__label_noise": 0.2,
  }
  config = tiny_config(data_dir, "obf", **{**SGD, **other})
  with counted_compilations() as compiled:
    outcome = runner.run(config, ("validation", "test"))
    assert compiled == []
    jax.jit(lambda x: x + 17)(1.0)
    assert len(compiled) == 1  # the count counts
  state, _ = step_by_step(config)
  assert_close(outcome.state.params, state.params)


def test_tuning_leaves_the_test_split_alone(runner: Runner, data_dir: Path):
  outcome = runner.run(tiny_config(data_dir, "obf", **SGD), ("validation",))
  trained = {f"train/{name}" for name in ("accuracy", "loss")}
  scored = ("accuracy", "loss", "top5_accuracy", "ece", "count")
  assert set(outcome.metrics) == trained | {f"validation/{n}" for n in scored}


def test_a_diverged_run_ends_with_the_number_of_its_step(
  one_device: None, data_dir: Path
):
  values = SGD | {"optimizer__learning_rate": 1e20}
  config = tiny_config(data_dir, "plain", micro_batch_size=32, **values)
  _, history = step_by_step(config)
  first = [bool(metrics["skipped"]) for metrics in history].index(True)
  assert first > 0
  outcome = Runner().run(config, ("validation",))
  assert outcome.diverged_at == first
  assert outcome.metrics == {}
