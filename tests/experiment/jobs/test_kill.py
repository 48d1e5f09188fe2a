"""Runs killed with SIGKILL end as if never killed; see tests/soak.py."""

from pathlib import Path

import pytest
from soak import PLACES, soak


@pytest.mark.slow
def test_killed_runs_end_with_the_same_parameters(tmp_path: Path):
  # Once before the first step, once between steps, once in a save.
  counts = soak(kills=3, seed=0, work=tmp_path, skips=False, epochs=12)
  assert counts["save"] >= 1
  assert sum(counts.values()) == 3


@pytest.mark.long
@pytest.mark.parametrize("skips", [False, True])
def test_runs_killed_many_times(skips: bool, tmp_path: Path):
  counts = soak(kills=12, seed=1, work=tmp_path, skips=skips)
  assert all(counts.get(place) for place in PLACES)
