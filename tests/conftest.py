"""Virtual CPU devices, one cache of compiled programs, and bounded memory."""

import atexit
import ctypes
import gc
import importlib.metadata
import os
import resource
import runpy
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell starts its background jobs with SIGINT ignored, also in what they
# start; tests interrupt programs as a terminal does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# JAX reads these when it is first imported. Compiling is most of the work in
# these tests: a step takes a fifth to a half of the time without LLVM's passes,
# which pay off over many executions.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0 "
  "--xla_cpu_parallel_codegen_split_count=1"
  # jaxlib 0.11 does not know it, and ends where it does not know a flag.
  + " --xla_cpu_use_fusion_emitters=false"
  * importlib.metadata.version("jaxlib").startswith("0.10."),
)
# Both workers and the programs that tests start compile a program once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled")
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
  atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"])

import jax

jax.config.update(
  "jax_num_cpu_devices", int(os.environ.get("TEST_DEVICES", "8"))
)

# The hook of --jaxtyping-packages compiles from source what its packages are
# the first to import. A worker of the whole suite imports all of it.
if "PYTEST_XDIST_WORKER" in os.environ:
  path = Path(__file__).parents[1] / "forgetsam" / "data" / "_tensorflow.py"
  runpy.run_path(str(path))["import_tensorflow"]()
  import orbax.checkpoint  # noqa: F401

MOST_MEMORY = 1.25e9  # bytes of a process, between two files
MOST_IN_A_FILE = 1.6e9  # between two tests of one
WORTH_FREEING = 0.2e9


def held_memory() -> int:
  """Bytes that this process holds; 0 where the system does not say."""
  statm = Path("/proc/self/statm")
  pages = int(statm.read_text().split()[1]) if statm.exists() else 0
  return pages * resource.getpagesize()


class BoundedMemory:
  """Frees what files compiled: all of them would take 5 GB a process.

  A plugin, because doctests and notebooks see no fixtures of this folder.
  """

  def __init__(self) -> None:
    self._kept = 0

  @pytest.hookimpl(wrapper=True)
  def pytest_runtest_teardown(
    self, item: pytest.Item, nextitem: pytest.Item | None
  ) -> Iterator[None]:
    yield
    in_a_file = nextitem is not None and nextitem.path == item.path
    most = MOST_IN_A_FILE if in_a_file else MOST_MEMORY
    if held_memory() > max(most, self._kept + WORTH_FREEING):
      jax.clear_caches()
      gc.collect()
      # Only glibc keeps what is freed, half a gigabyte of it, until it is told.
      getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)
      self._kept = held_memory()


# Long files come first, so that both workers end at the same time.
LONG = ("notebooks", "tests/experiment", "tests/recipes", "tests/training")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Starts with the folders of the longest files; notebooks are slow."""
  for item in items:
    if item.nodeid.startswith("notebooks"):
      item.add_marker("slow")
  items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
  """Spares the collector what was imported, which stays to the end."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(20_000, 20, 50)


class PeakMemory:
  """Reports the most memory that each test process has held."""

  def __init__(self) -> None:
    self._peaks: dict[str, int] = {}

  def pytest_sessionfinish(self, session: pytest.Session) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    worker = getattr(session.config, "workeroutput", None)
    if worker is None:
      self._peaks["main"] = peak
    else:
      worker["peak"] = peak

  @pytest.hookimpl(optionalhook=True)
  def pytest_testnodedown(self, node, error) -> None:  # xdist, per worker
    output = getattr(node, "workeroutput", {})  # none from one that crashed
    self._peaks[node.gateway.id] = output.get("peak", 0)

  def pytest_terminal_summary(self, terminalreporter) -> None:
    found = ", ".join(f"{k} {v} MB" for k, v in sorted(self._peaks.items()))
    terminalreporter.write_line(f"peak memory: {found}")


def pytest_configure(config: pytest.Config) -> None:
  config.pluginmanager.register(PeakMemory())
  config.pluginmanager.register(BoundedMemory())
