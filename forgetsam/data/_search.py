"""Where sets lie on this machine, found out in a second and offline.

`tfds.load` of a missing set without a network retries for minutes before it
says so.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from forgetsam._lab import lab_packages
from forgetsam._paths import local_path, mistaken_scheme, scheme_of
from forgetsam.data._errors import DataError, DatasetNotFoundError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

PathLike = str | os.PathLike[str]

# Before the names of sets of the Hugging Face Hub, which TFDS prepares.
HUB = "huggingface:"

# Sets that are built here on first use, and the set that each is made of.
OWN_SETS = {
  "digits": None,
  "biased_digits": "digits",
  "biased_fashion": "fashion_mnist",
}


def find_prepared(
  name: str, data_dir: PathLike | None
) -> "tfds.core.DatasetBuilder | None":
  """The prepared set's builder, read from its files; None if there is none."""
  with lab_packages(f"the data set {name!r}"):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

  base_name(name)
  name = name.removeprefix(HUB)  # TFDS's folders do not have it
  for directory in searched(name, data_dir):
    unfinished: Exception | None = None
    try:  # TFDS itself looks at the newest version alone
      names = [name, *_versions(name, directory)]
    except Exception as error:  # TensorFlow's, where a place is out of reach
      raise _unreadable(name, directory, error) from error
    for one in names:
      try:
        return tfds.core.read_only_builder.builder_from_files(
          one, data_dir=directory
        )
      except registered.DatasetNotFoundError:
        continue
      except tfds.core.dataset_info.DatasetInfoFileError as error:
        unfinished = error  # there is no such file
      except Exception as error:  # TFDS raises many kinds over damaged files
        raise _unreadable(name, directory, error) from error
    if unfinished is not None:
      raise _unreadable(name, directory, unfinished) from unfinished
  return None


def _unreadable(
  name: str, directory: PathLike, error: Exception
) -> DatasetNotFoundError | DataError:
  if scheme_of(directory) is not None:
    return DatasetNotFoundError(
      f"{directory} cannot be read: {error}\nPass as data_dir a directory"
      " of this machine, or one that it can reach."
    )
  return DataError(
    f"Data set {name!r} in {directory} cannot be opened: its"
    f" dataset_info.json or features.json is damaged or missing: {error}\n"
    "  allowed: both files as TFDS wrote them; or remove the set's folder"
    " and prepare it again"
  )


def _versions(name: str, directory: PathLike) -> Iterator[str]:
  """The name with each version in a directory that it admits, newest first."""
  from etils import epath
  from tensorflow_datasets.core import naming
  from tensorflow_datasets.core.utils import version

  parsed, options = naming.parse_builder_name_kwargs(name)
  wanted, config = options.get("version"), options.get("config")
  if version.Version.is_valid(wanted):
    return
  root = epath.Path(directory) / parsed.name
  if config is not None:
    folders = [root / config]
  else:  # TFDS knows the default configuration
    folders = [root, *(root.iterdir() if root.is_dir() else [])]
  there = (folder for folder in folders if folder.is_dir())
  found = {v for folder in there for v in version.list_all_versions(folder)}
  for one in sorted(found, reverse=True):
    if wanted is None or one.match(wanted):
      yield f"{name.partition(':')[0]}:{one}"


def searched(name: str, data_dir: PathLike | None) -> list[PathLike]:
  """The directories that a set is looked for in, first to last."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.utils import file_utils

  if data_dir is not None:
    return [_directory("data_dir", data_dir)]
  _directory("TFDS_DATA_DIR", tfds.core.constants.DATA_DIR)  # or TFDS fails
  directories = [
    _directory("TFDS_DATA_DIR", place) for place in file_utils.list_data_dirs()
  ]
  if base_name(name) in OWN_SETS:
    return [*directories, _user_cache()]
  return directories


def source_directory(source: str, beside: PathLike | None) -> PathLike | None:
  """The `data_dir` of the set that one of ours is made of.

  Args:
    source: the other set's name.
    beside: the `data_dir` of ours.

  Returns:
    `beside`, if the other set is there or is yet to be built there; else None.
  """
  found_beside = find_prepared(source, beside) is not None
  if found_beside or find_prepared(source, None) is None:
    return beside
  return None


def own_directory(name: str, data_dir: PathLike | None) -> PathLike:
  """Where our sets are built: `data_dir`, TFDS's default, or a user cache."""
  import tensorflow_datasets as tfds

  directories: list[PathLike] = (
    [_directory("TFDS_DATA_DIR", tfds.core.constants.DATA_DIR), _user_cache()]
    if data_dir is None
    else [_directory("data_dir", data_dir)]
  )
  for directory in directories:
    if _is_writable(directory):
      return directory
  listed = "".join(f"\n  {directory}" for directory in directories)
  raise DatasetNotFoundError(
    f"Data set {name!r} is built on first use, but no files can be written"
    f" to:{listed}\nPass a directory that can be written to as data_dir."
  )


def base_name(name: str) -> str:
  """A set's name without configuration and version."""
  from tensorflow_datasets.core import naming

  try:
    parsed, _ = naming.parse_builder_name_kwargs(name)
  except ValueError as error:
    raise DatasetNotFoundError(
      f"{name!r} is not the name of a TFDS data set. Names look like"
      " 'fashion_mnist', 'mnist_corrupted/fog' or 'cifar10:3.0.2'."
    ) from error
  if parsed.namespace and not name.startswith(HUB):
    raise DatasetNotFoundError(
      f"Data set {name!r}: sets of other collections (the part before the"
      f" colon) are not supported, only TFDS's own and those of {HUB}"
    )
  return str(parsed.name)


def _directory(name: str, value: PathLike) -> PathLike:
  """A local directory, or one on gs://, which TFDS reads where it is."""
  if scheme_of(value) == "gs":
    return value
  path = local_path(name, value)
  if (scheme := mistaken_scheme(path)) is not None:
    raise ValueError(
      f"{name}={os.fspath(value)!r} is refused\n  allowed: a folder that is not"
      f" below /{scheme}, which TFDS takes for {scheme}://"
    )
  return path


def _user_cache() -> Path:
  cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return local_path("XDG_CACHE_HOME", cache) / "forgetsam" / "tfds"


def _is_writable(directory: PathLike) -> bool:
  """Whether it is, or could be made, a local directory that takes files."""
  if scheme_of(directory) is not None:
    return False
  path = Path(directory)
  try:
    while not path.exists() and path != path.parent:
      path = path.parent
  except OSError:  # too long a name, for one
    return False
  return path.is_dir() and os.access(path, os.W_OK | os.X_OK)
