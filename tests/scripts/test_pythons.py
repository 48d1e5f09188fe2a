"""Which Pythons `make test-newest` takes, and what it does with them."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import pythons


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
  assert pythons.newer_pythons((3, 11)) == [newest, on_path]
  assert pythons.newer_pythons((3, 13)) == []


def test_without_a_newer_python_it_says_so_and_passes(
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setenv("PATH", str(tmp_path))
  monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
  assert pythons.main() == 0
  version = f"{sys.version_info[0]}.{sys.version_info[1]}"
  assert f"no Python newer than {version}" in capsys.readouterr().out


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
  """Two newer Pythons and an older one; records what is done with each."""
  done: list[str] = []
  current = sys.version_info[:2]
  versions = [(current[0], current[1] + more) for more in (2, 1, 0, -1)]
  at_hand = {version: Path("python") for version in versions}
  monkeypatch.setattr(pythons, "pythons_at_hand", lambda: at_hand)

  def record(what: str, name: str) -> bool:
    done.append(f"{what} {int(name.rpartition('.')[2]) - current[1]}")
    return True

  for function in ("try_core", "install_rest", "run_tests"):
    monkeypatch.setattr(
      *(pythons, function),
      lambda *arguments, more=False, function=function: record(
        function + " of all" * more, arguments[-1].name
      ),
    )
  monkeypatch.setattr(
    pythons, "write_lock", lambda version, venv: record("lock", version)
  )
  return done


WHOLE = ("try_core", "install_rest", "run_tests")
ALL = (*WHOLE[:2], "run_tests of all")


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ([], [*(f"{one} 2" for one in WHOLE), "try_core 1"]),
    (["--all"], [f"{one} {more}" for more in (2, 1) for one in ALL]),
    (
      ["--lock"],
      [f"{one} {more}" for more in (2, 1, 0) for one in (*ALL, "lock")],
    ),
  ],
)
def test_the_newest_is_tested_in_full(
  arguments: list[str], expected: list[str], tried: list[str]
):
  assert pythons.main(arguments) == 0
  assert tried == expected


def test_a_python_that_fails_is_not_locked(
  tried: list[str], monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setattr(pythons, "run_tests", lambda venv, more: False)
  assert pythons.main(["--lock"]) == 1
  assert not [done for done in tried if "lock" in done]


ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted(ROOT.glob("requirements-lock-*.txt"))


def test_every_python_that_is_named_has_a_lock():
  named = re.findall(
    r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()
  )
  assert [lock.stem.rpartition("-")[2] for lock in LOCKS] == named


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_is_complete_and_within_the_ranges(lock: Path):
  lines = lock.read_text().splitlines()
  pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
  versions = {canonicalize_name(name): v for name, v in pinned.items()}
  environment = {
    "python_version": lock.stem.rpartition("-")[2],
    "sys_platform": "linux",
    "platform_machine": "x86_64",
  }
  for part in ("core", "lab", "dev"):
    for line in (ROOT / f"requirements/{part}.txt").read_text().splitlines():
      text = line.partition("#")[0].strip()
      if not text:
        continue
      wanted = Requirement(text)
      if wanted.marker is None or wanted.marker.evaluate(environment):
        assert versions[canonicalize_name(wanted.name)] in wanted.specifier
