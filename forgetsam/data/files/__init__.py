"""TFDS's files of serialised examples: records, decoding, corrupt ones."""

from forgetsam.data.files._checks import Agree, Checker
from forgetsam.data.files._fingerprints import (
  files_fingerprint,
  pixels_fingerprint,
)
from forgetsam.data.files._groups import find_groups, group_parser
from forgetsam.data.files._images import (
  DCT,
  Parse,
  check_image,
  decode,
  decode_other,
  is_jpeg,
  label_parser,
  parser,
)
from forgetsam.data.files._labels import (
  guard_labels,
  impossible_labels,
  in_words,
  read_impossible_labels,
)
from forgetsam.data.files._records import (
  Records,
  Store,
  check_files,
  find_records,
  in_order,
  part,
  read_positions,
  serialised,
)
from forgetsam.data.files._whole_split import decode_split

__all__ = [
  "DCT",
  "Agree",
  "Checker",
  "Parse",
  "Records",
  "Store",
  "check_files",
  "check_image",
  "decode",
  "decode_other",
  "decode_split",
  "files_fingerprint",
  "find_groups",
  "find_records",
  "group_parser",
  "guard_labels",
  "impossible_labels",
  "in_order",
  "in_words",
  "is_jpeg",
  "label_parser",
  "parser",
  "part",
  "pixels_fingerprint",
  "read_impossible_labels",
  "read_positions",
  "serialised",
]
