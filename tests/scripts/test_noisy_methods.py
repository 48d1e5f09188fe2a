"""The tables of an arm of docs/noisy_cifar10, from made-up runs."""

import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from forgetsam.experiment.tables import csv_text
from scripts import noisy_methods
from scripts.corrupted_cifar10 import CORRUPTIONS

FROST = [*CORRUPTIONS].index("frost")


def report(
  runs: Path, folder: str, accuracies: Mapping[str, Sequence[float | None]]
) -> None:
  """A sweep's runs.csv; frost is at 0.2 and the other corruptions at 0.5."""
  groups = {
    f"last//a/corrupted.npz/group_accuracy/{5 * i + severity}": (
      0.2 if i == FROST else 0.5
    )
    for i in range(len(CORRUPTIONS))
    for severity in range(5)
  }
  header = ["variant", "seed", "diverged_at", "seconds", "test/accuracy"]
  header += ["test/loss", "test/ece", "best/test/accuracy", "best/test/loss"]
  rows = []
  for variant, values in accuracies.items():
    for seed, accuracy in enumerate(values, start=5):
      if accuracy is None:
        rows.append([variant, seed, 3, 1.0, *[None] * (5 + len(groups))])
        continue
      scores = (accuracy, 1 - accuracy, 0.1, accuracy + 0.1, 0.5)
      rows.append([variant, seed, None, 1.0, *scores, *groups.values()])
  (runs / "report" / folder).mkdir(parents=True)
  path = runs / "report" / folder / "runs.csv"
  path.write_text(csv_text([*header, *groups], rows))


def made(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  docs = runs / "docs"
  docs.mkdir()
  arguments = ["noisy_methods", str(runs), "cnn", str(docs)]
  monkeypatch.setattr(sys, "argv", arguments)
  noisy_methods.main()
  return docs


def cells(path: Path) -> dict[str, list[str]]:
  lines = path.read_text().splitlines()
  rows = [line.strip("|").split("|") for line in lines]
  return {name.strip(): [*map(str.strip, row)] for name, *row in rows}


def test_claims_are_paired_tests_with_holms_correction(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  plain, sam, obf = (0.36, 0.38, 0.37), (0.44, 0.45, 0.46), (0.45, 0.46, 0.46)
  report(tmp_path, "cnn", {"plain": plain, "sam": sam, "obf": obf})
  report(tmp_path, "cnn_configured", {"plain": (0.34, 0.35, 0.36)})
  found = cells(made(tmp_path, monkeypatch) / "hypotheses.md")
  best = np.add(plain, 0.1)
  single = {
    "sam - plain": scipy.stats.ttest_rel(sam, plain).pvalue,
    "sam - best checkpoint of plain": scipy.stats.ttest_rel(sam, best).pvalue,
    "obf - plain": scipy.stats.ttest_rel(obf, plain).pvalue,
    "obf - best checkpoint of plain": scipy.stats.ttest_rel(obf, best).pvalue,
    "obf - sam": scipy.stats.ttest_rel(obf, sam).pvalue,
  }
  smallest = min(single, key=lambda name: single[name])
  assert set(single) == {
    name for name, row in found.items() if row[0] in ("1", "2")
  }
  assert float(found[smallest][2]) == pytest.approx(
    len(single) * single[smallest], rel=0.05
  )
  assert found["sam - plain"][1].startswith("+8.0 [")
  assert found["sam - plain_configured"][0] == ""
  assert found["sam - plain_configured"][1].startswith("+10.0 ")


def test_corruptions_are_averaged_with_frost_and_without(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  report(tmp_path, "cnn", {"plain": (0.3, 0.4), "sam": (0.4, 0.5)})
  docs = made(tmp_path, monkeypatch)
  with (docs / "runs.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 4
  for row in rows:
    assert not any("corrupted.npz" in column for column in row)
    assert float(row["corruption_error_without_frost"]) == pytest.approx(0.5)
    assert float(row["corruption_error"]) == pytest.approx(0.52)


def test_a_diverged_run_leaves_no_mean_and_no_test(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  runs = {"plain": (0.3, 0.4), "sam": (0.4, None), "obf": (0.5, 0.55)}
  report(tmp_path, "cnn", runs)
  docs = made(tmp_path, monkeypatch)
  assert not any("sam" in name for name in cells(docs / "hypotheses.md"))
  assert "diverged" in (docs / "comparison.md").read_text()


def test_what_is_not_finished_is_refused(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  with pytest.raises(SystemExit, match="run report_cnn first"):
    made(tmp_path, monkeypatch)
  report(tmp_path, "cnn", {"plain": (0.3, 0.4), "sam": (0.4,)})
  (tmp_path / "docs").rmdir()
  with pytest.raises(SystemExit, match=r"\['sam'\].*finish the report"):
    made(tmp_path, monkeypatch)


def test_later_methods_join_the_earlier(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  report(tmp_path, "cnn", {"plain": (0.36, 0.38), "sam": (0.44, 0.45)})
  report(tmp_path, "cnn_more", {"gsam": (0.42, 0.4), "gsam_obf": (0.43, 0.44)})
  found = cells(made(tmp_path, monkeypatch) / "hypotheses.md")
  assert found["gsam_obf - gsam"][0] == "3"
  assert found["gsam_obf - gsam"][1].startswith("+2.5 [")
  assert "sam - plain" in found


@pytest.mark.parametrize(
  ("arm", "seeds"), [("cnn", 10), ("clean", 8), ("vit", 8), ("vit_decay", 8)]
)
def test_the_committed_tables_are_those_of_the_committed_runs(
  arm: str, seeds: int, tmp_path: Path
):
  docs = Path(__file__).resolve().parents[2] / "docs/noisy_cifar10" / arm
  runs = tmp_path / "report" / arm
  runs.mkdir(parents=True)
  shutil.copy(docs / "runs.csv", runs)
  found = noisy_methods.read_runs(tmp_path, arm)
  assert {len(several) for several in found.values()} == {seeds}
  noisy_methods.write(tmp_path, arm, tmp_path)
  for name in ("runs.csv", "comparison.md", "comparison.csv", "hypotheses.md"):
    assert (tmp_path / name).read_text() == (docs / name).read_text(), name
