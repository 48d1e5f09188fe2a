"""TensorFlow, imported when first used: it costs several seconds."""

import functools
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any


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
  import tensorflow as tf

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
