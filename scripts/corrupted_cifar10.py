"""Corrupts CIFAR-10's test images in the 15 ways of CIFAR-10-C.

    python -m scripts.corrupted_cifar10 --out=corrupted.npz [--images=1000]

The file is a set of one's own: `--config.evaluation.sets=corrupted.npz` scores
it. Its accuracy is one minus the mean error over corruptions and severities;
`group_accuracy/N` is that of one corruption at one severity, N = 5 times the
corruption's place in `CORRUPTIONS` plus the severity from 0.

The images are made here, and are not the published ones: noise is drawn anew,
and *frost*, which needs photographs, is made of a drawn texture.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from scripts import corruptions

# Functions, and the constants of CIFAR-10-C for the severities 1 to 5.
CORRUPTIONS: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
  "gaussian_noise": (
    corruptions.gaussian_noise,
    (0.04, 0.06, 0.08, 0.09, 0.10),
  ),
  "shot_noise": (corruptions.shot_noise, (500, 250, 100, 75, 50)),
  "impulse_noise": (corruptions.impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
  "defocus_blur": (
    corruptions.defocus_blur,
    ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
  ),
  "glass_blur": (
    corruptions.glass_blur,
    ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
  ),
  "motion_blur": (
    corruptions.motion_blur,
    ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
  ),
  "zoom_blur": (corruptions.zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
  "snow": (
    corruptions.snow,
    (
      (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
      (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
      (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
      (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
      (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
  ),
  "frost": (
    corruptions.frost,
    ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
  ),
  "fog": (
    corruptions.fog,
    ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
  ),
  "brightness": (corruptions.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
  "contrast": (corruptions.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
  "elastic_transform": (
    corruptions.elastic_transform,
    (
      (0, 0, 0.08),
      (0.05, 0.2, 0.07),
      (0.08, 0.06, 0.06),
      (0.1, 0.04, 0.05),
      (0.1, 0.03, 0.03),
    ),
  ),
  "pixelate": (corruptions.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
  "jpeg_compression": (corruptions.jpeg_compression, (80, 65, 58, 50, 40)),
}


def corrupt(
  images: UInt8[np.ndarray, "n height width 3"], name: str, severity: int
) -> UInt8[np.ndarray, "n height width 3"]:
  """Corrupts images; the draws depend on name, severity and place alone.

  Args:
    images: of 32 pixels a side.
    name: a key of `CORRUPTIONS`.
    severity: from 1 to 5.
  """
  function, constants = CORRUPTIONS[name]
  place = [*CORRUPTIONS].index(name)
  results = [
    function(
      image / 255,
      constants[severity - 1],
      np.random.default_rng([place, severity, i]),
    )
    for i, image in enumerate(images)
  ]
  return np.round(255 * np.clip(results, 0, 1)).astype(np.uint8)


def main() -> None:
  """Reads the command line."""
  parser = argparse.ArgumentParser(
    prog="python -m scripts.corrupted_cifar10",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--images", type=int, default=1000, help="the first ones")
  parser.add_argument("--data_dir", help="where TFDS's cifar10 is")
  given = parser.parse_args()
  from forgetsam import data

  split = data.load_split("cifar10", "test", data_dir=given.data_dir)
  images, labels = split.images[: given.images], split.labels[: given.images]
  parts = []
  for name in CORRUPTIONS:
    parts += [corrupt(images, name, severity) for severity in range(1, 6)]
    print(name, flush=True)
  np.savez(
    given.out,
    test_images=np.concatenate(parts),
    test_labels=np.tile(labels, len(parts)),
    test_group=np.repeat(np.arange(len(parts)), len(labels)),
  )


if __name__ == "__main__":
  main()
