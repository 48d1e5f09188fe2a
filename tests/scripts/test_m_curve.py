"""The tables of accuracy along m, from made-up runs."""

import csv
import json
import sys
from pathlib import Path

import pytest

from forgetsam.studies.correlation import plan_study
from scripts import m_curve

ROOT = Path(__file__).resolve().parents[2]


def tuned(runs: Path, folder: str, **setting: float) -> None:
  best = {
    "overrides": {k.replace("__", "."): v for k, v in setting.items()},
    "validation/accuracy": 0.8,
    "standard_error": 0.01,
  }
  place = runs / "tune/m" / folder
  place.mkdir(parents=True)
  (place / "best.json").write_text(json.dumps({"any": best}))
  (place / "tuning").mkdir()
  (place / "tuning/any.csv").write_text("seed,validation/accuracy\n0,0.8\n")


def scored(runs: Path, folder: str, *accuracies: float | None) -> None:
  place = runs / "report/m" / folder
  place.mkdir(parents=True)
  with (place / "runs.csv").open("w") as file:
    rows = csv.writer(file)
    rows.writerow(["seed", "diverged_at", "test/accuracy", "test/loss"])
    for seed, accuracy in enumerate(accuracies):
      rows.writerow(
        [seed, *((3, "", "") if accuracy is None else ("", accuracy, 1))]
      )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
  tuned(tmp_path, "plain", optimizer__learning_rate=0.02)
  for m, rho in ((1, 0.05), (128, 0.4)):
    tuned(tmp_path, f"{m}/sam", perturbation__rho=rho)
    tuned(tmp_path, f"{m}/gamma0", perturbation__rho=2 * rho)
  return tmp_path


def along_m(docs: Path) -> dict[tuple[str, str], dict[str, str]]:
  with (docs / "along_m.csv").open() as file:
    rows = [r for r in csv.DictReader(file) if r["score"] == "test/accuracy"]
  return {(row["method"], row["m"]): row for row in rows}


def test_differences_are_paired_with_plain_and_with_the_whole_batch(
  runs: Path, monkeypatch: pytest.MonkeyPatch
):
  scored(runs, "plain", 0.70, 0.72, 0.74)
  scored(runs, "128/sam", 0.72, 0.74, 0.76)
  scored(runs, "1/sam", 0.73, 0.74, 0.78)
  scored(runs, "1/gamma0", 0.7, None, 0.7)
  scored(runs, "1/gamma1", 0.74, 0.75, 0.79)
  docs = runs / "docs"
  docs.mkdir()
  monkeypatch.setattr(sys, "argv", ["m_curve", str(runs), str(docs)])
  m_curve.main()
  found = along_m(docs)
  assert set(found) == {
    ("plain", "128"),
    *((n, "1") for n in ("sam", "gamma1")),
    ("sam", "128"),
  }
  assert found["plain", "128"]["minus_plain"] == ""
  assert found["sam", "128"]["minus_whole"] == ""
  assert found["sam", "1"]["minus_sam"] == ""
  assert float(found["gamma1", "1"]["minus_sam"]) == pytest.approx(0.01)
  one = found["sam", "1"]
  assert float(one["minus_plain"]) == pytest.approx(0.03)
  assert float(one["minus_whole"]) == pytest.approx(0.01)
  # 0.01, 0 and 0.02: their error is 0.01 / sqrt(3), t is 4.302653.
  low = 0.01 - 4.302653 * 0.01 / 3**0.5
  assert float(one["minus_whole_low"]) == pytest.approx(low)
  assert (
    "| SAM | 1 | 0.7500 ± 0.0153 | +0.0300" in (docs / "along_m.md").read_text()
  )
  assert len((docs / "runs.csv").read_text().splitlines()) == 1 + 15
  assert (docs / "along_m.png").is_file()


def test_choices_stand_before_any_test(runs: Path):
  m_curve.write(runs, runs)
  with (runs / "choices.csv").open() as file:
    rows = {(r["method"], r["m"]): r for r in csv.DictReader(file)}
  assert rows["sam", "1"]["perturbation.rho"] == "0.05"
  assert rows["plain", "128"]["perturbation.rho"] == ""
  assert not (runs / "along_m.csv").exists()
  tuning = (runs / "tuning.csv").read_text().splitlines()
  assert tuning[:2] == ["method,m,seed,validation/accuracy", "plain,128,0,0.8"]
  assert len(tuning) == 1 + 5


def test_runs_that_are_not_there_are_named(tmp_path: Path):
  with pytest.raises(SystemExit, match="run tune_m first"):
    m_curve.write(tmp_path, tmp_path)


def test_the_study_along_m_has_what_was_chosen(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  (arm,) = plan_study(str(ROOT / "configs/noisy_fashion_m.py"), [], [])
  with (ROOT / "docs/noisy_cifar10/m/choices.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert len(arm.trials) == len(rows)
  for trial, row in zip(arm.trials, rows, strict=True):
    config = trial.config
    assert config.optimizer.weight_decay == float(row["optimizer.weight_decay"])
    if row["method"] != "plain":
      assert config.perturbation.rho == float(row["perturbation.rho"])
      assert config.micro_batch_size == int(row["m"])
      assert config.ascent.gamma == (row["method"] == "gamma1")
      assert config.m_sharpness == "factored"
