"""Shared by the tests of experiments: the command line, and tiny runs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny

import main


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder of the session's own, in which the digits are built once."""
  return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def finished(
  tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> tuple[Path, dict[str, Any]]:
  """An undisturbed run of two epochs of five steps, and its summary."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  assert main.run(tiny(workdir, data_dir), time.monotonic()) == 0
  return workdir, json.loads((workdir / "summary.json").read_text())


@pytest.fixture
def arguments(data_dir: Path, tmp_path: Path) -> Callable[..., list[str]]:
  """Builds such arguments for a variant, in the test's own folder."""

  def build(variant: str = "obf", *extra: str) -> list[str]:
    return tiny(tmp_path / "run", data_dir, *extra, variant=variant)

  return build
