"""Says whether the newest JAX can be admitted.

Run as: python scripts/check_newest_jax.py

Installs the newest JAX alone, on the newest Python at hand (each release drops
old ones), into an environment that is thrown away, and takes values and
gradients of `lax.erf` and of a GELU inside `shard_map`, with check_vma, on four
virtual devices. jax 0.12.0 and 0.12.0.1 fail ("Primitive polynomial requires
varying manual axes to match"). Once a release passes, requirements/core.txt
may admit it. Exit code: 0 passes, 1 broken.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pythons import newer_pythons

PROBE = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P

jax.config.update("jax_num_cpu_devices", 4)
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
x = jnp.linspace(-3.0, 3.0, 8)
broken = False
for name, function in {
  "lax.erf": jax.lax.erf,
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}.items():
  mean = jax.shard_map(
    lambda x: jax.lax.pmean(jnp.mean(function(x)), "data"),
    mesh=mesh, in_specs=P("data"), out_specs=P(), check_vma=True,
  )
  for kind, program in {"value": mean, "gradient": jax.grad(mean)}.items():
    try:
      jax.block_until_ready(jax.jit(program)(x))
      found = "fine"
    except Exception as error:
      found, broken = f"{type(error).__name__}: {error}", True
    print(f"jax {jax.__version__}: {kind} of {name} in shard_map: {found}")
raise SystemExit(broken)
"""


def main() -> int:
  """Installs, probes, and returns the exit code."""
  newest = next(iter(newer_pythons(sys.version_info[:2])), sys.executable)
  with tempfile.TemporaryDirectory() as directory:
    subprocess.run([newest, "-m", "venv", directory], check=True)
    python = str(Path(directory) / "bin" / "python")
    install = (python, "-m", "pip", "install", "--quiet", "--quiet", "jax")
    subprocess.run(install, check=True)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    probe = [python, "-c", PROBE]
    broken = subprocess.run(probe, env=environment, check=False).returncode
  print("Broken: exclude it." if broken else "It passes: admit it.")
  return min(broken, 1)


if __name__ == "__main__":
  sys.exit(main())
