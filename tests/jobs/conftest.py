"""What the tests of jobs share: the command line, and tiny runs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from tiny_runs import tiny


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


@pytest.fixture
def arguments(data_dir: Path, tmp_path: Path) -> Callable[..., list[str]]:
  """Builds such arguments for a variant, in the test's own folder."""

  def build(variant: str = "obf", *extra: str) -> list[str]:
    return tiny(tmp_path / "run", data_dir, *extra, variant=variant)

  return build
