"""A run under the settings with which JAX stops at nan and at promotion."""

import time
from collections.abc import Callable, Iterator

import jax
import pytest

import main

# As JAX_DEBUG_NANS=1, JAX_NUMPY_RANK_PROMOTION=raise and so on set them.
STRICT = {
  "jax_debug_nans": True,
  "jax_numpy_rank_promotion": "raise",
  "jax_numpy_dtype_promotion": "strict",
}


@pytest.fixture
def strict() -> Iterator[None]:
  before = {name: getattr(jax.config, name) for name in STRICT}
  for name, value in STRICT.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_a_sam_run_passes(
  strict: None,
  arguments: Callable[..., list[str]],
  capsys: pytest.CaptureFixture[str],
):
  code = main.run(arguments("sam"), time.monotonic())
  assert code == 0, capsys.readouterr().err
