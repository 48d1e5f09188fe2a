"""Packages that the core does without, and how to install them."""

import contextlib
from collections.abc import Iterator


class MissingPackageError(ModuleNotFoundError):
  """A package of the lab is not installed."""


@contextlib.contextmanager
def lab_packages(user: str) -> Iterator[None]:
  """Says how to install a package of the lab whose import fails.

  Args:
    user: what needs the packages, such as "forgetsam.sharpness".

  Raises:
    MissingPackageError: an import inside, or inside the decorated function,
      finds no such package.

  Example:
    >>> with lab_packages("forgetsam.sharpness"):
    ...   import no_such_package
    Traceback (most recent call last):
    forgetsam._lab.MissingPackageError: forgetsam.sharpness needs ...
  """
  try:
    yield
  except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    if package == "forgetsam":
      raise
    raise MissingPackageError(
      f"{user} needs {package}, which is not installed: "
      "pip install 'forgetsam[lab]'",
      name=error.name,
    ) from error
