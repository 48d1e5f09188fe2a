"""The names that arrays go by in files and mappings."""

import re
from collections.abc import Iterable, Mapping

SPLITS = {
  "train": ("train", "training"),
  "validation": ("validation", "valid", "val", "dev"),
  "test": ("test", "testing"),
}
_COLUMNS = {
  "images": ("image", "images", "input", "inputs", "x", "data", "features"),
  "labels": ("label", "labels", "target", "targets", "y"),
  "groups": ("group", "groups"),
  "weights": ("mask", "masks", "weight", "weights"),
}

# Of `forms` in errors.
FORMS = (
  "image and label; or x_train, y_train, x_test, y_test; or train_images,"
  " train_labels, test_images, test_labels; val_ for validation; mask for"
  " weights, group for groups"
)


def split_called(name: str) -> str | None:
  """The split that goes by a name, such as "val"; None for other names."""
  for split, names in SPLITS.items():
    if name.lower() in names:
      return split
  return None


def split_in(name: str) -> str | None:
  """The split that a file's or folder's name begins with, or else tells alone.

  None where it tells none, or several.
  """
  first, *more = map(split_called, re.split(r"[^A-Za-z]+", name))
  told = {split for split in more if split}
  return first or (told.pop() if len(told) == 1 else None)


def place_arrays(names: Iterable[str]) -> Mapping[tuple[str, str], str]:
  """Each array's name, by its split and column.

  Raises:
    ValueError: a name tells neither, or two mean the same.
  """
  found: dict[tuple[str, str], str] = {}
  for name in names:
    place = _place(name)
    if place is None or place in found:
      other = f", as {found[place]!r}" if place else ""
      text = f"means {' '.join(place)}{other}" if place else "has no meaning"
      raise ValueError(f"the array {name!r} {text}\n  allowed: {FORMS}")
    found[place] = name
  if not found:
    raise ValueError(f"there are no arrays\n  allowed: {FORMS}")
  return found


def _place(name: str) -> tuple[str, str] | None:
  for column, columns in _COLUMNS.items():
    for word in columns:
      if name.lower() == word:
        return "train", column
      for split, splits in SPLITS.items():
        if name.lower() in {f"{word}_{s}" for s in splits} | {
          f"{s}_{word}" for s in splits
        }:
          return split, column
  return None
