"""Errors that `main.py` turns into an exit code, light to import."""


class CheckpointError(ValueError):
  """No checkpoint of a folder can be used."""
