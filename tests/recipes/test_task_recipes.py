"""A language model and a regression, from the recipe to every job."""

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

import main
from forgetsam import data
from forgetsam.experiment.build import build_experiment
from forgetsam.experiment.config import ConfigError, load_config_file
from forgetsam.experiment.run import Loop

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LANGUAGE = [
  f"--config={ROOT}/configs/char_lm.py:obf",
  "--config.data.options.train=32",
  "--config.data.options.held_out=16",
  "--config.model.width=8",
  "--config.model.options.depth=1",
  "--config.batch_size=16",
  "--config.epochs=2",
  "--config.schedule.warmup_epochs=0",
  "--config.evaluation.every_epochs=1",
  "--config.evaluation.batch_size=16",
]


def run(*arguments: str) -> int:
  return main.run(arguments, time.monotonic())


def read(file: Path) -> Any:
  return json.loads(file.read_text())


@pytest.fixture(scope="module", autouse=True)
def _one_device() -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "local_device_count", lambda: 1)
    yield


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
  workdir = tmp_path_factory.mktemp("language") / "run"
  assert run(*LANGUAGE, f"--workdir={workdir}") == 0
  return workdir


def test_a_language_model_is_scored_by_its_perplexity(
  language: Path, capsys: pytest.CaptureFixture[str]
):
  summary = read(language / "summary.json")
  assert summary["train/token_accuracy"] < 1
  assert "test/accuracy" not in summary
  assert summary["test/perplexity"] == pytest.approx(
    math.exp(summary["test/loss"]), rel=1e-4
  )
  # Padding is no token: a sentence has 25 to 57 characters and an end.
  assert 16 * 25 < summary["test/count"] < 16 * 58
  assert run("--job=evaluate", f"--workdir={language}") == 0
  assert "perplexity" in capsys.readouterr().out
  scores = read(language / "evaluation.json")
  for name in ("loss", "perplexity", "count"):
    assert scores[f"last/test/{name}"] == summary[f"test/{name}"]
  losses = {
    scores[f"{checkpoint}/step"]: scores[f"{checkpoint}/validation/loss"]
    for checkpoint in ("last", "best")
  }
  assert scores["best/step"] == min(losses, key=losses.__getitem__)


def test_a_killed_language_model_ends_as_an_undisturbed_one(
  language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  arguments = [*LANGUAGE, f"--workdir={tmp_path / 'run'}"]
  settle = Loop._settle

  def fall(self: Any, pending: Any, state: Any) -> None:
    if pending.step == 2:
      raise KeyboardInterrupt
    settle(self, pending, state)

  monkeypatch.setattr(Loop, "_settle", fall)
  assert run(*arguments) == 130
  monkeypatch.setattr(Loop, "_settle", settle)
  assert run(*arguments) == 0
  resumed, whole = (
    {
      k: v
      for k, v in read(folder / "summary.json").items()
      if "seconds" not in k
    }
    for folder in (tmp_path / "run", language)
  )
  assert resumed == whole


def test_forgetting_of_tokens_is_refused_by_name(
  language: Path, capsys: pytest.CaptureFixture[str]
):
  assert run("--job=forgetting", f"--workdir={language}") == 2
  said = capsys.readouterr().err
  assert "--job='forgetting' is refused" in said
  assert "logits [B, K] and one class an example" in said


def test_a_sweep_of_a_regression_chooses_by_the_loss(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  sweep = [
    "--job=sweep",
    f"--config={ROOT}/configs/regression.py",
    "--variants=sam",
    "--seeds=2",
    f"--workdir={tmp_path / 'sweep'}",
    "--config.epochs=2",
    "--config.model.hidden=(4,)",
  ]
  assert run(*sweep, "--grid=optimizer.learning_rate=1e-6,1e-2") == 0
  best = read(tmp_path / "sweep" / "best.json")["sam"]
  assert best["overrides"] == {"optimizer.learning_rate": 1e-2}
  assert best["validation/loss"] < 1.5
  said = capsys.readouterr().out
  assert "validation loss" in said
  assert "accuracy" not in said


@pytest.fixture(scope="module")
def patients() -> data.Sources:
  config = load_config_file(f"{ROOT}/configs/regression.py:sam")
  return build_experiment(config).sources


@pytest.mark.parametrize(
  ("key", "value", "said"),
  [
    ("metric.name", "classification", "metric.name='classification'.*1 class"),
    ("loss.name", "softmax_cross_entropy", "float32 \\[1\\] an example"),
    ("probe.perturbations", "obf", "perturbations='obf'.*one class an example"),
    ("data.label_noise", 0.1, "label_noise=0.1 needs one class for each"),
  ],
)
def test_what_a_regression_cannot_have_is_refused(
  patients: data.Sources, key: str, value: Any, said: str
):
  config = load_config_file(f"{ROOT}/configs/regression.py:sam")
  config.update_from_flattened_dict({key: value})
  sources = None if key.startswith("data") else patients
  with pytest.raises(ConfigError, match=f"(?s){said}"):
    build_experiment(config, sources)


def test_tokens_alone_stop_at_a_step_that_is_not_finite(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  """No float of the next batch can say that this one was skipped."""
  (tmp_path / "counting.py").write_text(
    "import jax.numpy as jnp, numpy as np\n"
    "from forgetsam.experiment import base_config\n"
    "def counts():\n"
    "  x = np.arange(256).reshape(64, 4) % 7\n"
    "  return {'inputs': x, 'labels': np.arange(64) // 63}\n"
    "def loss(logits, labels):\n"
    "  return jnp.where(labels.max() == 1, jnp.nan, jnp.mean(logits**2))\n"
    "def get_config():\n"
    "  config = base_config()\n"
    "  config.data.name, config.model.hidden = 'counting:counts', (2,)\n"
    "  config.data.validation, config.data.test = 0.0, 0.2\n"
    "  config.loss.name, config.batch_size = 'counting:loss', 16\n"
    "  return config\n"
  )
  command = f"--config={tmp_path}/counting.py", f"--workdir={tmp_path}/run"
  assert run(*command) == 1
  [step] = re.findall(r"step (\d+)", capsys.readouterr().err.splitlines()[1])
  assert run(*command) == 1
  assert f"Resuming at step {step} of" in capsys.readouterr().out
