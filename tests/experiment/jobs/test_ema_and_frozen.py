"""A run that averages its weights and trains a part of them alone."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from tiny_runs import tiny

import forgetsam as fs
import main
from forgetsam.experiment.build import build_sources
from forgetsam.experiment.config import load_config_file
from forgetsam.experiment.run import read_metrics


class Run(NamedTuple):
  workdir: Path
  arguments: list[str]
  summary: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Run:
  """Of two epochs of five steps, with both of its checkpoints."""
  workdir = tmp_path_factory.mktemp("ema") / "run"
  arguments = tiny(
    workdir,
    data_dir,
    "--config.optimizer.ema=0.7",
    "--config.optimizer.learning_rate=0.05",
    "--config.optimizer.train_only=Head_0,.*bias",
    "--config.optimizer.weight_decay=0.1",
    "--config.optimizer.shard_state=true",
    "--config.checkpoint.keep=2",
    "--config.evaluation.watch_test=true",
  )
  assert main.run(arguments, time.monotonic()) == 0
  return Run(
    workdir, arguments, json.loads((workdir / "summary.json").read_text())
  )


@pytest.fixture(scope="module")
def sources(run: Run) -> fs.data.Sources:
  return build_sources(fs.load_run(run.workdir)[2])


def score(run: Run, source: Any, **which: Any) -> float:
  """The accuracy of a saved model, computed from the data directly."""
  model, variables, _ = fs.load_run(run.workdir, **which)
  images, labels = fs.data.first_examples(source, 10**6, batch_size=512)
  logits = jax.jit(model.apply)(variables, images)
  return float(np.mean(np.argmax(logits, axis=-1) == labels))


def test_the_average_is_scored_beside_the_weights(
  run: Run, sources: fs.data.Sources
):
  last = {"checkpoint": "last"}
  for split in ("validation", "test"):
    for prefix, ema in ((split, False), (f"{split}/ema", True)):
      expected = score(run, getattr(sources, split), ema=ema, **last)
      assert run.summary[f"{prefix}/accuracy"] == pytest.approx(expected)
  found = score(run, sources.test, ema=True)
  assert run.summary["best/test/ema/accuracy"] == pytest.approx(found)
  assert run.summary["test/loss"] != run.summary["test/ema/loss"]
  curves = read_metrics(run.workdir)
  assert set(curves["validation/ema/loss"]) == {5, 10}
  assert set(curves["test/ema/accuracy"]) == {5, 10}


def test_evaluate_scores_both(run: Run, capsys: pytest.CaptureFixture[str]):
  arguments = ["--job=evaluate", f"--workdir={run.workdir}"]
  assert main.run(arguments, time.monotonic()) == 0
  found = json.loads((run.workdir / "evaluation.json").read_text())
  for name in ("test/accuracy", "test/ema/accuracy", "validation/ema/loss"):
    assert found[f"last/{name}"] == pytest.approx(run.summary[name])
  assert found["best/test/ema/loss"] == pytest.approx(
    run.summary["best/test/ema/loss"]
  )
  assert "| test/ema " in capsys.readouterr().out


def test_frozen_parameters_keep_every_bit(run: Run):
  config = load_config_file(run.arguments[0].partition("=")[2])
  trained = fs.load_run(run.workdir, "last")[1]["params"]
  averaged = fs.load_run(run.workdir, "last", ema=True)[1]["params"]
  module = fs.models.create("mlp", 10, hidden=(8,))
  init_key, _ = jax.random.split(jax.random.key(config.seed))
  initial, _ = fs.models.initialise(module, init_key, (8, 8, 1))
  for params in (trained, averaged):
    np.testing.assert_array_equal(
      params["Dense_0"]["kernel"], initial["Dense_0"]["kernel"]
    )
    for path in (("Dense_0", "bias"), ("Head_0", "dense")):
      changed = jax.tree.map(
        lambda x, y: bool((x != y).any()),
        params[path[0]][path[1]],
        initial[path[0]][path[1]],
      )
      assert all(jax.tree.leaves(changed))


def test_resuming_gives_the_same_average(run: Run, tmp_path: Path):
  again = tmp_path / "run"
  shutil.copytree(run.workdir, again)
  (again / "summary.json").unlink()
  shutil.rmtree(again / "checkpoints" / "10")
  arguments = [f"--workdir={again}", *run.arguments[:1], *run.arguments[2:]]
  assert main.run(arguments, time.monotonic()) == 0
  found = json.loads((again / "summary.json").read_text())
  times = {"wall_seconds", "startup_seconds"}
  assert {k: v for k, v in found.items() if k not in times} == {
    k: v for k, v in run.summary.items() if k not in times
  }
  for x, y in zip(
    *(
      jax.tree.leaves(fs.load_run(path, "last", ema=True)[1])
      for path in (again, run.workdir)
    ),
    strict=True,
  ):
    np.testing.assert_array_equal(x, y)


def test_a_run_without_an_average_says_so(
  finished: tuple[Path, dict[str, Any]],
):
  with pytest.raises(ValueError, match=r"ema=True.*config\.optimizer\.ema"):
    fs.load_run(finished[0], ema=True)
