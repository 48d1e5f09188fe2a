"""Fixtures that the tests of the study share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder of the session's own, in which the digits are built once."""
  return tmp_path_factory.mktemp("tfds")


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
  """Trains on one device, for which compiling takes less time."""
  monkeypatch.setattr(
    "forgetsam.experiment.build._experiment.build_mesh", lambda config: None
  )
