"""TFDS's files of serialised examples: records, decoding, corrupt ones."""

from forgetsam.data.files._checks import Agree, Checker
from forgetsam.data.files._images import (
  DCT,
  Parse,
  check_image,
  decode,
  decode_other,
  parser,
)
from forgetsam.data.files._records import (
  Records,
  find_records,
  in_order,
  part,
  serialised,
)
from forgetsam.data.files._whole_split import decode_split

__all__ = [
  "DCT",
  "Agree",
  "Checker",
  "Parse",
  "Records",
  "check_image",
  "decode",
  "decode_other",
  "decode_split",
  "find_records",
  "in_order",
  "parser",
  "part",
  "serialised",
]
