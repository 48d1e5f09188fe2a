"""The builder of a set on this machine; ours are built on first use."""

import contextlib
import difflib
import importlib.util
import io
import os
from typing import TYPE_CHECKING

from absl import logging

from forgetsam.data._errors import DataError, DatasetNotFoundError
from forgetsam.data._identity import identify
from forgetsam.data._search import (
  HUB,
  OWN_SETS,
  PathLike,
  base_name,
  find_prepared,
  own_directory,
  searched,
  source_directory,
)
from forgetsam.data.formats import find_files

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# TFDS cannot download these: they need an account at image-net.org.
_TRAIN, _VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_MANUAL_FILES = {
  "imagenet2012": (_TRAIN, _VAL),
  "imagenet2012_real": (_VAL,),
  "imagenet2012_corrupted": (_VAL,),
}


def check_available(name: str, data_dir: PathLike | None = None) -> None:
  """Raises unless the set can be loaded without a network.

  Looks at directories only, and does not import TensorFlow. Remote directories
  (`gs://...`) are looked up where they are.

  Args:
    name: a TFDS name, with a configuration and a version if need be
      (`mnist_corrupted/fog:1.0.0`), or a path, as in `data.load`.
    data_dir: the directory that holds prepared sets. None: TFDS's own rules,
      `TFDS_DATA_DIR`, then `~/tensorflow_datasets`.

  Raises:
    DatasetNotFoundError: names the set, each directory where it was looked for
      and the command that gets it; for names unknown to TFDS, those like it.
  """
  if find_files(name) is not None or find_prepared(name, data_dir) is not None:
    return
  base = base_name(name)
  if name.startswith(HUB):
    _check_hub(name, data_dir)
    return
  if base in OWN_SETS:
    own_directory(base, data_dir)
    source = OWN_SETS[base]
    if source is not None:
      try:
        check_available(source, source_directory(source, data_dir))
      except DatasetNotFoundError as error:
        raise DatasetNotFoundError(
          f"Data set {base!r} is made of {source!r}. {error}"
        ) from error
    return
  places = "".join(f"\n  {place}" for place in searched(base, data_dir))
  import tensorflow_datasets as tfds

  _register_own_sets()
  # Community sets are listed on a server.
  known = tfds.list_builders(with_community_datasets=False)
  if base not in known:
    close = difflib.get_close_matches(base, known, n=4, cutoff=0.7)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    if "/" in name:
      hint += f" Nor is there a folder {os.path.abspath(name)}."
    elif os.path.isdir(name):
      hint += f" For the folder of that name here, write './{name}'."
    raise DatasetNotFoundError(
      f"Data set {name!r} is not known to TFDS.{hint}"
      f" No prepared set of that name was found in:{places}"
    )
  raise DatasetNotFoundError(
    f"Data set {name!r} is not on this machine. Looked in:{places}\n"
    "To get it, run in Python, where there is a network, `import"
    f' tensorflow_datasets as tfds; tfds.builder("{name}").'
    "download_and_prepare()`, or in a shell `tfds build"
    f" {name}`, which needs `pip install apache-beam`. Then copy it to one of"
    " these places, or pass as data_dir (or set TFDS_DATA_DIR to) the directory"
    " that holds it."
    f"\n{manual_files(base)}".rstrip()
  )


def _check_hub(name: str, data_dir: PathLike | None) -> None:
  """Refuses a set of the Hub that is not prepared, where it cannot be asked."""
  if importlib.util.find_spec("datasets") is None:
    places = "".join(f"\n  {place}" for place in searched(name, data_dir))
    raise DatasetNotFoundError(
      f"Data set {name!r} is not prepared in:{places}\nTo prepare it needs a"
      " network and `pip install datasets`. Without these, download its Parquet"
      " files, and give their folder as the name of the set."
    )


def manual_files(name: str) -> str:
  """Says which files to download by hand, and to where; "" for other sets."""
  if name not in _MANUAL_FILES:
    return ""
  return (
    f"TFDS builds it from {' and '.join(_MANUAL_FILES[name])}, which you get"
    " from https://image-net.org after signing in. Put them into"
    " downloads/manual/ below the data directory first, or say where they are:"
    f" `tfds build {name} --manual_dir=DIRECTORY`, after `pip install"
    " apache-beam`."
  )


def prepared_builder(
  name: str, data_dir: PathLike | None
) -> "tfds.core.DatasetBuilder":
  """Finds a prepared set, or builds it where that needs no network."""
  builder = find_prepared(name, data_dir)
  if builder is None:
    check_available(name, data_dir)
    if name.startswith(HUB):
      _fetch(name, data_dir)
    else:
      _build(name, data_dir)
    builder = find_prepared(name, data_dir)
  if builder is None and name.startswith(HUB):
    raise DatasetNotFoundError(
      f"Data set {name!r} was prepared under another name or version"
    )
  if builder is None and name.partition(":")[2] in ("", "1.0.0"):
    raise DataError(
      f"Data set {name!r} in {own_directory(name, data_dir)} cannot be opened:"
      " its features.json is missing\n  allowed: the file as TFDS wrote it; or"
      " remove the set's folder and prepare it again"
    )
  if builder is None:
    raise DatasetNotFoundError(
      f"Data set {name!r} does not exist: our sets have one version, 1.0.0."
      f" Ask for {name.partition(':')[0]!r}."
    )
  return builder


def prepared_name(name: str, data_dir: PathLike | None = None) -> str | None:
  """The name with the version that is found, or a path from the root.

  None where no version is prepared.

  Args:
    name: as in `check_available`.
    data_dir: as in `check_available`.
  """
  if (place := find_files(name)) is not None:
    return str(place.path)
  builder = find_prepared(name, data_dir)
  return None if builder is None else identify(builder.info, {}).name


def class_features(
  info: "tfds.core.DatasetInfo", label: str = "label", multi_label: bool = False
) -> "tuple[tfds.features.Image, tfds.features.ClassLabel]":
  """The image's feature, and that of the label or of one of the labels."""
  import tensorflow_datasets as tfds

  is_dict = isinstance(info.features, tfds.features.FeaturesDict)
  features = dict(info.features.items()) if is_dict else {}
  image, classes = features.get("image"), features.get(label)
  if multi_label and isinstance(classes, tfds.features.Sequence):
    classes = classes.feature
  if not isinstance(image, tfds.features.Image) or not isinstance(
    classes, tfds.features.ClassLabel
  ):
    raise ValueError(
      f"{info.full_name} must have an image feature 'image' and a class"
      f" feature {label!r}; it has {info.features}"
    )
  if (classes.num_classes or 0) < 2:
    raise ValueError(
      f"{info.full_name} has num_classes={classes.num_classes}; it must have"
      " two classes or more, or there is nothing to tell apart"
    )
  return image, classes


def _build(name: str, data_dir: PathLike | None) -> None:
  """Writes one of our sets, unless another process just did."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import naming

  _register_own_sets()
  parsed, options = naming.parse_builder_name_kwargs(name)
  directory = own_directory(parsed.name, data_dir)
  kind = tfds.builder_cls(parsed.name)
  known = [config.name for config in kind.BUILDER_CONFIGS]
  config = options.get("config")
  if config is not None and config not in known:
    raise DatasetNotFoundError(
      f"Data set {name!r} does not exist: {parsed.name!r} has"
      f" {', '.join(known) or 'no configurations'}"
    )
  source = OWN_SETS[parsed.name]
  if source is not None:
    prepared_builder(source, source_directory(source, data_dir))
  logging.info("Building %s in %s", name, os.fspath(directory))
  builder = kind(data_dir=directory, config=config)
  try:
    # TFDS announces a download and draws progress bars for this work.
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


def _fetch(name: str, data_dir: PathLike | None) -> None:
  """Downloads a set of the Hub, and prepares it as TFDS's are."""
  import tensorflow_datasets as tfds

  logging.info("Fetching %s", name)
  try:
    place = None if data_dir is None else os.fspath(data_dir)
    tfds.builder(name, data_dir=place).download_and_prepare()
  except Exception as error:  # of datasets, of its Hub's client, of TFDS
    raise DatasetNotFoundError(
      f"Data set {name!r} cannot be fetched: {error}\n  allowed: a set that"
      " `datasets` can load, without an account and without code of its own; or"
      " the folder of its Parquet files"
    ) from error


def _register_own_sets() -> None:
  """Makes the names of `OWN_SETS` known to TFDS, which is slow to import."""
  import forgetsam.data.biased._builders
  import forgetsam.data.digits  # noqa: F401
