"""Shared by the tests of experiments: the command line, and tiny runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import tiny


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder of the session's own, in which the digits are built once."""
  return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def arguments(data_dir: Path, tmp_path: Path) -> Callable[..., list[str]]:
  """Builds such arguments for a variant, in the test's own folder."""

  def build(variant: str = "obf", *extra: str) -> list[str]:
    return tiny(tmp_path / "run", data_dir, *extra, variant=variant)

  return build
