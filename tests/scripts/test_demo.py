"""The demo trains, measures what it says, and reads well on a terminal."""

import csv
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from forgetsam import data
from forgetsam.experiment.build import build_data, build_experiment
from forgetsam.experiment.config import load_config_file
from forgetsam.experiment.sweep import Runner
from scripts import demo
from scripts.demo_report import Curves, Point, best_on_validation, results

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
import sys
sys.path.insert(0, {root!r})
from configs import noisy_digits

def get_config(variant):
  config = noisy_digits.get_config(variant)
  config.epochs, config.model.hidden = 4, (8,)
  config.micro_batch_size = 64
  config.data.dir = {data_dir!r}
  return config
"""


@pytest.fixture(scope="module")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp("demo")
  file = folder / "tiny.py"
  file.write_text(RECIPE.format(root=str(ROOT), data_dir=str(folder / "sets")))
  return file


@pytest.fixture(autouse=True)
def _one_device(monkeypatch: pytest.MonkeyPatch) -> None:
  """Eight would take as much longer to compile, and show nothing more."""
  monkeypatch.setattr(jax, "local_device_count", lambda: 1)


def test_trains_and_ends_with_a_picture_and_commands(
  tiny_recipe: Path,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setattr(demo, "FILE", str(tiny_recipe))
  methods = {name: demo.METHODS[name] for name in ("plain, no decay", "plain")}
  monkeypatch.setattr(demo, "METHODS", methods)
  workdir = tmp_path / "run"
  demo.main([f"--workdir={workdir}"])
  rows = (workdir / "curves.csv").read_text().splitlines()
  assert len(rows) == 1 + 2 * (4 + 1)
  assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
  printed = capsys.readouterr()
  assert (workdir / "results.md").read_text() in printed.out
  assert printed.out.count("main.py --") == 3
  longest = max(printed.out.replace(str(tiny_recipe), "F").split("\n"), key=len)
  assert len(longest.replace(str(workdir), "W")) < 80
  assert not printed.err


def test_memorised_is_about_the_wrong_labels_alone(
  tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
):
  """A network that gives every image class 3 has those that are called 3."""
  monkeypatch.setattr(demo, "FILE", str(tiny_recipe))
  config = demo.config_of("plain", 5)
  noisy = build_data(config)
  state = build_experiment(config).create_state()
  zeros = {
    name: np.zeros_like(x) for name, x in flatten_dict(state.params).items()
  }
  (bias,) = (name for name, x in zeros.items() if x.shape == (10,))
  zeros[bias][3] = 1.0
  params = unflatten_dict(zeros)
  state = dataclasses.replace(state, params=params)
  point = demo.scorer(config, Runner())(0, state)
  clean = data.load(
    "digits",
    data_dir=config.data.dir,
    validation=config.data.validation,
    split_seed=5,
  )
  wrong = noisy.train.labels != clean.train.labels
  assert wrong.mean() == pytest.approx(0.4, abs=1e-3)
  assert point.memorised == pytest.approx(
    np.mean(noisy.train.labels[wrong] == 3)
  )
  assert point.test_accuracy == pytest.approx(np.mean(clean.test.labels == 3))
  assert clean.validation is not None
  assert point.validation_accuracy == pytest.approx(
    np.mean(clean.validation.labels == 3)
  )


def test_seeds_draw_the_data_anew_and_methods_share_it():
  first, other = demo.config_of("sam", 1), demo.config_of("obf", 1)
  assert first.data == other.data
  assert first.data != demo.config_of("sam", 2).data
  no_decay = demo.config_of("plain, no decay", 1)
  assert no_decay.optimizer.weight_decay == 0
  assert demo.config_of("plain", 1).optimizer.weight_decay > 0


def test_differences_are_paired_over_seeds():
  def run(accuracy: float) -> list[Point]:
    return [Point(0, 0.9, 0.8, 1.0, 0.1), Point(1, 0.7, accuracy, 2.0, 0.5)]

  curves: Curves = {
    "plain": [run(0.1), run(0.5)],
    "obf": [run(0.3), run(0.7)],
  }
  assert best_on_validation(curves["plain"][0]).epoch == 0
  table = results(curves)
  assert "+0.2000 [+0.2000, +0.2000]" in table
  assert "0.3000 ± 0.2000" in table
  assert "minus plain" not in results({k: r[:1] for k, r in curves.items()})


def test_page_has_the_table_of_its_curves():
  curves: dict[str, dict[str, list[Point]]] = {}
  with (ROOT / "docs/demo/curves.csv").open() as file:
    for row in csv.DictReader(file):
      runs = curves.setdefault(row["method"], {})
      numbers = (float(row[name]) for name in Point._fields[1:])
      runs.setdefault(row["seed"], []).append(
        Point(int(row["epoch"]), *numbers)
      )
  table = results({name: list(runs.values()) for name, runs in curves.items()})
  assert table in (ROOT / "docs/demo.md").read_text()


def test_recipe_has_the_settings_that_tuning_chose():
  """Those that docs/demo/best.json records, on the same data."""
  best = json.loads((ROOT / "docs/demo/best.json").read_text())
  for variant, choice in best.items():
    config = load_config_file(f"{ROOT}/configs/noisy_digits.py:{variant}")
    found = flatten_dict(config.to_dict(), sep=".")
    assert {key: found[key] for key in choice["overrides"]} == choice[
      "overrides"
    ]
    assert choice["settings"] == 24
