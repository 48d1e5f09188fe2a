"""Wrong commands are refused before data and compilation, naming the key."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# The override, what the message must name, and what it must say is allowed.
# Eight devices share a batch of 64, so that a device's share is 8.
WRONG = [
  ("perturbation.rho=-0.1", "at least 0"),
  ("perturbation.rho=nan", "at least 0"),
  ("perturbation.rho=inf", "finite"),
  ("perturbation.rho=abc", "at least 0"),
  ("perturbation.rhoo=0.1", "closest key is config.perturbation.rho"),
  ("perturbation.name=sma", "none, sam, asam, random"),
  ("perturbation.rho_min=-1", "at least 0"),
  ("perturbation.rho_schedule=linear", "constant, lr_proportional"),
  ("perturbation.eta=-1", "at least 0"),
  ("perturbation.magnitude=middle", "before, after, both"),
  ("micro_batch_size=3", "a divisor of a device's share of the batch, 8"),
  ("micro_batch_size=16", "a divisor of a device's share of the batch, 8"),
  ("micro_batch_size=0", "at least 1"),
  ("ascent.lam=1.0", "[0, 1)"),
  ("ascent.lam=-0.1", "[0, 1)"),
  ("ascent.gamma=1.5", "[0, 1]"),
  ("ascent.activation=tanh", "sigmoid, softmax"),
  ("ascent.name=obf", "output_bias_forgetting"),
  ("combine.name=gsam", "surrogate_gap"),
  ("perturbation.name=gnp", "gnp is a choice of config.combine.name"),
  ("combine.alpha=nan", "finite"),
  ("epochs=0", "at least 1"),
  ("epochs=1.5", "integer"),
  ("batch_size=0", "at least 1"),
  ("batch_size=60", "a multiple of the number of devices, 8"),
  ("evaluation.batch_size=60", "a multiple of the number of devices, 8"),
  ("evaluation.every_epochs=0", "at least 1"),
  ("checkpoint.every_steps=0", "at least 1"),
  ("checkpoint.keep=0", "at least 1"),
  ("log.every_steps=0", "at least 1"),
  ("log.profile=maybe", "true or false"),
  ("optimizer.name=adma", "the closest name is adam"),
  ("optimizer.learning_rate=0", "above 0"),
  ("optimizer.weight_decay=-1", "at least 0"),
  ("optimizer.momentum=1.0", "[0, 1)"),
  ("optimizer.clip=0", "above 0"),
  ("optimizer.clip_adaptive=0", "above 0"),
  ("optimizer.ema=1", "(0, 1)"),
  ("optimizer.train_only=head,", "regular expressions of the parameters'"),
  ("optimizer.train_only=(head", "regular expressions of the parameters'"),
  ("optimizer.shrink_and_perturb=2", "[0, 1]"),
  ("schedule.name=step", "cosine, linear, constant, wsd, or module:att"),
  ("schedule.warmup_epochs=-1", "at least 0"),
  ("schedule.min_learning_rate=1", "at most config.optimizer.learning_rate"),
  ("loss.name=mse", "softmax_cross_entropy"),
  ("loss.label_smoothing=1.0", "[0, 1)"),
  ("data.label_noise=1.5", "[0, 1]"),
  ("data.fast_decode=True", "false where config.data.stream=false"),
  ("data.validation=1.0", "[0, 1)"),
  ("data.name=digitss", "'digits'"),
  ("data.std=(0.0,)", "above 0"),
  ("sharpness.surface_points=1", "0 for none, or an integer, at least 2"),
  ("data.mean=abc", "tuple"),
  ("perturbation.steps=0", "at least 1"),
  ("perturbation.every_k=0", "at least 1"),
  ("perturbation.layers=head", "all, norm"),
  ("perturbation.start=1", "[0, 1)"),
  ("perturbation.stop=0", "(0, 1]"),
  ("perturbation.sigma=inf", "finite"),
  ("perturbation.decay=1", "[0, 1)"),
  ("ascent.fraction=0", "(0, 1]"),
  ("combine.gamma=1", "[0, 1)"),
  ("look_sam.k=0", "at least 1"),
  ("look_sam.alpha=nan", "finite"),
  ("model.name=mpl", "cnn, mlp"),
  ("model.widths=(3,)", "hidden"),
  ("model.activation=tahn", "tanh"),
  ("seed=-1", "at least 0"),
  ("seed=99999999999999999999", "below 2**32"),
  ("seed=4294967303", "below 2**32, onto which JAX folds"),
  ("data.split_seed=4294967296", "below 2**32"),
  ("perturbation=sam", "closest key is config.perturbation.name"),
]


@pytest.mark.parametrize(("override", "allowed"), WRONG)
def test_a_wrong_value_is_refused(
  override: str,
  allowed: str,
  arguments: Callable[..., list[str]],
  capsys: pytest.CaptureFixture[str],
  forbid_work: None,
):
  import main

  key, _, value = override.partition("=")
  code = main.run(arguments("obf", f"--config.{override}"), time.monotonic())
  said = capsys.readouterr().err
  last = said.strip().splitlines()[-4:]
  assert code == 2, said
  assert any(f"config.{key}=" in line for line in last), said
  assert value.strip("()").rstrip(",")[:3] in said
  assert "allowed:" in said
  assert allowed in " ".join(last), said
  assert "Traceback" not in said


_START = "config.perturbation.start"
JOINT = [
  (
    "plain",
    ["optimizer.clip=1.0", "optimizer.clip_adaptive=0.1"],
    "config.optimizer.clip_adaptive",
  ),
  ("plain", ["ascent.name=output_bias_forgetting"], "config.ascent.name"),
  ("random", ["ascent.name=output_bias_forgetting"], "config.ascent.name"),
  ("plain", ["combine.name=surrogate_gap"], "config.combine.name"),
  ("gsam", ["perturbation.name=none"], "config.combine.name"),
  ("plain", ["data.mean=(0.1,0.2)"], "config.data.std"),
  (
    "sam",
    [
      "perturbation.rho_schedule=lr_proportional",
      "optimizer.learning_rate=0.1",
      "schedule.min_learning_rate=0.1",
    ],
    "config.perturbation.rho_schedule",
  ),
  # Keys that would do nothing, and pieces that do not go together.
  *[
    ("plain", [override], f"config.{override.partition('=')[0]}")
    for override in [
      "ascent.fraction=0.5",
      "perturbation.every_k=2",
      "perturbation.layers=norm",
      "perturbation.start=0.5",
      "perturbation.stop=0.5",
      "look_sam.k=2",
      "method.name=esam",
    ]
  ],
  ("random", ["perturbation.every_k=2"], "config.perturbation.every_k"),
  (
    "sam",
    ["perturbation.name=momentum", "perturbation.steps=2"],
    "config.perturbation.steps",
  ),
  ("obf", ["perturbation.name=momentum"], "config.ascent.name"),
  ("sam", ["combine.decoupled=true"], "config.combine.decoupled"),
  (
    "sam",
    ["perturbation.steps=2", "perturbation.every_k=2"],
    "config.perturbation.every_k",
  ),
  ("gsam", ["look_sam.k=2"], "config.combine.name"),
  ("sam", ["look_sam.k=2", "method.name=esam"], "config.method.name"),
  (
    "sam",
    ["look_sam.k=2", "perturbation.every_k=2"],
    "config.perturbation.every_k",
  ),
  ("sam", ["perturbation.stop=0.3", "perturbation.start=0.3"], _START),
]


@pytest.mark.parametrize(("variant", "overrides", "key"), JOINT)
def test_values_that_do_not_go_together_are_refused(
  variant: str,
  overrides: list[str],
  key: str,
  arguments: Callable[..., list[str]],
  capsys: pytest.CaptureFixture[str],
  forbid_work: None,
):
  import main

  extra = [f"--config.{override}" for override in overrides]
  assert main.run(arguments(variant, *extra), time.monotonic()) == 2
  assert f"{key}=" in capsys.readouterr().err


COMMANDS = [
  (["--config=configs/digits.py:obff", "--workdir=x"], "'obff'", "gsam_obf"),
  (["--config=configs/digit.py:obf", "--workdir=x"], "--config", "digits.py"),
  (["--config=configs/paper.py:obf", "--workdir=x"], "--config", "get_config"),
  (["--config=configs/digits.py:obf"], "--workdir", "folder"),
  (["--workdir=x"], "--config is missing", "configs/digits.py"),
  (
    ["--config=configs/digits.py", "--workdir=x", "--job=fly"],
    "--job='fly'",
    "train",
  ),
  (["--config=configs/digits.py", "--wrkdir=x"], "wrkdir", "--workdir"),
  (["--config=configs/digits.py", "--workdir=x", "1"], "'1'", "flags only"),
  (["--job=evaluate", "--workdir=nowhere"], "--workdir", "folder of a run"),
]


@pytest.mark.parametrize(("command", "named", "allowed"), COMMANDS)
def test_a_wrong_command_is_refused(
  command: list[str],
  named: str,
  allowed: str,
  capsys: pytest.CaptureFixture[str],
  monkeypatch: pytest.MonkeyPatch,
  forbid_work: None,
):
  import main

  monkeypatch.chdir(ROOT)
  assert main.run(command, time.monotonic()) == 2
  said = capsys.readouterr().err
  assert named in said
  assert allowed in said


@pytest.fixture
def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
  """Fails a test whose command goes on to load data."""

  def load(*_: object, **__: object) -> None:
    raise AssertionError("data was loaded")

  monkeypatch.setattr("forgetsam.data.load", load)


def test_keys_that_no_rule_knows_are_refused(
  arguments: Callable[..., list[str]],
):
  from forgetsam.experiment.config import (
    ConfigError,
    check_config,
    load_config_file,
  )

  config = load_config_file(f"{ROOT}/configs/digits.py:obf")
  config.perturbation.radius = 0.1
  del config.perturbation["rho"]
  with pytest.raises(ConfigError) as refused:
    check_config(config, num_devices=1)
  assert "config.perturbation.radius=0.1" in str(refused.value)
  assert "config.perturbation.rho is missing" in str(refused.value)


def test_every_wrong_value_is_named_at_once(
  arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
):
  import main

  extra = ["--config.epochs=0", "--config.perturbation.rho=-1"]
  assert main.run(arguments("obf", *extra), time.monotonic()) == 2
  said = capsys.readouterr().err
  assert "config.epochs=0" in said
  assert "config.perturbation.rho=-1.0" in said


@pytest.mark.parametrize(
  "override", ["perturbation.rho=nan", "perturbation.rhoo=1", "data.name=fog"]
)
def test_the_program_exits_with_the_message_last(
  override: str, arguments: Callable[..., list[str]]
):
  done = subprocess.run(
    [sys.executable, "main.py", *arguments("obf", f"--config.{override}")],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  assert done.returncode == 2
  last = "\n".join(done.stderr.strip().splitlines()[-4:])
  assert f"config.{override.partition('=')[0]}=" in last
  assert "allowed:" in last
  assert "Traceback" not in done.stderr


def test_a_late_refusal_leaves_the_folder_to_the_corrected_command(
  arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
):
  """The model's arrays decide, and they are there after the data."""
  import main

  wrong = arguments("sam", "--config.perturbation.layers=norm")
  assert main.run(wrong, time.monotonic()) == 2
  assert "config.perturbation.layers='norm'" in capsys.readouterr().err
  assert main.run(arguments("sam"), time.monotonic()) == 0
