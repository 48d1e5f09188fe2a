"""Cheaper images for the input pipeline: their time and their pixels.

    PYTHONPATH=. python benchmarks/cheaper_input.py --rounds 9

Two sets of made JPEGs: of 500x375 pixels, as ImageNet's on average, and of
1280x960. Each is read exactly, with `fast_decode`, and as
`scripts/prepare_resized.py` writes it with a shorter side of 256 and of 512.
All take turns; ratios are medians over rounds, of CPU time, which is what a
core does. Pixels are those of the evaluation crop, 224 of 256.
"""

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.input_pipeline import (
  BATCH,
  our_seconds,
  photo,
  prepare,
  train_split,
)
from forgetsam import data
from forgetsam.experiment.tables import markdown_table
from scripts import prepare_resized

SHAPES = ((375, 500), (960, 1280))
FAST = {"fast_decode": True}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
  "exact": ("whole", {}),
  "fast_decode": ("whole", FAST),
  "short side 512": ("512", {}),
  "short side 512, fast_decode": ("512", FAST),
  "short side 256": ("256", {}),
}


def evaluated(directory: Path, **changes: Any) -> np.ndarray:
  """Evaluation images, 0 to 255, in the order of their labels."""
  options = data.StreamOptions(mean=0.0, std=1.0, **changes)
  split = data.stream_split("photos", "test", options, data_dir=directory)
  images, labels = data.first_examples(split, len(split), batch_size=BATCH)
  return 255 * np.asarray(images)[np.argsort(labels)]


def measure(
  folder: Path, shape: tuple[int, int], count: int, rounds: int, batches: int
) -> list[list[str]]:
  """A row for each variant: images per CPU second, their ratio, pixels."""
  rng = np.random.default_rng(0)
  prepare([photo(rng, *shape) for _ in range(count)], folder / "whole")
  processes = os.cpu_count() or 1
  for side in (256, 512):
    with contextlib.redirect_stderr(io.StringIO()):  # TFDS's progress bars
      prepare_resized.prepare(
        "photos",
        side,
        output=str(folder / str(side)),
        data_dir=str(folder / "whole"),
        processes=processes,
      )
  sources = {
    name: train_split(folder / place, processes, **changes)
    for name, (place, changes) in VARIANTS.items()
  }
  seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
  for i in range(rounds):
    for name in rng.permutation(list(VARIANTS)):
      seconds[name].append(our_seconds(sources[name], batches, i)[1])
  exact = np.array(seconds["exact"])
  pixels = evaluated(folder / "whole")
  rows = []
  for name, (place, changes) in VARIANTS.items():
    mine = np.array(seconds[name])
    low, middle, high = np.quantile(exact / mine, (0.25, 0.5, 0.75))
    off = np.abs(evaluated(folder / place, **changes) - pixels)
    rate = BATCH * batches / np.median(mine)
    ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    rows.append(
      [name, f"{rate:.0f}", ratio, f"{off.mean():.1f}", f"{off.max():.0f}"]
    )
  return rows


def main(argv: Sequence[str] | None = None) -> None:
  """Prints a table for each shape."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument("--batches", type=int, default=6)
  parser.add_argument("--photos", type=int, default=64)
  flags = parser.parse_args(argv)
  header = ["images", "a CPU second", "of exact", "mean difference", "largest"]
  for shape in SHAPES:
    with tempfile.TemporaryDirectory() as folder:
      rows = measure(
        Path(folder), shape, flags.photos, flags.rounds, flags.batches
      )
    print(f"\n{shape[1]}x{shape[0]} pixels:\n\n{markdown_table(header, rows)}")


if __name__ == "__main__":
  main()
