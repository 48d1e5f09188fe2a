"""Whether a set is on this machine, found out in a second and offline.

`tfds.load` of a missing set without a network retries for minutes before it
says so.
"""

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from forgetsam.data._errors import DatasetNotFoundError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


# What TFDS cannot download: these need an account at image-net.org.
_TRAIN, _VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_MANUAL_FILES = {
  "imagenet2012": (_TRAIN, _VAL),
  "imagenet2012_real": (_VAL,),
  "imagenet2012_corrupted": (_VAL,),
}

# What is built here on first use, and the set that it is made of.
OWN_SETS = {
  "digits": None,
  "biased_digits": "digits",
  "biased_fashion": "fashion_mnist",
}


def check_available(
  name: str, data_dir: str | os.PathLike[str] | None = None
) -> None:
  """Raises unless the set can be loaded without a network.

  Looks at directories only, and does not import TensorFlow. Remote directories
  (`gs://...`) are looked up where they are.

  Args:
    name: a TFDS name, with a configuration and a version if need be
      (`mnist_corrupted/fog:1.0.0`).
    data_dir: the directory that holds prepared sets. None: TFDS's own rules,
      `TFDS_DATA_DIR`, then `~/tensorflow_datasets`.

  Raises:
    DatasetNotFoundError: names the set, each place where it was looked for and
      the command that gets it; for names unknown to TFDS, those like it.
  """
  if find_prepared(name, data_dir) is not None:
    return
  base_name = _parse(name)
  if base_name in OWN_SETS:
    own_directory(base_name, data_dir)
    _check_source(base_name, data_dir)
    return
  places = "".join(f"\n  {place}" for place in searched(base_name, data_dir))
  known = _known_names()
  if base_name not in known:
    close = difflib.get_close_matches(base_name, known, n=4, cutoff=0.7)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise DatasetNotFoundError(
      f"Data set {name!r} is not known to TFDS.{hint}"
      f" No prepared set of that name was found in:{places}"
    )
  raise DatasetNotFoundError(
    f"Data set {name!r} is not on this machine. Looked in:{places}\n"
    f"To get it, run `tfds build {name}`, or in Python"
    f' `tfds.builder("{name}").download_and_prepare()`, where there is a'
    " network. Then copy it to one of these places, or pass as data_dir (or"
    " set TFDS_DATA_DIR to) the directory that holds it."
    f"\n{manual_files(base_name)}".rstrip()
  )


def manual_files(name: str) -> str:
  """What to download by hand before a set is built, and to where; or ""."""
  if name not in _MANUAL_FILES:
    return ""
  return (
    f"TFDS builds it from {' and '.join(_MANUAL_FILES[name])}, which you get"
    " from https://image-net.org after signing in. Put them into"
    " downloads/manual/ below the data directory first, or say where they are"
    f" with `tfds build {name} --manual_dir=DIRECTORY`."
  )


def find_prepared(
  name: str, data_dir: str | os.PathLike[str] | None
) -> "tfds.core.DatasetBuilder | None":
  """The prepared set's builder, read from its files; None if there is none."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import registered

  if _parse(name) in OWN_SETS:
    register_own_sets()
  for place in searched(name, data_dir):
    try:
      return tfds.core.read_only_builder.builder_from_files(
        name, data_dir=place
      )
    except registered.DatasetNotFoundError:
      continue
  return None


def searched(
  name: str, data_dir: str | os.PathLike[str] | None
) -> list[str | os.PathLike[str]]:
  """The directories that a set is looked for in, first to last."""
  from tensorflow_datasets.core.utils import file_utils

  if data_dir is not None:
    return [os.path.expanduser(data_dir)]
  places = file_utils.list_data_dirs()
  return [*places, user_cache()] if _parse(name) in OWN_SETS else places


def source_directory(
  source: str, beside: str | os.PathLike[str] | None
) -> str | os.PathLike[str] | None:
  """Where the set that another is made of lies: beside it, or anywhere.

  A set that is nowhere yet is to be built beside the other.
  """
  found_beside = find_prepared(source, beside) is not None
  if found_beside or find_prepared(source, None) is None:
    return beside
  return None


def own_directory(
  name: str, data_dir: str | os.PathLike[str] | None
) -> str | os.PathLike[str]:
  """Where our sets are built: `data_dir`, TFDS's default, or a user cache.

  Raises:
    DatasetNotFoundError: where nothing can be written to any of them.
  """
  import tensorflow_datasets as tfds

  places: list[str | os.PathLike[str]] = (
    [tfds.core.constants.DATA_DIR, user_cache()]
    if data_dir is None
    else [data_dir]
  )
  for place in places:
    if _can_be_written(Path(place).expanduser()):
      return os.path.expanduser(place)
  listed = "".join(f"\n  {place}" for place in places)
  raise DatasetNotFoundError(
    f"Data set {name!r} is built on first use, but no files can be written"
    f" to:{listed}\nPass a directory that can be written to as data_dir."
  )


def user_cache() -> Path:
  """The directory for sets built here when TFDS's own is read-only."""
  cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return Path(cache).expanduser() / "forgetsam" / "tfds"


def register_own_sets() -> None:
  """Makes the names of `OWN_SETS` known to TFDS."""
  import forgetsam.data.biased._builders
  import forgetsam.data.digits  # noqa: F401


def _check_source(name: str, data_dir: str | os.PathLike[str] | None) -> None:
  """Raises where the set that `name` is made of is not there."""
  source = OWN_SETS[name]
  if source is None:
    return
  try:
    check_available(source, source_directory(source, data_dir))
  except DatasetNotFoundError as error:
    raise DatasetNotFoundError(
      f"Data set {name!r} is made of {source!r}. {error}"
    ) from error


def _parse(name: str) -> str:
  """The set's name without configuration and version."""
  from tensorflow_datasets.core import naming

  try:
    parsed, _ = naming.parse_builder_name_kwargs(name)
  except ValueError as error:
    raise DatasetNotFoundError(
      f"{name!r} is not the name of a TFDS data set. Names look like"
      " 'fashion_mnist', 'mnist_corrupted/fog' or 'cifar10:3.0.2'."
    ) from error
  if parsed.namespace:
    raise DatasetNotFoundError(
      f"Data set {name!r}: sets of other collections (the part before the"
      " colon) are not supported, only TFDS's own."
    )
  return str(parsed.name)


def _known_names() -> list[str]:
  """Every set that TFDS can prepare, those of this project included."""
  import tensorflow_datasets as tfds

  register_own_sets()
  # Community sets are listed on a server.
  return list(tfds.list_builders(with_community_datasets=False))


def _can_be_written(path: Path) -> bool:
  """Whether `path` is, or could be made, a directory that takes files."""
  while not path.exists() and path != path.parent:
    path = path.parent
  return path.is_dir() and os.access(path, os.W_OK | os.X_OK)
