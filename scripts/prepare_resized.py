"""Writes a TFDS set with smaller images: python -m scripts.prepare_resized.

    python -m scripts.prepare_resized --name=imagenet2012 --output=DIR

The images' shorter side becomes --short_side pixels (Pillow's bicubic, JPEG of
--quality); smaller images are copied, as are labels and the order. The set
keeps its name: --config.data.dir=DIR reads the smaller one. It takes a fraction
of the time to decode, and its pixels are others: see benchmarks/README.md.
"""

import argparse
import concurrent.futures
import functools
import io
import itertools
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from PIL import Image

from forgetsam import data

_AHEAD = 32  # images that wait for each process


def resized(short_side: int, quality: int, encoded: bytes) -> bytes:
  """An image file whose shorter side is at most `short_side`.

  Args:
    short_side: in pixels; the longer one follows, rounded down.
    quality: of the JPEG, 1 to 100.
    encoded: an image file that Pillow reads.

  Returns:
    `encoded` itself where it is small enough, or a JPEG.

  Raises:
    ValueError: the image has more than 8 bits a channel.

  Example:
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (50, 40)).save(file, "PNG")
    >>> small = resized(20, 90, file.getvalue())
    >>> Image.open(io.BytesIO(small)).size
    (25, 20)
  """
  image = Image.open(io.BytesIO(encoded))
  shorter = min(image.size)
  if shorter <= short_side:
    return encoded
  if image.mode.startswith(("I", "F")):
    raise ValueError(
      f"an image of mode {image.mode!r} has more than 8 bits a channel; leave"
      " it out of the set"
    )
  image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
  sides = [short_side * side // shorter for side in image.size]
  file = io.BytesIO()
  small = image.resize(sides, Image.Resampling.BICUBIC)
  small.save(file, "JPEG", quality=quality)
  return file.getvalue()


def prepare(
  name: str,
  short_side: int,
  *,
  output: str,
  quality: int = 90,
  data_dir: str | None = None,
  processes: int = 1,
) -> Any:
  """Writes the smaller set.

  Args:
    name: a prepared TFDS set with the feature `image`.
    short_side: in pixels.
    output: the directory of sets to write to.
    quality: of the JPEGs.
    data_dir: the directory that holds the set. None: TFDS's own rules.
    processes: that decode and encode.

  Returns:
    Its folder.

  Raises:
    DatasetNotFoundError: the set is not on this machine.
    ValueError: its images are none of uint8, or the new set is there already.
  """
  data.check_available(name, data_dir)
  data.import_tensorflow()  # before TFDS does, without this project's settings
  import tensorflow_datasets as tfds

  source = tfds.core.read_only_builder.builder_from_files(
    name, data_dir=data_dir
  )
  features = dict(source.info.features)
  image = features.get("image")
  if not isinstance(image, tfds.features.Image) or image.np_dtype != "uint8":
    raise ValueError(f"name={name!r} has no feature `image` of uint8 images")
  features["image"] = tfds.features.Image(
    shape=(None, None, image.shape[-1]), encoding_format="jpeg"
  )
  config = source.info.config_name
  resize = functools.partial(resized, short_side, quality)

  class Resized(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The set with smaller images."""

    VERSION = source.version
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

    def _info(self) -> Any:
      return tfds.core.DatasetInfo(
        builder=self,
        description=f"{source.info.description}\nResized: the shorter side is "
        f"at most {short_side} pixels, JPEGs of quality {quality}.",
        features=tfds.features.FeaturesDict(features),
        citation=source.info.citation,
        disable_shuffling=True,  # the order stays
      )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
      del dl_manager  # nothing is downloaded
      return {
        split: self._generate_examples(split) for split in source.info.splits
      }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Any]]:
      stored = source.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
      )
      examples = iter(stored.as_numpy_iterator())
      i = -1
      try:
        for i, (example, small) in enumerate(
          _in_order(examples, resize, processes)
        ):
          yield i, {**example, "image": io.BytesIO(small)}
      except (OSError, ValueError) as error:  # no image, or cut short
        raise ValueError(
          f"image {i + 1} of {split!r} of {name!r} cannot be resized: {error}; "
          "prepare the set again, without it"
        ) from error

  Resized.name = source.name
  builder = Resized(data_dir=output)
  if builder.data_path.exists():
    raise ValueError(
      f"output={output!r} holds {builder.data_path} already; remove it, or"
      " choose another"
    )
  builder.download_and_prepare()
  return builder.data_path


def _in_order(
  examples: Iterator[dict[str, Any]], resize: Any, processes: int
) -> Iterator[tuple[dict[str, Any], bytes]]:
  """Examples with their resized images, a few of each process ahead."""
  if processes == 1:
    yield from ((example, resize(example["image"])) for example in examples)
    return
  spawn = multiprocessing.get_context("spawn")  # JAX's threads are not forked
  with concurrent.futures.ProcessPoolExecutor(processes, spawn) as pool:

    def start(some: Iterable[dict[str, Any]]) -> list[Any]:
      return [(e, pool.submit(resize, e["image"])) for e in some]

    waiting = start(itertools.islice(examples, _AHEAD * processes))
    while waiting:
      example, small = waiting.pop(0)
      yield example, small.result()
      waiting += start(itertools.islice(examples, 1))


def main(argv: Sequence[str]) -> int:
  """Returns the exit code: 2 where an argument is refused."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--name", required=True)
  parser.add_argument("--output", required=True)
  parser.add_argument("--short_side", type=int, default=256)
  parser.add_argument("--quality", type=int, default=90)
  parser.add_argument("--data_dir")
  parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
  flags = parser.parse_args(argv)
  for flag, low, high in [
    ("short_side", 1, 65535),
    ("quality", 1, 100),
    ("processes", 1, 1024),
  ]:
    if not low <= getattr(flags, flag) <= high:
      value = getattr(flags, flag)
      parser.error(f"--{flag}={value} must be from {low} to {high}")
  try:
    made = prepare(**vars(flags))
  except (OSError, ValueError) as error:
    print(error, file=sys.stderr)
    return 2
  print(f"Written to {made}: --config.data.dir={flags.output}")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
