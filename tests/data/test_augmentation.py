"""Crops and mirror images, and what they are drawn from."""

import numpy as np
import pytest

from forgetsam import data

N, H, W, PADDING = 40, 6, 5, 2


def epoch_images(split, *, batch_size=8, epoch=0, positions=False, **options):
  """The images of one epoch's first N, by example; 0 to 255."""
  steps = data.steps_per_epoch(len(split), batch_size)
  found = {}
  for batch in data.train_batches(
    split,
    batch_size=batch_size,
    start_step=epoch * steps,
    num_steps=steps,
    mean=0.0,
    std=1.0,
    **({"seed": 7} | options),
  ):
    for label, image in zip(batch["label"], batch["image"], strict=True):
      image = np.rint(image * 255).astype(np.uint8)
      # The examples that an epoch's end repeats are the very same images.
      np.testing.assert_array_equal(found.setdefault(int(label), image), image)
  return np.stack([found[label] for label in split.labels])


def padded_slices(image):
  """Every crop of the padded image, by its corner."""
  padded = np.pad(image, [(PADDING, PADDING), (PADDING, PADDING), (0, 0)])
  return {
    (row, column): padded[row : row + H, column : column + W]
    for row in range(2 * PADDING + 1)
    for column in range(2 * PADDING + 1)
  }


def corners(originals, cropped):
  """The corner of each crop, found by comparing with every slice."""
  found = []
  for original, crop in zip(originals, cropped, strict=True):
    [corner] = [
      corner
      for corner, candidate in padded_slices(original).items()
      if np.array_equal(candidate, crop)
    ]
    found.append(corner)
  return np.array(found)


def test_no_augmentation_by_default(numbered_split):
  split = numbered_split(N, (H, W, 2))
  np.testing.assert_array_equal(epoch_images(split), split.images)


def test_crops_are_slices_of_the_padded_image(numbered_split):
  split = numbered_split(400, (H, W, 2))
  found = corners(split.images, epoch_images(split, crop_padding=PADDING))
  for axis in (0, 1):
    # 400 / 5 = 80 each; the standard deviation is 8.
    counts = np.bincount(found[:, axis], minlength=5)
    assert len(counts) == 5
    assert np.all(np.abs(counts - 80) < 40)
  assert abs(np.corrcoef(found.T)[0, 1]) < 0.2


def test_flips_mirror_half_of_the_images(numbered_split):
  split = numbered_split(400, (H, W, 2))
  images = epoch_images(split, flip=True)
  mirrored = split.images[:, :, ::-1]
  flipped = np.all(images == mirrored, (1, 2, 3))
  kept = np.all(images == split.images, (1, 2, 3))
  assert np.all(flipped ^ kept)
  # 200; the standard deviation is 10.
  assert abs(flipped.sum() - 200) < 50


def test_flips_and_crops_do_not_disturb_each_other(numbered_split):
  split = numbered_split(N, (H, W, 2))
  cropped = epoch_images(split, crop_padding=PADDING)
  flipped = np.any(epoch_images(split, flip=True) != split.images, (1, 2, 3))
  both = epoch_images(split, flip=True, crop_padding=PADDING)
  np.testing.assert_array_equal(
    both,
    np.where(flipped[:, None, None, None], cropped[:, :, ::-1], cropped),
  )


# Of 40 flips half agree by chance, give or take 3; of 40 crops, 1.6.
@pytest.mark.parametrize(
  ("options", "agree"), [({"flip": True}, 33), ({"crop_padding": PADDING}, 8)]
)
def test_draws_differ_between_epochs_and_seeds(numbered_split, options, agree):
  split = numbered_split(N, (H, W, 2))
  first = epoch_images(split, **options)
  for other in (
    epoch_images(split, epoch=1, **options),
    epoch_images(split, seed=8, **options),
  ):
    assert np.all(first == other, (1, 2, 3)).sum() < agree


@pytest.mark.parametrize("epoch", [0, 2])
def test_draws_depend_on_seed_epoch_and_example_alone(numbered_split, epoch):
  split = numbered_split(N, (H, W, 2))
  options = {"flip": True, "crop_padding": PADDING, "epoch": epoch}
  whole = epoch_images(split, **options)
  for batch_size in (1, 7, 40):
    np.testing.assert_array_equal(
      epoch_images(split, batch_size=batch_size, **options), whole
    )
  # Other examples are gone, and every place in the order is another one.
  some = np.array([31, 3, 8, 22, 5, 17])
  np.testing.assert_array_equal(
    epoch_images(split.take(some), batch_size=2, **options), whole[some]
  )
