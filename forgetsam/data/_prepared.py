"""The builder of a set on this machine; ours are built on first use."""

import contextlib
import io
import os
from typing import TYPE_CHECKING

from absl import logging

from forgetsam.data import _availability
from forgetsam.data._errors import DatasetNotFoundError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


def prepared_builder(
  name: str, data_dir: str | os.PathLike[str] | None
) -> "tfds.core.DatasetBuilder":
  """Finds a prepared set, or builds it where that needs no network.

  Raises:
    DatasetNotFoundError: as `check_available`.
  """
  builder = _availability.find_prepared(name, data_dir)
  if builder is None:
    _availability.check_available(name, data_dir)
    _build(name, data_dir)
    builder = _availability.find_prepared(name, data_dir)
  if builder is None:
    raise DatasetNotFoundError(
      f"Data set {name!r} does not exist: our sets have one version, 1.0.0."
      f" Ask for {name.partition(':')[0]!r}."
    )
  return builder


def _build(name: str, data_dir: str | os.PathLike[str] | None) -> None:
  """Writes one of our sets, unless another process just did."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import naming

  parsed, options = naming.parse_builder_name_kwargs(name)
  directory = _availability.own_directory(parsed.name, data_dir)
  kind = tfds.builder_cls(parsed.name)
  known = [config.name for config in kind.BUILDER_CONFIGS]
  config = options.get("config")
  if config is not None and config not in known:
    raise DatasetNotFoundError(
      f"Data set {name!r} does not exist: {parsed.name!r} has"
      f" {', '.join(known) or 'no configurations'}"
    )
  logging.info("Building %s in %s", name, os.fspath(directory))
  builder = kind(data_dir=directory, config=config)
  try:
    # TFDS announces a download and draws progress bars for this work.
    with (
      contextlib.redirect_stdout(io.StringIO()),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      builder.download_and_prepare()
  except OSError:
    # TFDS prepares in a directory of its own and renames that at the end: of
    # two processes the second cannot, and finds the first one's complete set.
    if not builder.data_path.exists():
      raise
