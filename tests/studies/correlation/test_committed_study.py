"""The study that the repository reports is the one in its table."""

from pathlib import Path

import numpy as np
import pytest

from forgetsam.studies.correlation import (
  AXES,
  Networks,
  Query,
  associate,
  choose,
  label,
  read_networks,
)
from forgetsam.studies.correlation._names import GIVEN, MEASURES, TARGETS

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docs" / "study"


@pytest.fixture(scope="module")
def noisy() -> Networks:
  networks = read_networks(FOLDER / "networks.parquet")
  return choose(
    networks, (networks["arm"] == "noisy") & ~networks["diverged"].astype(bool)
  )


def test_the_table_is_complete(noisy: Networks):
  assert len(noisy["seed"]) >= 150
  for name in (*MEASURES, *TARGETS):
    assert np.isfinite(noisy[name]).all(), name
  assert set(AXES) <= set(noisy)


def test_the_folder_stays_small():
  size = sum(path.stat().st_size for path in FOLDER.rglob("*"))
  assert size < 2 * 2**20


@pytest.mark.parametrize(
  "measure",
  [
    "obf_probe_conditional_held_out",
    "obf_probe_conditional_train",
    "sam_probe_conditional_train",
    "information_conditional_held_out",
    "lambda_max",
    "m_sharpness_adaptive",
    "train_loss",
  ],
)
def test_the_page_shows_the_tables_numbers(measure: str, noisy: Networks):
  """The rows of the page's table are what this makes of the networks."""
  given = tuple(name for name in GIVEN if name != measure)
  queries = [
    Query(measure, "test_accuracy"),
    Query(measure, "test_accuracy", given),
  ]
  alone, controlled = associate(noisy, queries, resamples=2)
  cells = (
    label(measure).replace("|", r"\|"),
    f"{alone.value:+.2f}",
    f"{controlled.value:+.2f}" if given == GIVEN else "",
  )
  page = (FOLDER / "README.md").read_text(encoding="utf-8")
  assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in page
