"""What `module:attribute` finds, where, and what is said where it is not."""

import sys
from pathlib import Path

import pytest

from forgetsam.experiment.config import ConfigError, load_config_file
from forgetsam.experiment.config._modules import (
  find_attribute,
  folders_of,
  is_module_attribute,
)


def find(name: str, *folders: Path) -> object:
  return find_attribute("config.x.name", name, [str(f) for f in folders])


def write(folder: Path, **files: str) -> Path:
  for name, text in files.items():
    file = folder / f"{name.replace('__', '/')}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
  return folder


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("optax:lion", True),
    ("pkg.mod:Class.method", True),
    ("cifar10:3.0.2", False),
    ("imagenet2012:5.*.*", False),
    ("huggingface:mnist", False),
    ("mine:", False),
    ("mine.py:Net", True),
    ("a/b:c", False),
    ("a:b:c", False),
  ],
)
def test_which_names_are_of_modules(name: str, expected: bool):
  assert is_module_attribute(name) is expected


def test_the_order_is_beside_the_file_then_here_then_on_the_path(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  here = write(tmp_path / "here", order_a="x = 2", order_b="x = 2")
  path = write(
    tmp_path / "path", order_a="x = 3", order_b="x = 3", order_c="x = 3"
  )
  monkeypatch.chdir(here)
  monkeypatch.syspath_prepend(str(path))
  beside = write(tmp_path / "beside", order_a="x = 1")
  found = [find(f"order_{name}:x", beside) for name in "abc"]
  assert found == [1, 2, 3]
  names = [f"order_{name}:x" for name in "abc"] + ["json:loads", "sam"]
  assert folders_of(names, [str(beside)]) == (str(beside), str(here), str(path))


def test_modules_of_one_name_are_not_mixed_up(tmp_path: Path):
  text = "from same_helper import value\nclass A:\n  x = value"
  one = write(tmp_path / "1", same=text, same_helper="value = 1")
  two = write(tmp_path / "2", same=text, same_helper="value = 2")
  three = write(tmp_path / "3", other="")
  assert [find("same:A.x", f) for f in (one, two, one)] == [1, 2, 1]
  assert find("same:A", one) is find("same:A", one)
  with pytest.raises(ConfigError, match="'same' is neither"):
    find("same:A", three)
  assert str(one) not in sys.path


def test_packages_with_and_without_init(tmp_path: Path):
  write(
    tmp_path,
    whole____init__="",
    whole__mod="from whole.other import x",
    whole__other="x = 1",
    bare_folder__mod="from . import other\nx = other.x",
    bare_folder__other="x = 2",
  )
  assert find("whole.mod:x", tmp_path) == 1
  assert find("bare_folder.mod:x", tmp_path) == 2


def test_a_users_module_before_a_librarys(
  tmp_path: Path, caplog: pytest.LogCaptureFixture
):
  import colorsys

  write(tmp_path, colorsys="mine = 1")
  assert find("colorsys:mine", tmp_path) == 1
  assert f"colorsys is taken from {tmp_path}/colorsys.py, not" in caplog.text
  assert sys.modules["colorsys"] is colorsys
  (tmp_path / "forgetsam.py").write_text("sam = 1")
  assert callable(find("forgetsam:sam", tmp_path))


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("absent_here:x", "'absent_here' is neither in {folder}, {cwd} nor on"),
    ("faults.absent:x", "'faults.absent' is neither"),
    ("faults:fcal", "no 'fcal'; the closest name is focal"),
    ("faults:focal.deep", "a name in faults.focal, which has no 'deep'"),
    ("broken:x", "broken in {folder} fails in broken.py, line 2: ZeroDiv"),
    ("unwritten:x", "fails: SyntaxError"),
    ("needy:x", "fails in needy.py, line 1: ModuleNotFoundError.*nowhere"),
    ("leaves:x", "fails in leaves.py, line 1: SystemExit: 3"),
  ],
)
def test_what_is_not_there_is_said(name: str, said: str, tmp_path: Path):
  write(
    tmp_path,
    faults="def focal(): pass",
    broken="\n1 / 0",
    unwritten="def",
    needy="import nowhere_at_all",
    leaves="raise SystemExit(3)",
  )
  said = said.format(folder=tmp_path, cwd=Path.cwd())
  with pytest.raises(
    ConfigError, match=rf"config.x.name='{name}'[\s\S]*{said}"
  ):
    find(name, tmp_path)


def test_configs_of_two_folders_import_their_own(tmp_path: Path):
  file = (
    "from forgetsam.experiment import base_config\n"
    "from beside_both import seed\n"
    "def get_config():\n"
    "  config = base_config()\n"
    "  config.seed = seed\n"
    "  return config\n"
  )
  for i in (1, 2):
    write(tmp_path / f"{i}", recipe=file, beside_both=f"seed = {i}")
  folders = [tmp_path / name for name in "121"]
  configs = [load_config_file(f"{f}/recipe.py") for f in folders]
  assert [config.seed for config in configs] == [1, 2, 1]
  assert find("beside_both:seed", folders[1]) == 2
