"""Accuracies of the groups that a set names, and the worst of them."""

import json
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from meshes import data_mesh
from tiny_runs import tiny

import forgetsam as fs
import main
from forgetsam import data
from forgetsam.experiment.evaluation import evaluate

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(11, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, 11)
GROUPS = np.array([0, 1, 1, 3, 0, 1, 3, 3, 3, 0, 1])


def forward(params: Any, state: Any, x: Any, *, train: bool, key: Any) -> Any:
  return x, state


@pytest.mark.parametrize("devices", [None, 4])
def test_each_group_counts_its_own_examples(devices: int | None):
  images = data.from_arrays(
    {"x_train": LOGITS, "y_train": LABELS, "x_test": LOGITS, "y_test": LABELS}
    | {"group_test": GROUPS}
  )
  mesh = None if devices is None else data_mesh(devices)
  batches = data.eval_batches(images.test, batch_size=8, groups=True)
  found = evaluate(fs.make_eval_step(forward, mesh=mesh), {}, {}, batches)
  right = LOGITS.argmax(axis=1) == LABELS
  expected = {str(g): right[g == GROUPS].mean() for g in (0, 1, 3)}
  got = {
    k.removeprefix("group_accuracy/"): v
    for k, v in found.items()
    if k.startswith("group_accuracy/")
  }
  assert got == pytest.approx(expected)  # the third group has no example
  assert found["worst_group_accuracy"] == pytest.approx(min(expected.values()))
  held = images.train.take(np.array([2, 0]))
  assert not held.groups


def test_positions_belong_to_their_examples_group_where_they_count():
  batch = {
    "image": jnp.zeros((3, 2, 3)).at[..., 0].set(1),
    "label": np.array([[0, 0], [1, 0], [0, 0]]),
    "group/a": np.array([0, 1, 1]),
    "mask": np.array([1.0, 1.0, 0.0]),
  }
  found = evaluate(fs.make_eval_step(forward), {}, {}, [batch])
  assert found["group_accuracy/a"] == found["worst_group_accuracy"] == 0.5


def test_marks_of_another_size_and_groups_below_zero_are_refused():
  batch = {"image": LOGITS, "label": LABELS, "group/a": np.ones(3)}
  with pytest.raises(
    ValueError, match=r'batch\["group/a"\] has the shape \(3,'
  ):
    fs.make_eval_step(forward)({}, {}, batch)
  with pytest.raises(ValueError, match=r"'train' has groups of int32 \[11\]"):
    data.from_arrays({"x": LOGITS, "y": LABELS, "group": GROUPS - 1})


@pytest.fixture(scope="module")
def run(
  tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> tuple[Path, dict[str, Any]]:
  workdir = tmp_path_factory.mktemp("groups") / "run"
  arguments = tiny(workdir, data_dir, "--config.data.name=biased_digits")
  assert main.run(arguments, time.monotonic()) == 0
  return workdir, json.loads((workdir / "summary.json").read_text())


def test_a_biased_run_scores_agreeing_and_conflicting_places(
  run: tuple[Path, dict[str, Any]], data_dir: Path
):
  import tensorflow_datasets as tfds

  workdir, summary = run
  test = tfds.load(
    "biased_digits", split="test", data_dir=data_dir, batch_size=-1
  )
  test = tfds.as_numpy(test)
  model, variables, config = fs.load_run(workdir, "last")
  images = (test["image"] / np.float32(255) - config.data.mean[0]) / (
    config.data.std[0]
  )
  logits = model.apply(variables, images.astype(np.float32), train=False)
  right = np.argmax(logits, axis=-1) == test["label"]
  agree = test["place"] == test["label"]
  expected = {"agree": right[agree].mean(), "conflict": right[~agree].mean()}
  for name, value in expected.items():
    assert summary[f"test/group_accuracy/{name}"] == pytest.approx(value)
  worst = min(expected.values())
  assert summary["test/worst_group_accuracy"] == pytest.approx(worst)
  assert {
    "validation/worst_group_accuracy",
    "best/test/group_accuracy/agree",
  } <= {*summary}


def test_only_what_scores_groups_is_given_them(data_dir: Path):
  images = data.load("biased_digits", data_dir=data_dir)
  source = data.in_memory(images).test
  for asked, names in (
    (False, set()),
    (True, {"group/agree", "group/conflict"}),
  ):
    (batch,) = source.eval_batches(batch_size=512, groups=asked)
    assert {*batch} - {"image", "label", "mask"} == names
  (batch,) = data.first_batches(source, 5, batch_size=512)
  assert {*batch} == {
    "image",
    "label",
    "mask",
  }  # what measures loss refuses more


def test_evaluate_streams_a_splits_groups(
  run: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
):
  workdir, summary = run
  sets = "--config.evaluation.sets=biased_digits@test,biased_digits@test_agree"
  arguments = ["--job=evaluate", f"--workdir={workdir}", sets]
  assert main.run(arguments, time.monotonic()) == 0
  found = json.loads((workdir / "evaluation.json").read_text())
  for name in ("group_accuracy/conflict", "worst_group_accuracy"):
    assert found[f"last/biased_digits@test/{name}"] == pytest.approx(
      summary[f"test/{name}"]
    )
  assert "biased_digits@test: " in capsys.readouterr().out
  only = {
    k for k in found if k.startswith("last/biased_digits@test_agree/group")
  }
  assert only == {"last/biased_digits@test_agree/group_accuracy/agree"}
