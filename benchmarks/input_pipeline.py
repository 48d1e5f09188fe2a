"""The ImageNet training pipeline against Pillow doing the same work.

    python benchmarks/input_pipeline.py

Makes JPEGs of 500x375 pixels, as large in bytes as ImageNet's, and prints
images per second of both, their ratio, and how far evaluation images lie from
Pillow's. Both get the same number of threads or processes. Needs no network.
"""

import argparse
import concurrent.futures
import contextlib
import io
import math
import multiprocessing
import os
import tempfile
import time
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from forgetsam import data

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEIGHT, WIDTH, SIZE, BATCH = 375, 500, 224, 64
PIXELS = (BATCH, SIZE, SIZE, 3)


def photo(
  rng: np.random.Generator, height: int = HEIGHT, width: int = WIDTH
) -> bytes:
  """A JPEG with the spectrum of a photograph: amplitudes fall with 1/f."""
  rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
  frequency = np.hypot(rows[:, None], columns)
  frequency[0, 0] = np.inf
  grey = rng.standard_normal((height, width))
  planes = []
  for _ in range(3):
    noise = grey + 0.5 * rng.standard_normal((height, width))
    plane = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    planes.append(120 + 55 * plane / plane.std())
  pixels = np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "JPEG", quality=90)
  return file.getvalue()


def prepare(photos: list[bytes], directory: Path) -> None:
  """Writes a TFDS set of ImageNet's features."""
  data.import_tensorflow()  # before TFDS does, without this project's settings
  import tensorflow_datasets as tfds

  class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    name = "photos"

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(
          {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=1000),
          }
        ),
      )

    def _split_generators(self, dl_manager):
      # Long epochs, as ImageNet's: what an epoch's start costs does not show.
      return {
        "train": self._generate_examples(16),
        "test": self._generate_examples(1),
      }

    def _generate_examples(self, copies):
      for i, encoded in enumerate(photos * copies):
        label = i % len(photos)
        yield i, {"image": io.BytesIO(encoded), "label": label}

  # TFDS announces a download and draws progress bars.
  with (
    contextlib.redirect_stdout(io.StringIO()),
    contextlib.redirect_stderr(io.StringIO()),
  ):
    Photos(data_dir=directory).download_and_prepare()


def random_box(rng: np.random.Generator) -> tuple[int, int, int, int]:
  """Left, top, right and bottom of a random crop."""
  for _ in range(10):
    area = HEIGHT * WIDTH * rng.uniform(0.05, 1)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = round(math.sqrt(area * aspect))
    height = round(math.sqrt(area / aspect))
    if 0 < width <= WIDTH and 0 < height <= HEIGHT:
      left = rng.integers(WIDTH - width + 1)
      top = rng.integers(HEIGHT - height + 1)
      return left, top, left + width, top + height
  return 0, 0, WIDTH, HEIGHT


_worker: dict = {}


def start_worker(photos: list[bytes], names: "multiprocessing.Queue") -> None:
  """Gives a process what it works on."""
  _worker.update(photos=photos, names=names)


def pillow_batch(seed: int) -> float:
  """Fills a batch in shared memory, as a worker of a data loader does.

  Returns the CPU seconds.
  """
  started = time.process_time()
  photos, rng = _worker["photos"], np.random.default_rng(seed)
  scale = np.float32(1 / 255) / np.array(STD, np.float32)
  shift = np.array(MEAN, np.float32) / np.array(STD, np.float32)
  name = _worker["names"].get()
  memory = shared_memory.SharedMemory(name)
  batch = np.ndarray(PIXELS, np.float32, memory.buf)
  for row in range(BATCH):
    image = Image.open(io.BytesIO(photos[rng.integers(len(photos))]))
    image = image.convert("RGB").crop(random_box(rng))
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    batch[row] = np.asarray(image, np.float32) * scale - shift
  del batch
  memory.close()
  _worker["names"].put(name)
  return time.process_time() - started


@contextlib.contextmanager
def pillow_pool(photos: list[bytes], workers: int):
  """A process pool; the parent's share of the work is nothing."""
  context = multiprocessing.get_context("spawn")
  names = context.Queue()
  memories = [
    shared_memory.SharedMemory(create=True, size=4 * math.prod(PIXELS))
    for _ in range(workers)
  ]
  for memory in memories:
    names.put(memory.name)
  try:
    with concurrent.futures.ProcessPoolExecutor(
      workers, context, start_worker, (photos, names)
    ) as pool:
      list(pool.map(pillow_batch, range(2 * workers)))  # warm
      yield pool
  finally:
    for memory in memories:
      memory.close()
      memory.unlink()


def pillow_seconds(
  pool: concurrent.futures.Executor, batches: int
) -> tuple[float, float]:
  """Seconds that the pool takes for so many batches, and CPU seconds."""
  started = time.perf_counter()
  cpu = sum(pool.map(pillow_batch, range(batches)))
  return time.perf_counter() - started, cpu


def train_split(
  directory: Path, threads: int, **changes: Any
) -> data.BatchSource:
  """The set that `prepare` wrote, as the recipes of ImageNet read it."""
  options = data.StreamOptions(
    mean=MEAN, std=STD, threads=threads, shuffle_buffer=1024, **changes
  )
  return data.stream_split("photos", "train", options, data_dir=directory)


def our_seconds(
  train: data.BatchSource, batches: int, seed: int
) -> tuple[float, float]:
  """Seconds for so many batches after the first two, and CPU seconds.

  The pipeline has been started but is not ahead yet; at the end it is, and the
  work for what nobody will read counts against it.
  """
  iterator = train.train_batches(batch_size=BATCH, seed=seed)
  next(iterator)
  next(iterator)
  started, cpu = time.perf_counter(), time.process_time()
  for _ in range(batches):
    next(iterator)
  return time.perf_counter() - started, time.process_time() - cpu


def pillow_evaluation(
  encoded: bytes, size: int, short_side: int, method: str
) -> np.ndarray:
  """Resizes the shorter side and crops the middle, as torchvision does."""
  image = Image.open(io.BytesIO(encoded)).convert("RGB")
  short = min(image.size)
  resized = [short_side * side // short for side in image.size]
  left, top = (round((side - size) / 2) for side in resized)
  image = image.resize(resized, Image.Resampling[method.upper()])
  image = image.crop((left, top, left + size, top + size))
  return np.asarray(image, np.float32)


def evaluation_difference(
  photos: list[bytes], directory: Path, size: int, short_side: int, method: str
) -> tuple[float, float]:
  """Mean and largest absolute difference of pixels from Pillow's."""
  crop = data.CenterCrop(size, short_side, method)
  options = data.StreamOptions(mean=0.0, std=1.0, eval_crop=crop)
  split = data.stream_split("photos", "test", options, data_dir=directory)
  means, largest = [], 0.0
  for batch in split.eval_batches(batch_size=BATCH):
    for i in np.flatnonzero(batch["mask"]):
      pixels = np.rint(batch["image"][i] * 255)
      expected = pillow_evaluation(
        photos[batch["label"][i]], size, short_side, method
      )
      difference = np.abs(pixels - expected)
      means.append(difference.mean())
      largest = max(largest, difference.max())
  return float(np.mean(means)), float(largest)


def main() -> None:
  """Prints all figures."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workers", type=int, default=os.cpu_count())
  parser.add_argument("--rounds", type=int, default=15)
  parser.add_argument("--batches", type=int, default=10)
  arguments = parser.parse_args()
  workers, batches = arguments.workers, arguments.batches
  rng = np.random.default_rng(0)
  photos = [photo(rng) for _ in range(128)]
  size = sum(map(len, photos)) / len(photos) / 1000
  print(f"{len(photos)} JPEGs of {WIDTH}x{HEIGHT} pixels, {size:.0f} kB each")
  with tempfile.TemporaryDirectory() as folder:
    directory = Path(folder)
    prepare(photos, directory)
    for crop in (
      (224, 256, "bicubic"),
      (224, 256, "bilinear"),
      (288, 329, "bicubic"),
    ):
      mean, largest = evaluation_difference(photos, directory, *crop)
      print(f"evaluation {crop}: mean {mean:.4f}, largest {largest:.0f} levels")
    train = train_split(directory, workers)
    ours, pillow = [], []
    with pillow_pool(photos, workers) as pool:
      for i in range(arguments.rounds):
        ours.append(our_seconds(train, batches, i))
        pillow.append(pillow_seconds(pool, batches))
  images = BATCH * batches
  print(f"{workers} workers, {arguments.rounds} rounds; median, quartiles:")
  for name, column in (("wall", 0), ("CPU", 1)):
    mine, its = (
      np.array([row[column] for row in rows]) for rows in (ours, pillow)
    )
    low, middle, high = np.quantile(its / mine, (0.25, 0.5, 0.75))
    print(
      f"images per second of {name} time: pipeline"
      f" {images / np.median(mine):.0f}, Pillow {images / np.median(its):.0f};"
      f" ratio {middle:.2f} ({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
  main()
