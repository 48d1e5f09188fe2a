"""The study's runs: planned, measured, recorded and gone on with."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_study import write_file

from forgetsam.cli import JOBS, run_job
from forgetsam.experiment.config import ConfigError, parse_command_line
from forgetsam.experiment.sweep import Outcome, Record, Records, Runner
from forgetsam.studies.correlation import (
  Measures,
  collect_networks,
  plan_study,
  read_networks,
  run_network,
  run_study,
  write_networks,
)
from forgetsam.studies.correlation import _runs as runs

pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path: Path) -> str:
  return write_file(tmp_path)


def plan(file: str, data_dir: Path, *arms: str) -> list[Any]:
  return plan_study(file, [f"--config.data.dir={data_dir}"], arms)


def test_arms_differ_in_what_they_change(file: str, data_dir: Path):
  noisy, clean = plan(file, data_dir)
  assert (noisy.name, clean.name) == ("noisy", "clean")
  assert {t.config.data.label_noise for t in noisy.trials} == {0.2}
  assert {t.config.data.label_noise for t in clean.trials} == {0.0}
  assert [t.variant for t in noisy.trials] == ["plain"] * 2 + ["obf"] * 2
  assert [t.config.ascent.gamma for t in noisy.trials[2:]] == [0.0, 1.0]
  assert [seed for _, seed in noisy.runs()] == [0] * 4 + [1] * 4
  assert len(clean.runs()) == 4
  assert [arm.name for arm in plan(file, data_dir, "clean")] == ["clean"]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda file: (file + ":obf", []), "a file alone"),
    (lambda file: (file + "x", []), "an existing file"),
    (
      lambda file: (file, ["noise"]),
      "--arms='noise' is refused\n.*noisy, clean",
    ),
  ],
)
def test_what_cannot_be_planned_is_refused(file: str, change, message: str):
  name, arms = change(file)
  with pytest.raises(ConfigError, match=message):
    plan_study(name, [], arms)


def test_a_file_without_a_study_is_refused(tmp_path: Path):
  path = tmp_path / "other.py"
  path.write_text("def get_config(variant): ...")
  with pytest.raises(ConfigError, match="defines STUDY"):
    plan_study(str(path), [], [])


def test_a_refused_setting_says_which(file: str, data_dir: Path):
  path = Path(file)
  path.write_text(path.read_text().replace("weight_decay=0,0.1",
                                           "weight_decay=0,-1"))  # fmt: skip
  with pytest.raises(ConfigError, match="weight_decay"):
    plan(file, data_dir)


def test_arms_belong_to_the_study(file: str):
  with pytest.raises(ConfigError, match="--arms='noisy' is refused"):
    parse_command_line(
      [f"--config={file}:obf", "--workdir=/tmp/x", "--arms=noisy"], JOBS
    )


def test_epochs_are_shown_as_they_end(file: str, data_dir: Path):
  (arm,) = plan(file, data_dir, "noisy")
  seen = []

  def on_epoch(done: int, state: Any) -> None:
    seen.append((done, int(state.step), jax.tree.map(np.array, state.params)))

  config = arm.trials[0].with_seed(1)
  runner = Runner()
  outcome = runner.run(config, (), on_epoch)
  alone = runner.run(config, ())
  assert [s[:2] for s in seen] == [(0, 0), (1, 4), (2, 8)]
  for other in (outcome.state.params, alone.state.params):
    jax.tree.map(np.testing.assert_array_equal, seen[-1][2], other)


class MadeUpMeasures(Measures):
  """Answers at once, with what it was asked."""

  def __init__(self, *_: Any):
    self.untrained: list[Any] = []

  def common_forgetting(self, weights: Any, share: float = 1.0):
    return {"obf_probe": share}

  def own_forgetting(self, weights: Any, config: Any):
    return {"own_length": config.perturbation.rho}

  def specific_forgetting(self, weights: Any, untrained: Any):
    self.untrained.append(untrained)
    return {"specific_kl": 1.0}

  def sharpness(self, weights: Any):
    return {"lambda_max": 2.0}

  def fit(self, weights: Any):
    return {"train_accuracy": 0.75}


def test_a_network_is_measured_along_training_and_at_its_end(
  file: str, data_dir: Path
):
  (arm,) = plan(file, data_dir, "noisy")
  measures, runner = MadeUpMeasures(), Runner()
  outcome = run_network(runner, measures, arm.trials[-1], 0)
  metrics = outcome.metrics
  assert metrics["obf_probe@1"] == 0.5
  assert metrics["obf_probe"] == 1.0
  assert "obf_probe@2" not in metrics  # the end has no epoch
  assert metrics["own_length"] == 0.2
  assert metrics["specific_kl"] + metrics["lambda_max"] == 3.0
  assert {"validation/accuracy", "test/loss"} <= set(metrics)
  untrained: list[Any] = []
  runner.run(
    arm.trials[-1].with_seed(0),
    (),
    lambda done, state: untrained.append(jax.tree.map(np.array, state.params)),
  )
  jax.tree.map(
    np.testing.assert_array_equal, untrained[0], measures.untrained[0]
  )


def test_an_arm_may_test_on_another_split(
  file: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  path = Path(file)
  path.write_text(
    path.read_text().replace(
      '{"data.label_noise": "0"}}', '{}, "test": "train"}'
    )
  )
  noisy, clean = plan(file, data_dir)
  assert (noisy.test, clean.test) == (None, "train")
  given = []

  def note(functions: Any, images: Any, config: Any, test: Any) -> None:
    given.append(test)
    raise KeyboardInterrupt

  monkeypatch.setattr(runs, "Measures", note)
  for arm in (noisy, clean):
    with pytest.raises(KeyboardInterrupt):
      run_study([arm], tmp_path / arm.name)
  assert given[0] is None
  assert len(given[1]) == 1437  # digits' own training split


def test_probes_have_as_many_examples_as_asked_for(
  file: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  """Or it is refused, before any network trains."""
  sizes = []

  def note(_: Any, measures: Any, *rest: Any) -> Outcome:
    sizes.extend(len(labels) for _, labels in measures._probes.values())
    raise KeyboardInterrupt

  monkeypatch.setattr(runs, "run_network", note)
  where = [f"--config.data.dir={data_dir}"]
  key = "--config.forgetting.per_class"

  def run(*extra: str) -> None:
    run_study(plan_study(file, [*where, *extra], []), tmp_path / "out")

  allowed = r"allowed: .*'noisy'.*class \d has \d+ examples"
  with pytest.raises(ConfigError, match=rf"per_class=40 .*\n.*{allowed}"):
    run()
  with pytest.raises(KeyboardInterrupt):
    run(f"{key}=5")
  assert sizes == [50, 50, 50]
  with pytest.raises(ConfigError, match=r"per_class=4 .*\n.*allowed: 5, as in"):
    run(f"{key}=4")


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("forgetting.repeats=3", r"forgetting\.repeats='3'.*\n.*no value"),
    ("sharpness.rho=0.1", r"sharpness\.rho='0\.1'.*\n.*no value"),
    ("perturbation.name=friendly_sam", r"'friendly_sam'.*\n.*'sam' or 'asam'"),
    ("ascent.lam=0.3", r"ascent\.lam=0\.3.*\n.*None in a study"),
    ("perturbation.steps=2", r"perturbation\.steps=2.*\n.*1 in a study"),
    ("perturbation.layers=norm", r"layers='norm'.*\n.*'all' in a study"),
    ("method.name=gam", r"method\.name='gam'.*\n.*'perturbed_gradient'"),
  ],
)
def test_keys_that_a_study_does_not_read_are_refused(
  file: str, override: str, message: str
):
  with pytest.raises(ConfigError, match=message):
    plan_study(file, [f"--config.{override}"], [])


@pytest.mark.parametrize(
  ("changed", "grid"),
  [
    ("loss.name", "loss.name=softmax_cross_entropy,sigmoid_cross_entropy"),
    ("model.activation", "model.activation=relu,gelu"),
    ("ascent.activation", "ascent.activation=sigmoid,softmax"),
  ],
)
def test_networks_of_several_kinds_are_refused(
  changed: str, grid: str, file: str
):
  path = Path(file)
  grids = path.read_text().replace('"obf": "', f'"obf": "{grid};')
  path.write_text(grids)
  with pytest.raises(ConfigError, match=rf"{changed}=.*\n.*other networks"):
    plan_study(file, [], [])


@pytest.mark.parametrize(
  "declared",
  [
    *("3", "{}", "{'arms': {}, 'grids': {}}"),
    "{'arms': {'a': {'seeds': 'x', 'changes': {}}}, 'grids': {'sam': 'a=1'}}",
  ],
)
def test_a_study_of_another_form_is_refused(declared: str, tmp_path: Path):
  path = tmp_path / "mine.py"
  path.write_text(f"STUDY = {declared}\n")
  with pytest.raises(
    ConfigError, match=r"--config=.*\n.*arms, each with seeds"
  ):
    plan_study(str(path), [], [])


def test_models_with_statistics_are_refused(
  file: str, data_dir: Path, tmp_path: Path
):
  cnn = ["--config.model.name=cnn", "--config.model.hidden=none"]
  with pytest.raises(ConfigError, match=r"model\.name='cnn'.*\n.*BatchNorm"):
    run_study(
      plan_study(file, [f"--config.data.dir={data_dir}", *cnn], []), tmp_path
    )


def test_a_network_that_diverges_has_no_measures(file: str, data_dir: Path):
  (arm,) = plan_study(
    file,
    [f"--config.data.dir={data_dir}", "--config.optimizer.learning_rate=1e25"],
    ["clean"],
  )
  outcome = run_network(Runner(), MadeUpMeasures(), arm.trials[0], 0)
  assert outcome.diverged_at is not None
  assert outcome.metrics == {}


def test_a_study_goes_on_where_it_stopped(
  file: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  ran = []

  def made_up(runner: Any, measures: Any, trial: Any, seed: int) -> Outcome:
    if len(ran) == 3:
      raise KeyboardInterrupt
    ran.append((trial.folder, seed))
    metrics = {f"{s}/{m}": 0.5 for s in ("test", "validation")
               for m in ("accuracy", "loss")}  # fmt: skip
    return Outcome(
      metrics | {"train_accuracy": 0.75, "test_accuracy": 0.5}, None, 2.0, None
    )

  monkeypatch.setattr(runs, "run_network", made_up)
  monkeypatch.setattr(runs, "Measures", MadeUpMeasures)
  arms = plan(file, data_dir)
  with pytest.raises(KeyboardInterrupt):
    run_study(arms, tmp_path / "out")
  first, ran[:] = list(ran), []
  monkeypatch.setattr(runs, "run_network", lambda *a: made_up(*a))
  for _ in range(3):
    try:
      run_study(arms, tmp_path / "out")
    except KeyboardInterrupt:
      first, ran[:] = first + ran, []
  first += ran
  assert len(first) == len(set(first)) + 4  # clean repeats noisy's seed 0
  networks = collect_networks(arms, tmp_path / "out")
  assert len(networks["arm"]) == len(first) == 12


def test_the_table_holds_settings_and_measures(
  file: str, data_dir: Path, tmp_path: Path
):
  arms = plan(file, data_dir)
  record = {
    "train_accuracy": 0.75, "own_length": 0.2, "test_accuracy": 0.5,
    "test_loss": 1.5, "validation/accuracy": 0.4, "validation/ece": 0.1,
  }  # fmt: skip
  for arm in arms:
    records = Records(tmp_path / "out" / arm.name, "report")
    for trial, seed in arm.runs()[1:]:  # the first has none
      diverged = 3 if trial is arm.trials[1] else None
      outcome = Outcome({} if diverged else record, diverged, 2.0, None)
      records.add(trial, trial.with_seed(seed), outcome)
  write_networks(
    tmp_path / "n.parquet", collect_networks(arms, tmp_path / "out")
  )
  rows = read_networks(tmp_path / "n.parquet")
  assert len(rows["arm"]) == 10
  obf = rows["method"] == "obf"
  assert sorted(set(rows["gamma"][obf])) == [0.0, 1.0]
  assert np.isnan(rows["gamma"][~obf]).all()
  assert set(rows["rho"][~obf]) == {0.0}
  assert set(rows["rho"][obf]) == {0.2}
  assert set(rows["m"][obf]) == {8}
  assert set(rows["m"][~obf]) == {64}
  assert set(rows["epochs"]) == {2}
  lost = rows["diverged"].astype(bool)
  assert lost.sum() == 3
  assert np.isnan(rows["own_length"][lost]).all()
  assert rows["accuracy_gap"][~lost] == pytest.approx(0.25)
  assert rows["held_out_accuracy"][~lost] == pytest.approx(0.4)
  assert "validation/ece" not in rows
  same = rows["setting"][obf & (rows["arm"] == "noisy")]
  assert len(same) == 4
  assert len(set(same)) == 2


def test_a_record_can_be_read_back(file: str, data_dir: Path, tmp_path: Path):
  (arm,) = plan(file, data_dir, "clean")
  records = Records(tmp_path / "out", "report")
  trial = arm.trials[0]
  records.add(trial, trial.with_seed(0), Outcome({"a": 1.0}, None, 2.0, None))
  assert records.find(trial, 0) == Record({"a": 1.0}, None, 2.0)


def test_the_job_runs_and_reports(
  file: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  asked = []
  monkeypatch.setattr(
    "forgetsam.studies.correlation.job.run_study", lambda *a: asked.append(a)
  )
  monkeypatch.setattr(
    "forgetsam.studies.correlation.job.write_study", lambda *a: asked.append(a)
  )
  arguments = ["--job=study", f"--config={file}", f"--workdir={tmp_path}"]
  arguments += ["--arms=clean", f"--config.data.dir={data_dir}"]
  run_job(parse_command_line(arguments, JOBS), 0.0)
  assert len(asked) == 2
  for arms, workdir in asked:
    assert [arm.name for arm in arms] == ["clean"]
    assert arms[0].trials[0].config.data.dir == str(data_dir)
    assert workdir == tmp_path
