"""Any paths, environment and settings of JAX's: it traces, or names what not.

FUZZ_DRAWS=1000 draws that many, other ones each time.
"""

import contextlib
import datetime
import os
import random
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from made_up_images import made_up
from test_fuzz_configs import trace
from tiny_runs import ROOT

from forgetsam import data
from forgetsam.experiment import build as builders
from forgetsam.experiment.config import (
  ConfigError,
  check_config,
  parse_command_line,
)
from forgetsam.experiment.run import check_workdir

pytestmark = pytest.mark.slow

DRAWS = int(os.environ.get("FUZZ_DRAWS", "0"))

PLACES = [
  *("{here}/new/er", "{here}/file", "{here}/file/below", "{here}/br[1]"),
  *("{here}/a\\b", "{here}/sp ace", "{here}/é", "{here}/*?", "new", ".", ".."),
  *("~", "~/x", "~nobody/x", "file://{here}/x%20y", "file://host/x"),
  *("gs://bucket/x", "s3://b", "hdfs://h:1/x", "S3:/b", "/proc/x", "/"),
  *("", " ", "x" * 300, "{here}/" + "y" * 5000, "none", "{here}/w.pth"),
]
FLAGS = (
  *("--workdir", "--compilation_cache"),
  *("--config.data.dir", "--config.init_from"),
)
SEEDS = [0, 2**31 - 1, 2**32 - 1, 2**32, 2**32 + 7, 2**63 - 1, 2**63, -1]
SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
  "rbg": lambda: jax.default_prng_impl("rbg"),
  "unsafe_rbg": lambda: jax.default_prng_impl("unsafe_rbg"),
  "threefry": lambda: jax.threefry_partitionable(False),
  "64 bits": lambda: jax.enable_x64(True),
  "nan": lambda: jax.debug_nans(True),
  "ranks": lambda: jax.numpy_rank_promotion("raise"),
  "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
  "precision": lambda: jax.default_matmul_precision("float32"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """A home with a file in it, which is the current folder as well."""
  (tmp_path / "home").mkdir()
  (tmp_path / "home" / "file").write_text("")
  (tmp_path / "home" / "w.pth").write_text("")
  monkeypatch.chdir(tmp_path / "home")
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
  return tmp_path / "home"


def draw(r: random.Random, here: Path) -> tuple[list[str], str, list[str]]:
  """A command line, TFDS_DATA_DIR, and names of settings."""

  def place() -> str:
    return r.choice(PLACES).replace("{here}", str(here))

  command = {"--workdir": f"{here}/run"}
  command |= {flag: place() for flag in r.sample(FLAGS, r.randint(0, 2))}
  if r.random() < 0.3:
    command["--config.seed"] = str(r.choice(SEEDS))
  variant = r.choice(["plain", "sam", "obf", "random", "gsam_obf"])
  argv = [
    f"--config={ROOT}/configs/digits.py:{variant}",
    "--config.batch_size=16",
    "--config.micro_batch_size=2",
    "--config.evaluation.batch_size=16",
    "--config.model.hidden=(4,)",
    *(f"{flag}={value}" for flag, value in command.items()),
  ]
  where = place() if r.random() < 0.3 else f"{here}/tfds"
  return argv, where, r.sample(sorted(SETTINGS), r.randint(0, 2))


def build(argv: list[str]) -> None:
  """Does all that a run does before its first step, on a made-up set."""
  command = parse_command_line(argv, ["train"])
  config = command.config
  assert config is not None
  check_config(config, jax.local_device_count())
  check_workdir(command.workdir, config)
  sources = builders.build_sources(config, made_up())
  trace(builders.build_experiment(config, sources), config.batch_size)


def outcome(argv: list[str]) -> str:
  """Empty where all is built; else what is refused."""
  try:
    build(argv)
  except (ConfigError, data.DataError) as refused:
    return str(refused)
  return ""


@settings(
  max_examples=DRAWS or 20,
  derandomize=not DRAWS,
  database=None,
  deadline=datetime.timedelta(seconds=30),
  suppress_health_check=list(HealthCheck),
  phases=[Phase.generate],  # a draw is small as it is
)
@given(r=st.randoms(use_true_random=False))
def test_a_draw_traces_or_is_refused_by_name(here: Path, r: random.Random):
  argv, where, chosen = draw(r, here)
  with contextlib.ExitStack() as stack:
    for name in chosen:
      stack.enter_context(SETTINGS[name]())
    stack.enter_context(
      mock.patch.object(tfds.core.constants, "DATA_DIR", where)
    )
    refused = outcome(argv)
  asked = {arg.partition("=")[0].lstrip("-") for arg in argv}
  named = re.findall(r"--(\w+)|(config\.[a-z_.]+[a-z])", refused)
  assert (
    not refused
    or asked & {name for names in named for name in names}
    or "TFDS_DATA_DIR" in refused
    or "config.data.name='digits'" in refused  # and where it cannot be built
  ), (argv, where, refused)
