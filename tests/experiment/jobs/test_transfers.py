"""Nothing crosses between host and devices in the loop but what must."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from forgetsam.experiment.build import build_experiment
from forgetsam.experiment.jobs import train as train_job

FIRST, LAST = 2, 8  # the guarded calls of the step: past compilation


@pytest.fixture(autouse=True)
def unguarded_again() -> Iterator[None]:
  yield
  jax.config.update("jax_transfer_guard", "allow")


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_only_batches_and_the_last_steps_metrics_cross(
  on_nonfinite: str,
  arguments: Callable[..., list[str]],
  monkeypatch: pytest.MonkeyPatch,
  tmp_path: Path,
):
  """Under JAX's guard against transfers that nobody asked for.

  Batches go to the device by `device_put`, which is allowed; what comes back
  is counted.
  """
  read: list[Any] = []
  steps: list[Any] = []
  device_get = jax.device_get

  def counted(tree: Any) -> Any:
    read.append(tree)
    return device_get(tree)

  def build(config: Any) -> Any:
    experiment = build_experiment(config)

    def step(*given: Any) -> Any:
      if len(steps) == FIRST:
        jax.config.update("jax_transfer_guard", "disallow")
        read.clear()
      if len(steps) == LAST:
        jax.config.update("jax_transfer_guard", "allow")
      result = experiment.train_step(*given)
      steps.append(result[1])
      return result

    return dataclasses.replace(experiment, train_step=step)

  monkeypatch.setattr(train_job, "build_experiment", build)
  monkeypatch.setattr(jax, "device_get", counted)
  import main

  extra = [
    "--config.log.every_steps=100",
    "--config.evaluation.every_epochs=4",
    "--config.epochs=4",
    f"--config.on_nonfinite={on_nonfinite}",
  ]
  assert main.run(arguments("obf", *extra), time.monotonic()) == 0
  assert len(steps) > LAST
  during = read[: LAST - FIRST]
  # One read a step: the metrics of the step before, which is finished.
  assert [id(tree) for tree in during] == [
    id(metrics) for metrics in steps[FIRST - 1 : LAST - 1]
  ]
