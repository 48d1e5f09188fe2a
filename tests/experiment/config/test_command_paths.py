"""Every path of the command line goes through one reading of paths."""

import sys
from pathlib import Path

import pytest

from forgetsam.experiment.config import (
  ConfigError,
  check_config,
  load_config_file,
  parse_command_line,
  split_config,
)

ROOT = Path(__file__).resolve().parents[3]
DIGITS = f"--config={ROOT}/configs/digits.py"
JOBS = ("train", "sweep", "study")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "my.py").write_text("def get_config(v=''):\n  return None\n")
  return tmp_path


def test_a_commands_paths_are_read(home: Path):
  command = parse_command_line(
    [
      f"{DIGITS}:obf",
      "--workdir=~/run",
      "--compilation_cache=file:///cc",
    ],
    JOBS,
  )
  assert command.workdir == home / "run"
  assert command.compilation_cache == "/cc"
  command = parse_command_line(
    [
      DIGITS,
      "--job=sweep",
      "--variants=sam",
      "--workdir=x",
      "--settings=~/best.json",
      "--compilation_cache=none",
    ],
    JOBS,
  )
  assert command.sweep is not None
  assert command.sweep.settings == home / "best.json"
  assert command.compilation_cache == "none"


@pytest.mark.parametrize("file", ["~/my.py", "file://{}/my.py"])
def test_a_configs_file_is_found(file: str, home: Path):
  # It is run: what it returns is refused.
  with pytest.raises(ConfigError, match="returns a ConfigDict, not a NoneType"):
    load_config_file(file.format(home) + ":obf")


@pytest.mark.parametrize(
  ("argument", "parts"),
  [
    ("a.py", ("a.py", None)),
    ("a.py:obf,smoke", ("a.py", "obf,smoke")),
    ("a.py:", ("a.py", "")),
    ("file:///x/a.py:obf", ("file:///x/a.py", "obf")),
    ("b:c/a.py:obf", ("b:c/a.py", "obf")),
    ("x.py/a.py", ("x.py/a.py", None)),
    ("digits:obf", ("digits", "obf")),
  ],
)
def test_a_variant_is_split_off(argument: str, parts: tuple[str, str | None]):
  assert split_config(argument) == parts


@pytest.mark.parametrize(
  "flag",
  [
    "--workdir=s3://b/x",
    "--compilation_cache=s3://b",
    "--config=s3://b/a.py",
    "--config.data.dir=s3://b",
    "--config.init_from=s3://b",
  ],
)
def test_a_remote_path_is_refused_by_its_flag(flag: str):
  key, _, value = flag.removeprefix("--").partition("=")
  others = [DIGITS, "--workdir=x"]
  others = [a for a in others if not a.startswith(f"--{key}=")]

  def start() -> None:
    check_config(parse_command_line([*others, flag], JOBS).config, 1)

  with pytest.raises(
    ConfigError, match=rf"(?s){key}='{value}' is refused.*allowed: .*"
  ):
    start()


def test_a_number_below_zero_may_stand_alone():
  command = parse_command_line(
    [
      *(DIGITS, "--workdir=x", "--config.model.head_bias", "-10"),
      *("--config.look_sam.alpha", "-.5", "--config.seed", "3"),
    ],
    JOBS,
  )
  assert command.config is not None
  assert command.config.model.head_bias == -10
  assert command.config.look_sam.alpha == -0.5
  assert command.config.seed == 3


def test_a_wrong_file_is_answered_with_those_that_would_do(tmp_path: Path):
  (tmp_path / "helpers.py").write_text("def get_it():\n  pass\n")
  (tmp_path / "mine.py").write_text("def get_config():\n  pass\n")
  (tmp_path / "arms.py").write_text("STUDY: dict = {}\n")
  for wrong in ("nime.py:obf", "helpers.py:obf", "arms.py"):
    with pytest.raises(ConfigError, match=r"mine\.py") as caught:
      load_config_file(f"{tmp_path}/{wrong}")
    assert f"{tmp_path}/{wrong}" in str(caught.value)
    there = str(caught.value).partition("allowed:")[2]
    assert "helpers.py" not in there
    assert "arms.py" not in there
  with pytest.raises(ConfigError, match=r"no folder .*nowhere"):
    load_config_file(f"{tmp_path}/nowhere/a.py")


@pytest.mark.parametrize(
  ("program", "why"),
  [
    ("def get_config(:\n", "SyntaxError.*line 1"),
    ("\nimport no_such_module\n", "line 2: ModuleNotFoundError"),
    ("def get_config():\n  return {}['x']\n", "line 2: KeyError"),
    ("def get_config():\n  raise OSError('gone')\n", "line 2: OSError: gone"),
  ],
)
def test_a_file_that_fails_is_its_authors(
  program: str, why: str, tmp_path: Path
):
  (tmp_path / "mine.py").write_text(program)
  with pytest.raises(ConfigError, match=rf"(?s)--config=.*mine\.py.*{why}"):
    load_config_file(f"{tmp_path}/mine.py")


def test_a_bucket_out_of_reach_is_refused_by_its_key(
  monkeypatch: pytest.MonkeyPatch,
):
  def reach(*_: object, **__: object) -> None:
    raise OSError("no route")

  monkeypatch.setattr("etils.epath.gpath._GPath.is_dir", reach)
  arguments = [DIGITS, "--workdir=x", "--config.data.dir=gs://b/x"]
  command = parse_command_line(arguments, JOBS)
  with pytest.raises(
    ConfigError, match=r"config\.data\.dir='gs://b/x'(.|\n)*no route"
  ):
    check_config(command.config, 1)


@pytest.mark.parametrize(
  ("program", "variants"),
  [
    (
      "from forgetsam.experiment import *\n"
      "def get_config(variant='obf'):\n"
      "  return apply_variant(base_config(), variant)\n",
      "plain, sam, obf (FILE alone), random",
    ),
    (
      "VARIANTS = {'a': 1, 'b': 2}\n"
      "def get_config(variant):\n  return VARIANTS[variant]\n",
      "a, b",
    ),
    (
      "def get_config(name):\n"
      "  raise ValueError(f'{name} is unknown; allowed: c or d')\n",
      "variants of this file: c or d",
    ),
    ("def get_config():\n  pass\n", "none"),
    ("def get_config(arg=None):\n  pass\n", "any"),
  ],
)
def test_a_colon_without_a_variant_lists_them(
  program: str, variants: str, tmp_path: Path
):
  (tmp_path / "mine.py").write_text(program)
  argument = f"--config={tmp_path}/mine.py:"
  with pytest.raises(ConfigError, match=r"mine\.py:' is refused") as caught:
    parse_command_line([argument], JOBS)
  assert variants in str(caught.value)


def test_an_unknown_variant_of_a_mapping_is_answered_with_its_names(
  tmp_path: Path,
):
  (tmp_path / "mine.py").write_text(
    "VARIANTS = {'a': 1, 'b': 2}\ndef get_config(v):\n  return VARIANTS[v]\n"
  )
  with pytest.raises(ConfigError, match="'c' is unknown; allowed: a, b"):
    load_config_file(f"{tmp_path}/mine.py:c")


def test_a_file_imports_what_lies_beside_it_and_around(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  (tmp_path / "recipes").mkdir()
  (tmp_path / "here").mkdir()
  (tmp_path / "recipes" / "beside_it.py").write_text("SEED = 3\n")
  (tmp_path / "here" / "around_it.py").write_text("EPOCHS = 4\n")
  (tmp_path / "recipes" / "mine.py").write_text(
    "import beside_it\n"
    "from forgetsam.experiment import base_config\n"
    "def get_config():\n"
    "  import around_it\n"
    "  config = base_config()\n"
    "  config.seed, config.epochs = beside_it.SEED, around_it.EPOCHS\n"
    "  return config\n"
  )
  monkeypatch.chdir(tmp_path / "here")
  before = list(sys.path)
  config = load_config_file("../recipes/mine.py")
  assert (config.seed, config.epochs) == (3, 4)
  assert sys.path == before
