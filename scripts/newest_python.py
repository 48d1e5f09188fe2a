"""Tests the core on the newest Python at hand: python scripts/newest_python.py.

Where there is a newer Python than the one that runs this, `.venv-newest` gets
it, with the newest packages that requirements.txt admits, and the tests below
run there on one and on four virtual devices. Otherwise it says so and passes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-newest"
TESTS = (
  "tests/training/test_mesh.py",
  "tests/training/test_train_step.py",
  "tests/training/test_eval_step.py",
  "tests/perturbations",
  "tests/experiment/run/test_checkpoint.py",
  "tests/experiment/jobs/test_train_job.py",
)
PYTEST = (
  *(
    "-m",
    "pytest",
    "-q",
    "-m",
    "not slow and not long",
    "-p",
    "no:cacheprovider",
  ),
  "--jaxtyping-packages=forgetsam,type_checker.typechecker",
)


def newer_pythons(current: tuple[int, int]) -> list[Path]:
  """Released Pythons on PATH and pyenv's that are newer, newest first."""
  pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
  found = [shutil.which(f"python3.{minor}") for minor in range(11, 40)]
  found += [
    str(folder / "bin" / "python")
    for folder in sorted(pyenv.glob("versions/3.*"))
    if re.fullmatch(r"3\.\d+\.\d+", folder.name)
  ]
  ask = "import sys; print(*sys.version_info[:4], sep='.')"
  versions: dict[tuple[int, int], Path] = {}
  for python in filter(None, found):
    # A version manager's shim exists for Pythons that it lacks: run each.
    answer = subprocess.run(
      [python, "-c", ask], capture_output=True, text=True, check=False
    )
    parts = answer.stdout.strip().split(".")
    if answer.returncode == 0 and parts[3] == "final":
      versions[int(parts[0]), int(parts[1])] = Path(python)
  return [versions[v] for v in sorted(versions, reverse=True) if v > current]


def install(python: Path) -> bool:
  """Makes `.venv-newest`; False where a package has no release for it."""
  subprocess.run([python, "-m", "venv", "--clear", VENV], check=True)
  pip = (VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
  command = [*pip, "install", "--quiet", "--quiet", "-e", f"{ROOT}[dev]"]
  return subprocess.run(command, check=False).returncode == 0


def run_tests() -> int:
  """Runs the tests on one and four devices side by side."""
  running = [
    subprocess.Popen(
      [VENV / "bin" / "python", *PYTEST, *TESTS],
      cwd=ROOT,
      env={**os.environ, "TEST_DEVICES": devices},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for devices in ("1", "4")
  ]
  outputs = [process.communicate()[0] for process in running]
  for devices, output in zip((1, 4), outputs, strict=True):
    print(f"[test-newest] {devices} device(s)\n{output}")
  return max(process.returncode for process in running)


def main() -> int:
  """Returns the exit code."""
  current = sys.version_info[:2]
  pythons = newer_pythons(current)
  if not pythons:
    print(f"[test-newest] no Python newer than {current[0]}.{current[1]} here")
    return 0
  for python in pythons:
    print(
      f"[test-newest] installing into {VENV.name} with {python}", flush=True
    )
    if install(python):
      return run_tests()
  print("[test-newest] the requirements cannot be installed on a newer Python")
  return 1


if __name__ == "__main__":
  sys.exit(main())
