"""Folders with a folder of images for each class."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from forgetsam.data._errors import DataError
from forgetsam.data._subsets import Purpose, draws
from forgetsam.data._tensorflow import tf
from forgetsam.data.files import Parse, Records, Store, read_positions
from forgetsam.data.formats._array_names import split_called, split_in
from forgetsam.data.formats._file_split import FileSplit, ImageFiles

_SUFFIXES = frozenset(
  (".bmp", ".gif", ".jpeg", ".jpg", ".jpe", ".png", ".tif", ".tiff", ".webp")
)
# Consecutive examples of a shuffled split that are read together.
_RUN = 64

_LAYOUT = (
  "a folder of images for each class, as in cat/1.jpg and dog/7.png; or such"
  " folders within train, validation and test"
)


def find_image_folders(path: Path) -> ImageFiles:
  """The images of a folder, by split and class.

  Raises:
    DataError: there are none, or a class has none, or splits differ in classes.
  """
  folders = _folders(path)
  if not folders:
    raise DataError(f"{path} holds no folders\n  allowed: {_LAYOUT}")
  splits = _split_folders(folders)
  if not splits:
    roots = {"train": path}
  elif strays := [f.name for f in folders if f.name not in splits]:
    without = "no folders of classes in"
    held = [f"{without} {n}" if split_called(n) else n for n in strays]
    raise DataError(
      f"{path} holds {', '.join(held)} beside {', '.join(splits)}\n  allowed:"
      f" {_LAYOUT}"
    )
  else:
    roots = {}
    for name, split in splits.items():
      if split in roots:
        raise DataError(
          f"{path} holds {name} and {roots[split].name}, which are both"
          f" {split}\n  allowed: one of them"
        )
      roots[split] = path / name
  images = {split: _images_by_class(root) for split, root in roots.items()}
  classes = sorted(images.get("train") or next(iter(images.values())))
  found: dict[str, FileSplit] = {
    split: _split(path, roots[split], split, by_class, classes)
    for split, by_class in images.items()
  }
  return ImageFiles(path, found, classes)


def _split_folders(folders: list[Path]) -> dict[str, str]:
  """Splits by their folders: such as `test`, or `test_set` if all are such."""
  nested = [folder.name for folder in folders if _folders(folder)]
  alike = {name: split for name in nested if (split := split_in(name))}
  if len(alike) == len(folders):
    return alike
  return {name: split for name in nested if (split := split_called(name))}


def _folders(path: Path) -> list[Path]:
  with os.scandir(path) as entries:
    names = [e.name for e in entries if e.is_dir() and not _is_hidden(e.name)]
  return [path / name for name in sorted(names)]


def _is_hidden(name: str) -> bool:
  return name.startswith((".", "__"))  # such as __MACOSX


def _images_by_class(root: Path) -> dict[str, list[tuple[str, int]]]:
  """Paths from the root and sizes of each class's images, sorted."""
  found = {}
  for folder in _folders(root):
    images = []
    for base, folders, names in os.walk(folder, followlinks=True):
      folders[:] = [f for f in folders if not _is_hidden(f)]
      folders[:] = [f for f in folders if not _leads_back(base, f)]
      for name in names:
        if os.path.splitext(name)[1].lower() in _SUFFIXES and name[0] != ".":
          file = os.path.join(base, name)
          images.append((os.path.relpath(file, root), os.path.getsize(file)))
    if not images:
      raise DataError(
        f"{folder} holds no images\n  allowed: at least one"
        f" {', '.join(sorted(_SUFFIXES))} file for each class; or remove it"
      )
    found[folder.name] = sorted(images)
  return found


def _leads_back(base: str, name: str) -> bool:
  """Whether a link in a folder leads to that folder, or to one above it."""
  link = Path(base, name)
  return link.is_symlink() and Path(base).resolve().is_relative_to(
    link.resolve()
  )


def _split(
  path: Path,
  root: Path,
  split: str,
  by_class: Mapping[str, list[tuple[str, int]]],
  classes: list[str],
) -> "FolderSplit":
  if unknown := [name for name in by_class if name not in classes]:
    raise DataError(
      f"{root} holds the classes {', '.join(unknown)}, which the training split"
      f" lacks\n  allowed: {', '.join(classes)}"
    )
  files = [image for name in classes for image in by_class.get(name, ())]
  labels = np.repeat(
    np.arange(len(classes)), [len(by_class.get(name, ())) for name in classes]
  )
  return FolderSplit(
    f"Split {split!r} of {path}", root, files, labels.astype(np.int32)
  )


class FolderSplit:
  """A split whose examples are image files, sorted by class and name."""

  def __init__(
    self,
    name: str,
    root: Path,
    files: list[tuple[str, int]],
    labels: Int32[np.ndarray, " n"],
  ):
    self.name, self.labels = name, labels
    self._root, self._files = root, files

  @property
  def num_bytes(self) -> int:
    """See `FileSplit`."""
    return sum(size for _, size in self._files)

  def where(self, position: int) -> str:
    """See `FileSplit`."""
    return str(self._root / self._files[position][0])

  def check_stream(self) -> None:
    """See `FileSplit`: a file is an image."""

  def encoded(self, position: int) -> bytes:
    """See `FileSplit`."""
    return Path(self.where(position)).read_bytes()

  def digest(self) -> str:
    """See `FileSplit`: names and sizes."""
    return hashlib.sha256(repr(self._files).encode()).hexdigest()

  def shuffled(
    self, positions: Int64[np.ndarray, " m"]
  ) -> Int64[np.ndarray, " m"]:
    """See `FileSplit`: windows of sorted classes would be of one class."""
    keys = draws(len(self.labels), seed=0, purpose=Purpose.STORED_ORDER)
    return positions[np.argsort(keys[positions], kind="stable")]

  def open(
    self, positions: Int64[np.ndarray, " m"]
  ) -> tuple[Records, Store, Parse]:
    """See `FileSplit`."""
    first = np.arange(0, len(positions), _RUN)
    records = Records(
      path=np.full(len(first), str(self._root)),
      skip=np.zeros_like(first),
      take=np.minimum(_RUN, len(positions) - first),
      first=first,
      origin=first,
    )
    paths = tf.constant([os.fsencode(self.where(int(i))) for i in positions])
    labels = tf.constant(self.labels[positions])

    def parse(row: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
      return tf.io.read_file(tf.gather(paths, row)), tf.gather(labels, row)

    return records, Store(read_positions, positions, self.where), parse
