"""The study that the repository reports is the one in its table."""

import re
from pathlib import Path

import numpy as np
import pytest

from forgetsam.studies.correlation import (
  AXES,
  Networks,
  Query,
  associate,
  choose,
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


@pytest.mark.parametrize("file", ["README.md", "docs/study/README.md"])
def test_prose_quotes_the_tables_numbers(file: str, noisy: Networks):
  """Numbers after a column's name in a comment: `<!-- NAME|given -->`."""
  text = (ROOT / file).read_text(encoding="utf-8")
  quoted = re.findall(r"(\S+)<!-- (\w+)\|(alone|given) -->", text)
  assert len(quoted) >= 3
  for number, name, controls in quoted:
    given = GIVEN if controls == "given" else ()
    query = Query(name, "test_accuracy", given)
    (found,) = associate(noisy, [query], resamples=2)
    value = float(re.sub(r"[^-+.\d]", "", number).rstrip("."))
    assert value == pytest.approx(found.value, abs=0.0051), (name, controls)
