"""What the tests of jobs share: the command line, and tiny runs."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # main.py and configs/ are not in the package


@pytest.fixture(autouse=True, scope="package")
def compilation_cache(
  tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
  """Compiles each step once for all runs of the tests in this folder."""
  options = {
    "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  before = {name: getattr(jax.config, name) for name in options}
  for name, value in options.items():
    jax.config.update(name, value)
  reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  reset_cache()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder of the session's own, in which the digits are built once."""
  return tmp_path_factory.mktemp("tfds")


def tiny(
  workdir: Path, data_dir: Path, *extra: str, variant: str = "obf"
) -> list[str]:
  """The arguments of a run of two epochs of five steps."""
  return [
    f"--config={ROOT}/configs/digits.py:{variant}",
    f"--workdir={workdir}",
    f"--config.data.dir={data_dir}",
    "--config.data.train_examples=320",
    "--config.batch_size=64",
    "--config.micro_batch_size=8",
    "--config.evaluation.batch_size=64",
    "--config.evaluation.every_epochs=1",
    "--config.epochs=2",
    "--config.schedule.warmup_epochs=0",
    "--config.model.hidden=(8,)",
    "--config.log.every_steps=4",
    *extra,
  ]


@pytest.fixture
def arguments(data_dir: Path, tmp_path: Path) -> Callable[..., list[str]]:
  """Builds such arguments for a variant, in the test's own folder."""

  def build(variant: str = "obf", *extra: str) -> list[str]:
    return tiny(tmp_path / "run", data_dir, *extra, variant=variant)

  return build
