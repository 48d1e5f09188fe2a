"""Eight virtual CPU devices for every test, before JAX is first used."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Compiling is most of the work in these tests: three times faster without the
# passes that pay off over many executions.
os.environ.setdefault("XLA_FLAGS", "--xla_llvm_disable_expensive_passes=true")

import jax

jax.config.update(
  "jax_num_cpu_devices", int(os.environ.get("TEST_DEVICES", "8"))
)

# Programs that tests start keep what they compile here, not in the user's own
# cache; JAX has read its environment already, so this process is not changed.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled")
  atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"])
