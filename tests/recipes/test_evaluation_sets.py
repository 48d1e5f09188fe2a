"""`--job=evaluate` over made-up sets with TFDS's names and features."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_up_sets import make_set

import forgetsam as fs
from forgetsam import data, models
from forgetsam.experiment.config import ConfigError, load_config_file
from forgetsam.experiment.evaluation import ALEXNET_ERRORS
from forgetsam.experiment.jobs.evaluate import _corruption_summary, evaluate_run
from forgetsam.experiment.jobs.train import train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SETS = "imagenet2012,imagenet2012@train[:5],imagenet2012_real,imagenet_r"


@pytest.fixture(scope="module")
def run(
  tmp_path_factory: pytest.TempPathFactory, made_up_dir: Path
) -> tuple[Any, Path]:
  """A ViT after two steps at 64 pixels."""
  make_set(
    made_up_dir,
    "imagenet2012_real",
    {"validation": [[3, 999], [], [7], [0, 1, 2], []]},
    label="real_label",
  )
  make_set(made_up_dir, "imagenet_r", {"test": [1, 2, 4, 6, 8, 9]})
  make_set(
    made_up_dir, "imagenet_v2", {"test": [3, -1]}, config="matched-frequency"
  )
  config = load_config_file(f"{ROOT}/configs/imagenet_vit_s32.py:sam_obf,smoke")
  config.data.dir = str(made_up_dir)
  workdir = tmp_path_factory.mktemp("run")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "local_device_count", lambda: 1)
    train(config, workdir)
  return config, workdir


def evaluated(run: tuple[Any, Path], **changes: Any) -> dict[str, Any]:
  config, workdir = run
  config = config.copy_and_resolve_references()
  config.evaluation.update(changes)
  results = evaluate_run(config, workdir)
  assert json.loads((workdir / "evaluation.json").read_text()) == results
  return results


def logits_of(workdir: Path, source: data.BatchSource) -> Any:
  """Logits and labels of a whole set, outside the job."""
  model, variables, _ = fs.load_run(workdir)
  [batch] = source.eval_batches(batch_size=16)
  logits = model.apply(variables, batch["image"], train=False)
  rows = slice(len(source))
  return np.asarray(logits)[rows], batch["label"][rows], batch["mask"][rows]


def test_each_set_is_scored_by_its_own_rules(
  run: tuple[Any, Path], capsys: pytest.CaptureFixture[str]
):
  results = evaluated(run, sets=SETS)
  config, workdir = run
  options = data.StreamOptions(
    mean=0.5, std=0.5, eval_crop=data.CenterCrop(64, 72)
  )

  def source(name: str, split: str | None = None) -> data.BatchSource:
    return data.stream_split(name, split, options, data_dir=config.data.dir)

  logits, labels, _ = logits_of(workdir, source("imagenet2012"))
  assert results["last/imagenet2012/count"] == 11
  assert results["last/imagenet2012/accuracy"] == pytest.approx(
    np.mean(logits.argmax(1) == labels)
  )
  assert results["last/imagenet2012@train[:5]/count"] == 5

  real = source("imagenet2012_real")
  logits, labels, mask = logits_of(workdir, real)
  right = labels[np.arange(5), logits.argmax(1)] > 0
  assert results["last/imagenet2012_real/count"] == 3
  assert results["last/imagenet2012_real/accuracy"] == pytest.approx(
    right[mask > 0].mean()
  )

  renditions = source("imagenet_r")
  logits, labels, _ = logits_of(workdir, renditions)
  classes = np.asarray(renditions.classes)
  assert results["last/imagenet_r/count"] == 6
  for name, part in [
    ("imagenet_r", classes[logits[:, classes].argmax(1)]),
    ("imagenet_r_all_classes", logits.argmax(1)),
  ]:
    accuracy = results[f"last/{name}/accuracy"]
    assert accuracy == pytest.approx(np.mean(part == labels)), name
  assert results["last/imagenet_r/loss"] < 6  # of 200 classes, not of 1000
  table = capsys.readouterr().out
  assert "| imagenet_r_all_classes" in table
  assert "best" not in table


def test_results_do_not_depend_on_batches_or_devices(
  run: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
):
  results = [evaluated(run, sets=SETS, batch_size=b) for b in (3, 16)]
  monkeypatch.undo()
  monkeypatch.setattr(jax, "local_device_count", lambda: 8)
  config, workdir = run
  again = config.copy_and_resolve_references()
  again.batch_size, again.micro_batch_size = 8, 1
  monkeypatch.setattr(
    "forgetsam.experiment.jobs.evaluate.check_saved", lambda *_: None
  )
  results.append(evaluated((again, workdir), sets=SETS, batch_size=16))
  for other in results[1:]:
    assert other.keys() == results[0].keys()
    for key, value in other.items():
      assert value == pytest.approx(results[0][key], rel=1e-5), key


def test_another_image_size_interpolates_positions(run: tuple[Any, Path]):
  small = evaluated(run, sets="imagenet2012")
  large = evaluated(
    run, sets="imagenet2012", job_image_size=96, job_short_side=100
  )
  assert large["last/imagenet2012/count"] == 11
  assert large["last/imagenet2012/loss"] != small["last/imagenet2012/loss"]


def test_without_a_list_the_runs_own_splits_are_scored(run: tuple[Any, Path]):
  results = evaluated(run, sets="")
  summary = json.loads((run[1] / "summary.json").read_text())
  for name in ("loss", "accuracy", "top5_accuracy", "ece", "count"):
    assert results[f"last/test/{name}"] == summary[f"test/{name}"]


@pytest.mark.parametrize(
  ("sets", "said"),
  [
    ("imagenet_sketch", "imagenet_sketch cannot be scored"),
    ("imagenet2012@trian", "no split 'trian'"),
    ("cifar10", "sets with the model's 1000 classes"),
    ("imagenet2012,imagenet2012_corrupted", "not on this machine"),
    ("imagenet2012,imagenet_v2", "imagenet_v2 cannot be scored"),
    ("imagenet2012,imagenet_v2", "example 1 is without a label"),
  ],
)
def test_sets_that_cannot_be_scored_are_refused_before_any_is(
  run: tuple[Any, Path], sets: str, said: str, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr("forgetsam.experiment.jobs.evaluate._score", None)
  with pytest.raises(ConfigError, match=r"config\.evaluation") as refused:
    evaluated(run, sets=sets)
  assert said in str(refused.value)


@pytest.fixture(autouse=True)
def _one_device(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(jax, "local_device_count", lambda: 1)


def test_the_mean_corruption_error_needs_every_set():
  results = {
    name: {"accuracy": 0.9 if kind == "fog" else 0.4}
    for (kind, _), name in data.corrupted_sets("cifar10_corrupted").items()
  }
  summary = _corruption_summary(results)
  assert summary["cifar10_corrupted/mce"] == pytest.approx(
    (14 * 0.6 + 0.1) / 15
  )
  fog = summary["cifar10_corrupted/corruption_error/fog"]
  assert fog == pytest.approx(0.1)
  results.popitem()
  assert _corruption_summary(results) == {}
  against_alexnet = _corruption_summary(
    {
      name: {"accuracy": 1 - ALEXNET_ERRORS[kind] / 2}
      for (kind, _), name in data.corrupted_sets(
        "imagenet2012_corrupted"
      ).items()
    }
  )
  mean = against_alexnet["imagenet2012_corrupted/mce"]
  assert mean == pytest.approx(0.5)


@pytest.mark.long
def test_the_mean_corruption_error_of_cifar(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  """Of a model that calls everything class 0: 1 - the share of zeros."""
  zeros = {}
  for (kind, severity), name in data.corrupted_sets(
    "cifar10_corrupted"
  ).items():
    labels = [0] * severity + [1] * (5 - severity)
    zeros[kind, severity] = severity / 5
    make_set(
      tmp_path, "cifar10_corrupted", {"test": labels}, config=name.split("/")[1]
    )
  config = load_config_file(f"{ROOT}/configs/cifar10_resnet18.py:plain,smoke")
  config.model = {"name": "mlp", "hidden": (4,), "head_bias": 0.0}
  make_set(tmp_path, "cifar10", {"train": [0] * 40, "test": [0] * 8})
  config.data.dir = str(tmp_path)
  workdir = tmp_path / "run"

  def constant(module: Any, key: Any, image_shape: Any) -> Any:
    params, state = initialise(module, key, image_shape)
    params = jax.tree.map(jnp.zeros_like, params)
    return params, state

  initialise = models.initialise
  monkeypatch.setattr(models, "initialise", constant)
  config.optimizer.learning_rate = 1e-30
  config.schedule.min_learning_rate = 0.0
  train(config, workdir)
  monkeypatch.setattr(models, "initialise", initialise)
  config.evaluation.sets = "cifar10_corrupted"
  results = evaluate_run(config, workdir)
  assert results["last/cifar10_corrupted/mce"] == pytest.approx(
    1 - np.mean(list(zeros.values()))
  )
  assert results["last/cifar10_corrupted/fog_3/accuracy"] == pytest.approx(0.6)
