"""Identifies a set: its name and version, and a fingerprint of each split."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# A split's number of examples and, of one kind, a digest of its content; None
# where an example could not be read.
Fingerprint = Mapping[str, int | str | None]


class SetIdentity(NamedTuple):
  """A set as it was found.

  Attributes:
    name: the TFDS name, with configuration and version.
    splits: fingerprints of the splits that are read, by their names.
    classes: their names, where files of one's own name them.
  """

  name: str
  splits: Mapping[str, Fingerprint]
  classes: Sequence[str] = ()


def identify(
  info: "tfds.core.DatasetInfo", splits: Mapping[str, Fingerprint]
) -> SetIdentity:
  """A prepared set's name, as TFDS takes it, beside its fingerprints."""
  return SetIdentity(":".join(info.full_name.rsplit("/", 1)), splits)
