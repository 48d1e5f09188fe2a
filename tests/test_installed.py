"""The package as pip installs it: the core alone, in a venv of its own.

`EMPTY_VENV` may name the venv; without it, one of this Python is made.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_pages import ROOT, python_blocks

pytestmark = pytest.mark.long
SOURCES = (
  "README.md",
  "LICENSE",
  "pyproject.toml",
  "requirements",
  "forgetsam",
)
LAB = (
  "tensorflow",
  "clu",
  "ml_collections",
  "matfree",
  "sklearn",
  "matplotlib",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The Python of a venv that has the package and what the core needs."""
  folder = tmp_path_factory.mktemp("installed")
  venv = Path(os.environ.get("EMPTY_VENV", folder / "venv"))
  if not venv.exists():
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
  (folder / "source").mkdir()
  for name in SOURCES:  # pip would build in the checkout, with what lies there
    copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
    copy(ROOT / name, folder / "source" / name)
  python = venv / "bin" / "python"
  pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
  install = (*pip, "install", "--no-compile")
  subprocess.run([*install, folder / "source"], check=True)
  return python


def run(
  python: Path, program: str, folder: Path
) -> subprocess.CompletedProcess[str]:
  """Runs a program far from the checkout."""
  ours = ("PYTHON", "XLA_", "JAX_")  # of the tests' own Python
  kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
  return subprocess.run(
    [python, "-c", program],
    cwd=folder,
    env={**kept, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )


def test_it_brings_the_core_alone(installed: Path, tmp_path: Path):
  program = f"""
from importlib.util import find_spec
import forgetsam as fs
fs.data, fs.forgetting, fs.interop, fs.models
print(*[name for name in {LAB} if find_spec(name)])
"""
  found = run(installed, program, tmp_path)
  assert found.stdout == "\n", found.stderr


def test_the_readmes_snippets_run(installed: Path, tmp_path: Path):
  found = run(installed, "\n".join(python_blocks(ROOT / "README.md")), tmp_path)
  assert found.returncode == 0, found.stderr
  assert not found.stderr


READ = "fs.interop.from_torch('vit_s32', 'a.safetensors')"
NEEDS = {
  "import forgetsam as fs; fs.sharpness": "matfree",
  "from forgetsam.sharpness import xtrace": "matfree",
  "fs.load_run": "ml_collections",
  "from forgetsam.experiment import base_config": "ml_collections",
  "fs.data.load('digits')": "tensorflow_datasets",
  "fs.data.import_tensorflow()": "tensorflow",
  f"open('a.safetensors', 'w'); {READ}": "safetensors",
}


def test_what_the_lab_needs_is_named(installed: Path, tmp_path: Path):
  program = f"""
for line in {list(NEEDS)}:
  try:
    exec(line)
  except ImportError as error:
    print(error)
"""
  found = run(installed, program, tmp_path)
  lines = found.stdout.splitlines()
  assert len(lines) == len(NEEDS), found.stderr
  for line, package in zip(lines, NEEDS.values(), strict=True):
    assert line.endswith(
      f"needs {package}, which is not installed: pip install 'forgetsam[lab]'"
    )


def test_the_command_says_what_it_needs(installed: Path, tmp_path: Path):
  found = subprocess.run(
    [installed.with_name("forgetsam"), "--help"],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 1
  assert "pip install 'forgetsam[lab]'" in found.stderr.splitlines()[-1]


def test_the_import_costs_little_beside_its_requirements(
  installed: Path, tmp_path: Path
):
  program = """
import time
import jax, flax.linen, optax
before = time.process_time()
import forgetsam
print(time.process_time() - before)
"""
  times = [float(run(installed, program, tmp_path).stdout) for _ in range(3)]
  assert min(times) < 0.1


def test_types_are_seen_from_outside(installed: Path, tmp_path: Path):
  program = tmp_path / "mine.py"
  program.write_text(
    "import forgetsam as fs\n"
    "fs.surrogate_gap(alpha=0.1, alfa=0.2)\n"
    "fs.sharpnes\n"
  )
  settings = tmp_path / "mypy.ini"  # most of the time would go into theirs
  settings.write_text(
    "[mypy]\nignore_missing_imports = true\n"
    "[mypy-jax.*,flax.*,numpy.*]\nfollow_imports = skip\n"
  )
  found = subprocess.run(
    [
      *(sys.executable, "-m", "mypy", "--no-incremental"),
      *(f"--config-file={settings}", f"--python-executable={installed}"),
      program,
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  for said in ("alfa", "sharpnes"):
    assert f'"{said}"' in found.stdout
