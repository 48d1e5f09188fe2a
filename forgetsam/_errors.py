"""Errors that `main.py` turns into an exit code, light to import."""


class CheckpointError(ValueError):
  """No checkpoint of a folder can be used."""


class DataError(RuntimeError):
  """Examples of a set cannot be read, or are no images."""
