"""What the tests of sweeps share."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from sweep_runs import MadeUpRunner


@pytest.fixture(autouse=True, scope="package")
def compilation_cache(
  tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
  """Compiles each program once for all tests in this folder."""
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
def made_up_runs(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpRunner]:
  """Sweeps whose runs take no time; returns what they were asked for."""

  class Fresh(MadeUpRunner):
    asked = []  # noqa: RUF012

  monkeypatch.setattr("forgetsam.jobs.sweep.Runner", Fresh)
  return Fresh
