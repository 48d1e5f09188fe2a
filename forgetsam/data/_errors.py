"""Errors of data sets, light to import."""


class DatasetNotFoundError(ValueError):
  """The set is unknown, or it is not on this machine."""


class DataError(RuntimeError):
  """Examples of a set cannot be read, or are no images."""
