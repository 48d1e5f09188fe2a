"""The package's front: light to import, and complete."""

import subprocess
import sys

import pytest

import forgetsam as fs

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
