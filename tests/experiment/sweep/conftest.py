"""What the tests of sweeps share."""

from pathlib import Path

import pytest
from sweep_runs import MadeUpRunner


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder of the session's own, in which the digits are built once."""
  return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def made_up_runs(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpRunner]:
  """Sweeps whose runs take no time; returns what they were asked for."""

  class Fresh(MadeUpRunner):
    asked = []  # noqa: RUF012

  monkeypatch.setattr("forgetsam.experiment.jobs.sweep.Runner", Fresh)
  return Fresh
