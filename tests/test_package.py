"""The package's front: light to import, and complete."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import forgetsam as fs

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "pyproject.toml"

HEAVY = "tensorflow tensorflow_datasets orbax clu ml_collections sklearn"


def test_the_import_brings_in_no_heavy_library():
  program = f"""
import sys
import forgetsam
heavy = "{HEAVY} matplotlib scipy matfree".split()
print(*sorted(set(heavy) & set(sys.modules)))
"""
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == []


def test_every_public_name_is_listed_and_found():
  assert set(fs.__all__) <= set(dir(fs))
  for name in fs.__all__:
    assert getattr(fs, name) is not None


def test_an_unknown_name_is_named():
  with pytest.raises(AttributeError, match="sharpnes"):
    fs.sharpnes  # noqa: B018


def test_the_program_is_the_command_line(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  (script,) = tomllib.loads(PROJECT.read_text())["project"]["scripts"].items()
  program = importlib.metadata.EntryPoint(*script, "console_scripts").load()
  monkeypatch.setattr(sys, "argv", ["forgetsam", "--help"])
  assert program() == 0
  assert "--config=FILE:VARIANT" in capsys.readouterr().out
  monkeypatch.setattr(sys, "argv", ["forgetsam", "--workdir=x"])
  assert program() == 2
  assert "--config is missing" in capsys.readouterr().err


def test_the_citation_and_the_changelog_have_the_version():
  version = re.escape(fs.__version__)
  for name, line in (
    ("CITATION.cff", rf"^version: {version}$"),
    ("CHANGELOG.md", rf"^## {version} - "),
  ):
    assert re.search(line, (ROOT / name).read_text(), re.MULTILINE), name
