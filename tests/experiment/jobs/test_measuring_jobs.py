"""`--job=sharpness`, `--job=forgetting`, and the probe along training."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tiny_runs import tiny

import forgetsam as fs
from forgetsam import data, forgetting
from forgetsam.experiment.jobs._progress import Progress
from forgetsam.experiment.jobs.forgetting import measure_forgetting
from forgetsam.experiment.run import load_config
from main import run as run_main

pytestmark = pytest.mark.slow

SMALL = [
  "--config.micro_batch_size=32",
  "--config.model.hidden=(4,)",
  "--config.forgetting.per_class=6",
  "--config.forgetting.examples=100",
  "--config.forgetting.micro_batch_size=16",
  "--config.forgetting.repeats=3",
]


@pytest.fixture(autouse=True)
def _one_device(monkeypatch: pytest.MonkeyPatch) -> None:
  """Measures on a mesh are tested beside the measures."""
  monkeypatch.setattr(jax, "local_device_count", lambda: 1)


def run(arguments: list[str]) -> int:
  return run_main(arguments, started=0.0)


def read(path: Path) -> dict[str, Any]:
  return json.loads(path.read_text())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
  workdir = tmp_path_factory.mktemp("measured") / "run"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "local_device_count", lambda: 1)
    assert run(tiny(workdir, data_dir, *SMALL)) == 0
  return workdir


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
  """The pieces of work that are left, after each."""
  found: list[dict[str, int]] = []
  done = Progress.done

  def noting(self: Any, kind: str) -> None:
    assert self._left[kind] > 0
    done(self, kind)
    found.append(dict(self._left))

  monkeypatch.setattr(Progress, "done", noting)
  return found


def test_sharpness_agrees_with_the_dense_hessian(
  workdir: Path,
  data_dir: Path,
  left: list[dict[str, int]],
  capsys: pytest.CaptureFixture[str],
  caplog: pytest.LogCaptureFixture,
):
  caplog.set_level("INFO")
  arguments = [
    "--job=sharpness",
    f"--workdir={workdir}",
    "--config.sharpness.examples=200",
    "--config.sharpness.micro_batch_size=40",
    "--config.sharpness.trace_samples=4",
    "--config.sharpness.density_samples=2",
    "--config.sharpness.surface_points=3",
  ]
  assert run(arguments) == 0
  found = read(workdir / "sharpness.json")
  model, variables, config = fs.load_run(workdir, "last")
  last = "last"
  images = data.load(
    "digits",
    data_dir=data_dir,
    validation=config.data.validation,
    train_examples=config.data.train_examples,
  )
  source = data.in_memory(
    images, mean=config.data.mean, std=config.data.std
  ).train
  assert source is not None
  x, y = data.first_examples(source, 200, batch_size=50)
  flat, unravel = ravel_pytree(variables["params"])
  loss = fs.sigmoid_cross_entropy()

  def value(w: Any) -> Any:
    logits = model.apply({"params": unravel(w)}, x, train=False)
    return loss(logits, y)

  with jax.default_matmul_precision("highest"):
    eigenvalues = np.linalg.eigvalsh(jax.hessian(value)(flat))
    assert found[f"{last}/loss"] == pytest.approx(float(value(flat)), rel=1e-5)
  largest = found[f"{last}/hessian/largest/0"]
  assert largest == pytest.approx(eigenvalues[-1], rel=1e-3)
  assert found[f"{last}/examples"] == 200
  assert f"{last}/hessian/trace/standard_error" in found
  assert found[f"{last}/worst_case"] > 0
  for picture in ("spectral_density", "surface"):
    assert (workdir / f"{last}_{picture}.png").stat().st_size > 1000
    assert (workdir / f"{last}_{picture}.npz").exists()
  said = capsys.readouterr().out
  assert re.search(r"\| network +\| +[\d.]+ ± ", said)
  assert "m-sharpness" in said
  assert (workdir / "sharpness.png").stat().st_size > 5000
  assert left
  assert set(left[-1].values()) == {0}
  assert " s  opening the data set digits:1.0.0 ..." in caplog.text
  assert f" s  reading the checkpoints in {workdir} ..." in caplog.text


def test_forgetting_reports_its_controls(
  workdir: Path,
  left: list[dict[str, int]],
  capsys: pytest.CaptureFixture[str],
):
  arguments = [
    "--job=forgetting",
    f"--workdir={workdir}",
    "--config.forgetting.layer=Dense_0",
  ]
  assert run(arguments) == 0
  found = read(workdir / "forgetting.json")
  for name in ("own", "sam", "obf", "random"):
    for split in ("train", "held_out", "test"):
      key = f"last/{name}/probe/{split}/forgotten/conditional/jackknife"
      assert np.isfinite(found[key])
      assert f"{key}/standard_error" in found
      assert f"last/{name}/layer/{split}/rescaled_lower" in found
      assert f"last/{name}/shift/{split}/change/class_prior_bias" in found
    for network in ("trained", "untrained"):
      for form in ("kl", "loss"):
        excess = found[f"last/{name}/specific/{network}/{form}/excess"]
        parts = [
          found[f"last/{name}/specific/{network}/{form}/{origin}/specific"]
          for origin in ("train", "held_out")
        ]
        assert excess == pytest.approx(parts[0] - parts[1], abs=1e-5)
  said = capsys.readouterr().out
  assert "untrained (control)" in said
  for label in ("the run's own", "SAM, rho 0.1", "OBF, rho 0.4", "random"):
    assert said.count(f"| {label}") == 3
  assert len(said.splitlines()) < 30
  assert (workdir / "forgetting.png").stat().st_size > 5000
  assert left
  assert set(left[-1].values()) == {0}


def test_an_offset_that_no_micro_batch_gives_is_left_out(
  workdir: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  caplog: pytest.LogCaptureFixture,
):
  copy = shutil.copytree(workdir, tmp_path / "run")
  config = read(copy / "config.json")
  config["perturbation"]["name"] = "needy:from_momentum"
  (copy / "config.json").write_text(json.dumps(config))
  (tmp_path / "needy.py").write_text(
    "import optax\n"
    "def from_momentum(rho):\n"
    "  return optax.GradientTransformationExtraArgs(\n"
    "    lambda params: optax.EmptyState(),\n"
    "    lambda g, state, params, *, opt_state, **_: (opt_state.mu, state),\n"
    "  )\n"
  )
  monkeypatch.chdir(tmp_path)
  job = "forgetsam.experiment.jobs.forgetting"
  monkeypatch.setattr(f"{job}.measure_offset", lambda *_: 1.0)
  monkeypatch.setattr(f"{job}.report", lambda *_: None)
  with caplog.at_level("WARNING"):
    found = measure_forgetting(load_config(copy), copy)
  assert found.keys() == {"last/step", "last/sam", "last/obf", "last/random"}
  assert "'needy:from_momentum' is not among" in caplog.text
  assert "in needy.py, line 5" in caplog.text


@pytest.mark.parametrize(
  ("key", "value", "allowed"),
  [
    ("layer", "'Dense_7'", "must be one of: Dense_0,"),
    ("micro_batch_size", "101", "at most the number of train examples, 100"),
    ("per_class", "5000", "fewer than per_class=5000"),
  ],
)
def test_options_that_do_not_fit_a_run_are_refused_before_the_work(
  key: str,
  value: str,
  allowed: str,
  workdir: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setattr(forgetting, "probe_forgetting", None)  # the work
  override = f"--config.forgetting.{key}={value.strip(chr(39))}"
  place = f"--workdir={workdir}"
  assert run(["--job=forgetting", place, override]) == 2
  error = capsys.readouterr().err
  assert f"config.forgetting.{key}={value} is refused" in error
  assert allowed in error
  assert error.count("is refused") == 1


def test_without_held_out_examples_forgetting_is_refused(
  tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
):
  no_validation = ["--config.data.validation=0.0", "--config.epochs=1"]
  assert run(tiny(tmp_path / "run", data_dir, *SMALL, *no_validation)) == 0
  assert run(["--job=forgetting", f"--workdir={tmp_path / 'run'}"]) == 2
  assert "config.data.validation" in capsys.readouterr().err


def test_the_probe_moves_no_weight(
  workdir: Path,
  arguments: Callable[..., list[str]],
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
):
  from forgetsam.experiment.run import Reporter

  seen: dict[int, dict[str, Any]] = {}
  monkeypatch.setattr(
    Reporter, "probe", lambda self, done, values: seen.update({done: values})
  )
  probed = arguments(
    "obf",
    *SMALL,
    "--config.probe.perturbations=sam,obf",
    "--config.probe.every_steps=4",
  )
  assert run(probed) == 0
  assert list(seen) == [4, 8]
  assert set(seen[4]) == {
    f"{name}/{split}/{kind}"
    for name in ("sam", "obf")
    for split in ("train", "held_out")
    for kind in ("conditional", "unconditional")
  }
  assert all(np.isfinite(list(seen[8].values())))
  assert seen[4]["sam/train/conditional"] != seen[8]["sam/train/conditional"]
  other, own = (
    read(folder / "summary.json") for folder in (workdir, tmp_path / "run")
  )
  assert other["params_sha256"] == own["params_sha256"]
  assert other["config_hash"] == own["config_hash"]


def test_a_probe_needs_enough_examples_of_each_class(
  arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
):
  probed = arguments("obf", "--config.probe.perturbations=sam")
  assert run(probed) == 2
  assert "config.forgetting.per_class=30" in capsys.readouterr().err
  assert run(arguments("obf", "--config.probe.perturbations=sam,asam")) == 2
  assert "sam, obf and random" in capsys.readouterr().err
