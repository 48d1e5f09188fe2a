"""The builder of a set on this machine; digits are built on first use."""

import contextlib
import io
import os
from typing import TYPE_CHECKING

from absl import logging

from forgetsam.data import _availability

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
    _build_digits(_availability.digits_directory(data_dir))
    builder = _availability.find_prepared(name, data_dir)
  if builder is None:
    raise _availability.DatasetNotFoundError(
      f"Data set {name!r} does not exist: the digits have one version, 1.0.0,"
      " and no configurations. Ask for 'digits'."
    )
  return builder


def _build_digits(directory: str | os.PathLike[str]) -> None:
  """Writes the set below `directory`, unless another process just did."""
  from forgetsam.data import digits

  logging.info("Building the digits in %s", os.fspath(directory))
  builder = digits.Digits(data_dir=directory)
  try:
    # TFDS announces a download and draws progress bars for this second's work.
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
