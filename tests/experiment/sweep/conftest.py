"""Fixtures that the tests of sweeps share."""

import pytest
from sweep_runs import MadeUpRunner


@pytest.fixture
def made_up_runs(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpRunner]:
  """Sweeps whose runs take no time; returns what they were asked for."""

  class Fresh(MadeUpRunner):
    asked = []  # noqa: RUF012

  monkeypatch.setattr("forgetsam.experiment.jobs.sweep.Runner", Fresh)
  return Fresh
