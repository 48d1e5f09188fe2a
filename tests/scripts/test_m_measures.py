"""The table and the picture of measures along m, from made-up networks."""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetsam.studies.correlation import write_networks
from scripts import m_measures


def network(method: str, m: int, **changed: Any) -> dict[str, Any]:
  row: dict[str, Any] = dict.fromkeys(m_measures.MEASURES, 0.5)
  return row | {"method": f"{method}_m{m}", "m": m, "diverged": False} | changed


def columns(*networks: dict[str, Any]) -> dict[str, np.ndarray]:
  return {key: np.array([n[key] for n in networks]) for key in networks[0]}


NETWORKS = columns(
  network("gamma0", 8, lambda_max=1.0),
  network("gamma0", 8, lambda_max=3.0),
  network("gamma0", 8, lambda_max=9.0, diverged=True),
  network("gamma1", 2),
  network("plain", 128),
  network("sam", 1),
  network("sam", 128, lambda_max=7.0),
)


def test_means_of_seeds_that_ended():
  found = {(x.method, x.m, x.name): x for x in m_measures.measures(NETWORKS)}
  methods = [(method, m) for method, m, name in found if name == "trace"]
  assert methods == [
    ("plain", 128),
    ("sam", 1),
    ("sam", 128),
    ("gamma0", 8),
    ("gamma1", 2),
  ]
  largest = found["gamma0", 8, "lambda_max"]
  assert (largest.runs, *largest.mean) == (2, 2.0, pytest.approx(1.0))
  assert found["sam", 128, "lambda_max"].mean.mean == 7.0


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  write_networks(tmp_path / "networks.parquet", NETWORKS)
  arguments = ["m_measures", str(tmp_path), str(tmp_path)]
  monkeypatch.setattr(sys, "argv", arguments)
  m_measures.main()
  with (tmp_path / "measures.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 5 * len(m_measures.MEASURES)
  assert (tmp_path / "measures.png").stat().st_size > 10_000


def test_a_folder_without_networks_is_refused(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(sys, "argv", ["m_measures", str(tmp_path), str(tmp_path)])
  with pytest.raises(SystemExit, match="no networks"):
    m_measures.main()


def test_networks_of_another_study_are_refused():
  with pytest.raises(ValueError, match="'gsam' is no method"):
    m_measures.measures(columns(network("gsam", 128)))
