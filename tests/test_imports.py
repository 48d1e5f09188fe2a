"""Rules of imports that import-linter's contracts cannot say."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "forgetsam").rglob("*.py"))
USERS = [
  ROOT / "main.py",
  *sorted((ROOT / "configs").glob("*.py")),
  *sorted((ROOT / "scripts").glob("*.py")),
]
UPPER = {"experiment", "studies", "cli"}


def module_of(path: Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in LIBRARY}


def package_of(module: str) -> list[str]:
  """The package whose modules may import each other's private modules."""
  parts = module.split(".")
  return parts[: 3 if parts[1:2] in (["experiment"], ["studies"]) else 2]


def refused(source: str, module: str) -> list[str]:
  """Imports in `source`, late ones too, that reach around the layers."""
  found = []
  # The one loads its packages on first use, the other what users name.
  by_name = module in ("forgetsam", "forgetsam.experiment.config._modules")
  below = module.startswith("forgetsam.") and module.split(".")[1] not in UPPER
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Name) and node.id == "__import__":
      found.append("__import__ hides what is imported")
    if (
      isinstance(node, ast.Attribute)
      and node.attr == "import_module"
      and not by_name
    ):
      found.append("import_module hides what is imported")
    if isinstance(node, ast.Import):
      targets = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute here"
      targets = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
      continue
    for target in targets:
      parts = target.split(".")
      if target == "importlib.import_module":
        found.append(f"{target} hides what is imported")
      if parts[0] != "forgetsam":
        continue
      if below and (
        len(parts) == 1 or (len(parts) == 2 and target not in MODULES)
      ):
        found.append(f"{target}: name the package that defines it")
      private = [i for i, part in enumerate(parts) if part.startswith("_")]
      in_core = private[:1] == [1]
      if private and not in_core and package_of(target) != package_of(module):
        found.append(f"{target} is private")
  return found


def test_imports_name_public_packages():
  found = {
    module_of(path): refused(path.read_text(), module_of(path))
    for path in LIBRARY + USERS
  }
  assert {module: said for module, said in found.items() if said} == {}


@pytest.mark.parametrize(
  ("module", "line"),
  [
    ("forgetsam.data._split", "import forgetsam as fs"),
    ("forgetsam.data._split", "from forgetsam import load_run"),
    ("forgetsam.data._split", "from forgetsam.training._mesh import average"),
    ("forgetsam.data", "from forgetsam.training import _mesh"),
    ("forgetsam.data", "from forgetsam.training import _private"),
    ("forgetsam.cli", "from forgetsam.experiment.run._lock import Lock"),
    (
      "forgetsam.experiment.jobs.train",
      "from forgetsam.experiment.run import _lock",
    ),
    ("forgetsam.training._mesh", "from importlib import import_module"),
    ("forgetsam.training._mesh", "importlib.import_module('forgetsam.cli')"),
    ("forgetsam.training._mesh", "m = __import__('forgetsam.cli')"),
    ("scripts.table", "from forgetsam.training._mesh import average"),
  ],
)
def test_imports_around_the_layers_are_refused(module: str, line: str):
  assert refused(f"def f():\n  {line}", module)


@pytest.mark.parametrize(
  ("module", "line"),
  [
    ("forgetsam.training._mesh", "from forgetsam._arrays import is_float"),
    ("forgetsam.training._mesh", "from forgetsam.training import _inspection"),
    ("forgetsam.sharpness", "from forgetsam.sharpness._trace import trace"),
    ("forgetsam.data", "from forgetsam.data.streaming._crops import crop"),
    ("forgetsam.sharpness._trace", "from forgetsam import data"),
    ("forgetsam.cli", "import forgetsam as fs"),
  ],
)
def test_imports_inside_a_package_are_allowed(module: str, line: str):
  assert not refused(line, module)
