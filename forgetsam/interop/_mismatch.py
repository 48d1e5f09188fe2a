"""The error that lists all names that do not fit."""

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(given: Shapes, expected: Shapes, what: str) -> None:
  """Raises a ValueError unless both have the same names and shapes.

  Args:
    given: the shapes of the arrays at hand, by name.
    expected: the shapes that the model has.
    what: what was given and for which model, for the message.

  Raises:
    ValueError: something is missing, unexpected or of another shape; the
      message lists every name.
  """
  missing = sorted(expected.keys() - given.keys())
  unexpected = sorted(given.keys() - expected.keys())
  mismatched = [
    f"{name} {tuple(given[name])} instead of {tuple(shape)}"
    for name, shape in sorted(expected.items())
    if name in given and tuple(given[name]) != tuple(shape)
  ]
  lists = {
    "missing": missing,
    "unexpected": unexpected,
    "of another shape": mismatched,
  }
  found = [
    f"{kind}: {', '.join(names)}" for kind, names in lists.items() if names
  ]
  if found:
    raise ValueError(f"{what} does not fit. " + "; ".join(found) + ".")
