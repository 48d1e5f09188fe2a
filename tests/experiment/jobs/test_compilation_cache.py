"""Compiled programs are kept where the user says, or not at all."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from forgetsam.cli import JOBS
from forgetsam.experiment.config import ConfigError, parse_command_line
from forgetsam.experiment.run import _compilation_cache, keep_compiled_programs
from forgetsam.experiment.run._compilation_cache import default_place

OPTIONS = [
  "jax_enable_compilation_cache",
  "jax_compilation_cache_dir",
  "jax_persistent_cache_min_compile_time_secs",
  "jax_persistent_cache_min_entry_size_bytes",
  "jax_compilation_cache_max_size",
]


@pytest.fixture(autouse=True)
def no_choice_yet(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
  """A user who has chosen nothing, with a cache folder of this test's own."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
  before = {name: getattr(jax.config, name) for name in OPTIONS}
  jax.config.update("jax_compilation_cache_dir", None)
  reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  reset_cache()


def compile_something() -> None:
  jax.clear_caches()
  jax.block_until_ready(jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(3)))


def test_programs_are_kept_by_default(tmp_path: Path):
  keep_compiled_programs()
  compile_something()
  assert default_place().is_relative_to(tmp_path / "home" / "forgetsam")
  assert any(default_place().iterdir())


def test_another_folder_or_none(tmp_path: Path):
  keep_compiled_programs(str(tmp_path / "mine"))
  compile_something()
  assert any((tmp_path / "mine").iterdir())
  assert not default_place().exists()
  keep_compiled_programs("none")
  assert not jax.config.jax_enable_compilation_cache


def test_the_environments_choice_stands(tmp_path: Path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
  keep_compiled_programs()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs")
  assert not default_place().exists()


def test_the_environments_choice_is_read_as_paths_are(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setenv("HOME", str(tmp_path))
  for written, meant in {
    "~/cc": f"{tmp_path}/cc",
    f"file://{tmp_path}/cc": f"{tmp_path}/cc",
    "gs://b/cc": "gs://b/cc",  # which JAX reads
  }.items():
    jax.config.update("jax_compilation_cache_dir", written)
    keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == meant
  jax.config.update("jax_compilation_cache_dir", "hdfs://b/cc")
  with pytest.raises(ConfigError, match="JAX_COMPILATION_CACHE_DIR='hdfs://b"):
    keep_compiled_programs()


def test_a_folder_that_jax_cannot_keep_small_is_not_used(
  tmp_path: Path, caplog: pytest.LogCaptureFixture
):
  keep_compiled_programs(str(tmp_path / "cc[1]"))
  assert "not kept" in caplog.text
  assert "cc[1]" in caplog.text
  assert jax.config.jax_compilation_cache_dir is None


def test_no_folder_is_no_error(
  tmp_path: Path, caplog: pytest.LogCaptureFixture
):
  (tmp_path / "file").write_text("")
  keep_compiled_programs(str(tmp_path / "file" / "inside"))
  assert "not kept" in caplog.text
  assert jax.config.jax_compilation_cache_dir is None


def test_another_cpu_has_another_folder(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  places = set()
  for text in ("flags : sse avx2\n", "flags : sse\n", "Features : asimd\n"):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(_compilation_cache, "_CPU_INFO", tmp_path / "cpuinfo")
    places.add(default_place())
  monkeypatch.setattr(_compilation_cache, "_CPU_INFO", tmp_path / "missing")
  assert len({*places, default_place()}) == 4


def test_the_flag():
  command = ["--workdir=x", "--compilation_cache=none"]
  assert parse_command_line(command, JOBS).compilation_cache == "none"
  assert parse_command_line(command[:1], JOBS).compilation_cache is None
