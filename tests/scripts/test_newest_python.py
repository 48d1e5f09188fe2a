"""Which Python `make test-newest` takes."""

import sys
from pathlib import Path

import pytest

from scripts import newest_python


def stub(path: Path, says: str) -> Path:
  """A program in a Python's place, which answers for its version."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f"#!/bin/sh\n{says}\n")
  path.chmod(0o755)
  return path


def test_released_pythons_newest_first(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setenv("PATH", str(tmp_path))
  monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
  versions = tmp_path / "pyenv" / "versions"
  stub(tmp_path / "python3.11", "echo 3.11.7.final")
  on_path = stub(tmp_path / "python3.12", "echo 3.12.1.final")
  stub(tmp_path / "python3.14", "exit 127")  # a shim without its Python
  newest = stub(versions / "3.13.0" / "bin" / "python", "echo 3.13.0.final")
  stub(versions / "3.15.0" / "bin" / "python", "echo 3.15.0.candidate")
  stub(versions / "3.14.0t" / "bin" / "python", "echo 3.14.0.final")
  assert newest_python.newer_pythons((3, 11)) == [newest, on_path]
  assert newest_python.newer_pythons((3, 13)) == []


def test_without_a_newer_python_it_says_so_and_passes(
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setenv("PATH", str(tmp_path))
  monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
  assert newest_python.main() == 0
  version = f"{sys.version_info[0]}.{sys.version_info[1]}"
  assert f"no Python newer than {version}" in capsys.readouterr().out
