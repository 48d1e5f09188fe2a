"""TensorFlow, imported when first used: it costs several seconds."""

import atexit
import functools
import os
import weakref
from collections.abc import Generator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np


@functools.cache
def import_tensorflow() -> ModuleType:
  """Imports TensorFlow without start-up noise and without the accelerators.

  TensorFlow only reads images here. Left alone, it would claim the memory of
  every GPU that it sees, which JAX needs.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or it announces itself
  # With its older version chosen, which is not installed, TensorFlow does not
  # import Keras: half of its start, for what nothing here uses.
  chosen = "TF_USE_LEGACY_KERAS" in os.environ
  os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
  try:
    import tensorflow as tf
  except ModuleNotFoundError:
    from forgetsam._lab import lab_packages

    with lab_packages("reading data"):
      raise

  if not chosen:
    del os.environ["TF_USE_LEGACY_KERAS"]
  if tf.config.get_visible_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")
  return tf


if TYPE_CHECKING:
  import tensorflow as tf
else:

  class _Lazy:
    """`import_tensorflow()`, called at the first attribute that is read."""

    def __getattr__(self, name: str) -> Any:
      return getattr(import_tensorflow(), name)

  tf = _Lazy()


_READING: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


def numpy_batches(
  batches: "tf.data.Dataset", *, threads: int, ahead: int
) -> Iterator[dict[str, np.ndarray]]:
  """Iterates in a fixed order, `ahead` batches early."""
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  options.threading.private_threadpool_size = threads
  options.threading.max_intra_op_parallelism = 1
  # A finished image is written straight to its row of the batch.
  options.experimental_optimization.map_and_batch_fusion = True
  batches = batches.prefetch(ahead).with_options(options)
  reading = _each(batches.as_numpy_iterator())
  _READING.add(reading)
  return reading


def _each(iterator: Iterator[Any]) -> Generator[Any, None, None]:
  yield from iterator


@atexit.register
def _stop_reading() -> None:
  """Ends threads that call Python, which would wait for it for ever."""
  for reading in list(_READING):
    reading.close()


def permutation(count: "int | tf.Tensor", key: "tf.Tensor") -> "tf.Tensor":
  """A random order of `range(count)`."""
  # Not stateless_shuffle: its result may change between versions.
  draws = tf.random.stateless_uniform(
    [count], key, None, None, tf.int64, alg="philox"
  )
  return tf.argsort(draws, stable=True)
