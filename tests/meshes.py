"""Meshes for tests, of the virtual devices that `TEST_DEVICES` gives."""

import re

import jax
import numpy as np
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


BYTES = {"f32": 4, "f64": 8, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}


def collective_bytes(hlo: str) -> dict[str, int]:
  """Bytes that each collective of an HLO program carries, by its name."""
  found: dict[str, int] = {}
  names = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
  pattern = rf"= (.*?) ({names})(?:-start)?\("
  for shapes, name in re.findall(pattern, hlo):
    total = 0
    for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
      size = np.prod([int(d) for d in dims.split(",") if d], dtype=int)
      total += BYTES[dtype] * int(size)
    found[name] = found.get(name, 0) + total
  return found
