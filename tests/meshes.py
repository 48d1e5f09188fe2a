"""Meshes for tests, of the virtual devices that `TEST_DEVICES` gives."""

import jax
import pytest
from jax.sharding import AxisType, Mesh


def data_mesh(devices: int | None = None) -> Mesh:
  """A mesh of the first devices, or of all; skips where there are fewer."""
  devices = devices or jax.device_count()
  if devices > jax.device_count():
    pytest.skip(f"needs {devices} devices")
  return jax.make_mesh(
    (devices,),
    ("data",),
    axis_types=(AxisType.Auto,),
    devices=jax.devices()[:devices],
  )
