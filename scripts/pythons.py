"""Tests other Pythons than the one that runs this: python scripts/pythons.py.

The package, with the core's requirements alone, is installed and tried on every
newer Python at hand. The newest then gets the rest, with the newest packages
that the requirements admit, and `TESTS` run there; `--all` does that on each,
with `MORE_TESTS`. Where there is no newer Python, it says so and passes.

`--lock` takes the Python that runs this as well, and where a Python passes,
writes what was installed to `requirements-lock-VERSION.txt`.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
  "tests/training/factored/test_layers.py",
  "tests/training/test_mesh.py",
  "tests/training/test_sharded_params.py",
  "tests/training/test_train_step.py",
  "tests/training/test_eval_step.py",
  "tests/experiment/run/test_checkpoint.py",
  "tests/experiment/jobs/test_train_job.py",
)
# These call what TESTS call already, for every transform.
MORE_TESTS = ("tests/perturbations", "tests/methods")
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
Version = tuple[int, int]


def pythons_at_hand() -> dict[Version, Path]:
  """Released Pythons on PATH and pyenv's, newest first."""
  pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
  found = [shutil.which(f"python3.{minor}") for minor in range(11, 40)]
  found += [
    str(folder / "bin" / "python")
    for folder in sorted(pyenv.glob("versions/3.*"))
    if re.fullmatch(r"3\.\d+\.\d+", folder.name)
  ]
  ask = "import sys; print(*sys.version_info[:4], sep='.')"
  versions: dict[Version, Path] = {}
  for python in filter(None, found):
    # A version manager's shim exists for Pythons that it lacks: run each.
    answer = subprocess.run(
      [python, "-c", ask], capture_output=True, text=True, check=False
    )
    parts = answer.stdout.strip().split(".")
    if answer.returncode == 0 and parts[3] == "final":
      versions[int(parts[0]), int(parts[1])] = Path(python)
  return dict(sorted(versions.items(), reverse=True))


def newer_pythons(current: Version) -> list[Path]:
  """The Pythons at hand that are newer, newest first."""
  return [python for v, python in pythons_at_hand().items() if v > current]


def try_core(python: Path, venv: Path) -> bool:
  """Makes a venv with the core alone, and tries it."""
  subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
  command = [sys.executable, *PYTEST, "tests/test_installed.py"]
  environment = {**os.environ, "EMPTY_VENV": str(venv)}
  done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
  return done.returncode == 0


def install_rest(venv: Path) -> bool:
  """Adds the lab and the tests' tools; False where one has no release."""
  pip = (venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
  install = (*pip, "install", "--quiet", "--quiet", "--no-compile")
  command = [*install, "-e", f"{ROOT}[lab,dev]"]
  return subprocess.run(command, check=False).returncode == 0


def run_tests(venv: Path, *, more: bool) -> bool:
  """Runs the tests in two processes, each with the tests' virtual devices."""
  command = [
    *(venv / "bin" / "python", *PYTEST, "-m", "not slow and not long"),
    *("-n", "2", "--dist", "loadfile"),
    *TESTS,
    *(MORE_TESTS if more else ()),
  ]
  return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def write_lock(version: str, venv: Path, folder: Path = ROOT) -> None:
  """Writes the versions that are installed in a venv."""
  pip = (venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
  frozen = subprocess.run(
    [*pip, "freeze", "--exclude-editable"],
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  head = (
    f"# What the tests passed with on Python {version}, "
    f"{platform.system()} {platform.machine()}; made by `make lock`.\n"
  )
  (folder / f"requirements-lock-{version}.txt").write_text(head + frozen)


def passes(
  version: Version, python: Path, *, whole: bool, more: bool, lock: bool
) -> bool:
  """Tries one Python."""
  name = ".".join(map(str, version))
  venv = ROOT / f".venv-{name}"
  print(f"[{venv.name}] installing with {python}", flush=True)
  good = try_core(python, venv)
  if good and whole:
    good = install_rest(venv) and run_tests(venv, more=more)
  if good and lock:
    write_lock(name, venv)
  print(f"[{venv.name}] {'passes' if good else 'fails'}", flush=True)
  return good


def main(argv: Sequence[str] = ()) -> int:
  """Returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--all", action="store_true")
  parser.add_argument("--lock", action="store_true")
  asked = parser.parse_args(argv)
  current = sys.version_info[:2]
  chosen = {
    version: python
    for version, python in pythons_at_hand().items()
    if version > current or (asked.lock and version == current)
  }
  if not chosen:
    print(f"[pythons] no Python newer than {current[0]}.{current[1]} here")
    return 0
  newest = max(chosen)
  results = [
    passes(
      *(version, python),
      whole=asked.all or asked.lock or version == newest,
      more=asked.all or asked.lock,
      lock=asked.lock,
    )
    for version, python in chosen.items()
  ]
  return 0 if all(results) else 1


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
