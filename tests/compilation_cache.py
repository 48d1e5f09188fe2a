"""Compiles each program once for all tests of a folder."""

from collections.abc import Iterator

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache


@pytest.fixture(autouse=True, scope="package")
def compilation_cache(
  tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
  """A cache of the folder's own, for the time of its tests."""
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
