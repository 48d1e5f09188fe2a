"""Corruptions of images: what they do to known ones, and how they are kept."""

import sys
from pathlib import Path

import numpy as np
import pytest

from forgetsam import data
from forgetsam.experiment.evaluation import ALEXNET_ERRORS
from scripts import corrupted_cifar10
from scripts.corrupted_cifar10 import CORRUPTIONS, corrupt

COLOURS = np.random.default_rng(0).integers(60, 190, (2, 8, 8, 3))
IMAGES = np.kron(COLOURS, np.ones((1, 4, 4, 1))).astype(np.uint8)
GREY = np.full((1, 32, 32, 3), 51, np.uint8)  # 0.2


def test_the_corruptions_are_the_fifteen():
  assert set(CORRUPTIONS) == set(ALEXNET_ERRORS)
  assert all(len(constants) == 5 for _, constants in CORRUPTIONS.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_change_and_the_draws_are_kept(name: str):
  light, strong = corrupt(IMAGES, name, 1), corrupt(IMAGES, name, 5)
  assert (strong.shape, strong.dtype) == (IMAGES.shape, np.uint8)
  for i in range(2):
    assert np.abs(strong[i].astype(float) - IMAGES[i]).mean() > 1
  np.testing.assert_array_equal(corrupt(IMAGES[:1], name, 1), light[:1])
  if name not in ("glass_blur", "elastic_transform", "frost"):
    far, near = (
      np.abs(found.astype(float) - IMAGES).mean() for found in (strong, light)
    )
    assert far > near


def test_noise_has_the_published_size():
  many = np.repeat(GREY, 20, 0)
  noisy = corrupt(many, "gaussian_noise", 3) / 255
  assert np.std(noisy) == pytest.approx(0.08, rel=0.02)
  shots = corrupt(many, "shot_noise", 5) / 255  # a variance of 0.2 / 50
  assert np.std(shots) == pytest.approx((0.2 / 50) ** 0.5, rel=0.02)
  pepper = corrupt(many, "impulse_noise", 5)
  assert np.mean(pepper != 51) == pytest.approx(0.07, rel=0.05)
  assert set(np.unique(pepper)) == {0, 51, 255}


def test_light_and_contrast_by_hand():
  assert np.unique(corrupt(GREY, "brightness", 5)) == [128]  # 0.2 + 0.3
  halves = GREY.copy()
  halves[:, 16:] = 153  # 0.6, about a mean of 0.4
  low = corrupt(halves, "contrast", 3)
  assert set(np.unique(low)) == {82, 122}  # 0.4 -+ 0.4 * 0.2


@pytest.mark.parametrize(
  "name", ["defocus_blur", "motion_blur", "zoom_blur", "elastic_transform"]
)
def test_what_averages_or_moves_leaves_an_even_image(name: str):
  np.testing.assert_array_equal(corrupt(GREY, name, 5), GREY)


def test_the_file_is_a_set_with_a_group_for_each_severity(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  split = data.Split(IMAGES, np.array([3, 5], np.int32), np.arange(2))
  monkeypatch.setattr(data, "load_split", lambda *_, **__: split)
  out = tmp_path / "corrupted.npz"
  monkeypatch.setattr(sys, "argv", ["corrupted_cifar10", f"--out={out}"])
  corrupted_cifar10.main()
  monkeypatch.undo()
  found = data.load_split(str(out), "test")
  assert len(found) == 2 * 75
  np.testing.assert_array_equal(found.labels[-2:], [3, 5])
  fog = 5 * [*CORRUPTIONS].index("fog") + 2
  np.testing.assert_array_equal(
    found.images[2 * fog : 2 * fog + 2], corrupt(IMAGES, "fog", 3)
  )
  np.testing.assert_array_equal(
    np.flatnonzero(found.groups[str(fog)]), [2 * fog, 2 * fog + 1]
  )
