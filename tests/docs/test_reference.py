"""The reference: no public name and no configuration key is missing."""

import importlib.util
import pkgutil
import re
import sys

import pytest
from markdown_pages import ROOT

import forgetsam as fs
from forgetsam.experiment.config import KEYS, OPTIONS

API = {page: page.read_text() for page in (ROOT / "docs" / "api").glob("*.md")}
# What they define is documented where `forgetsam` exports it, their states
# where the transforms are; `run` and `jobs` are behind `main.py`.
ELSEWHERE = {
  "forgetsam.methods",
  "forgetsam.perturbations",
  "forgetsam.training",
  "forgetsam.experiment.run",
  "forgetsam.experiment.jobs",
  "forgetsam.data.streaming",
  "forgetsam.training.factored",
}
PACKAGES = [
  module.name
  for module in pkgutil.walk_packages(fs.__path__, "forgetsam.")
  if module.ispkg and module.name not in ELSEWHERE
]


def test_every_public_name_of_the_root_is_documented():
  text = (ROOT / "docs" / "api" / "forgetsam.md").read_text()
  documented = set(re.findall(r"auto(?:function|class):: (\w+)", text))
  packages = {"data", "forgetting", "interop", "models", "sharpness"}
  assert documented | packages == set(fs.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_documented(package: str):
  module = importlib.import_module(package)
  if getattr(module, "__all__", ()):
    assert any(
      re.search(rf"automodule:: {re.escape(package)}$", text, re.MULTILINE)
      for text in API.values()
    )


def test_every_transform_is_in_the_guide():
  pages = ("transforms.md", "methods.md")
  text = "\n".join((ROOT / "docs" / page).read_text() for page in pages)
  training = {
    "make_train_step",
    "make_eval_step",
    "create_train_state",
    "factored_gradient",
    "param_shardings",
  }
  for name in set(fs.__all__) - training:
    public = getattr(fs, name)
    if callable(public) and not isinstance(public, type) and name != "load_run":
      if "cross_entropy" in name or name == "ascent_and_descent":
        continue
      assert re.search(rf"\b{name}\b", text), name


def test_the_page_of_keys_has_every_key():
  path = ROOT / "docs" / "conf.py"
  spec = importlib.util.spec_from_file_location("docs_conf", path)
  assert spec is not None
  assert spec.loader is not None
  conf = importlib.util.module_from_spec(spec)
  before = list(sys.path)
  spec.loader.exec_module(conf)
  sys.path[:] = before
  table = conf.keys_table()
  assert "<!-- keys -->" in (ROOT / "docs" / "keys.md").read_text()
  for key in KEYS:
    assert f"| `{key}` | " in table, key
  for group in OPTIONS:
    assert f"| `{group}.*` | " in table, group
