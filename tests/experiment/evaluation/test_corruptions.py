"""Mean corruption error against published numbers."""

import numpy as np
import pytest

from forgetsam.data import corrupted_sets
from forgetsam.experiment.evaluation import (
  ALEXNET_ERRORS,
  mean_corruption_error,
)

# AlexNet's errors at the severities 1 to 5, as the authors of ImageNet-C gave
# them: github.com/hendrycks/robustness, issue 10.
ALEXNET = {
  "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
  "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
  "impulse_noise": (0.78374, 0.89808, 0.9487, 0.9872, 0.99548),
  "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
  "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
  "motion_blur": (0.5843, 0.70048, 0.82108, 0.8975, 0.92638),
  "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
  "snow": (0.71726, 0.88392, 0.86468, 0.9187, 0.94952),
  "frost": (0.6139, 0.79734, 0.8879, 0.89942, 0.9343),
  "fog": (0.67474, 0.7605, 0.84378, 0.8726, 0.945),
  "brightness": (0.4514, 0.48502, 0.54048, 0.62166, 0.7244),
  "contrast": (0.64548, 0.7615, 0.88874, 0.9776, 0.9927),
  "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
  "pixelate": (0.52218, 0.5462, 0.73728, 0.87092, 0.91262),
  "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}
ERRORS = {
  (corruption, severity): error
  for corruption, errors in ALEXNET.items()
  for severity, error in enumerate(errors, start=1)
}


def test_the_baseline_scores_one_against_itself():
  mce, per_corruption = mean_corruption_error(ERRORS, ALEXNET_ERRORS)
  assert mce == pytest.approx(1, rel=1e-12)
  assert per_corruption == pytest.approx(dict.fromkeys(ALEXNET, 1), rel=1e-12)


def test_a_published_corruption_error():
  """torchvision's ResNet-50: top-1 accuracies and CE as printed, in percent."""
  published = {
    "brightness": (68.02, 56.64),
    "contrast": (39.06, 71.43),
    "gaussian_noise": (29.29, 79.77),
    "impulse_noise": (23.81, 82.58),
    "fog": (45.83, 66.11),
  }
  errors = ERRORS | {
    (corruption, severity): 1 - accuracy / 100
    for corruption, (accuracy, _) in published.items()
    for severity in range(1, 6)
  }
  _, per_corruption = mean_corruption_error(errors, ALEXNET_ERRORS)
  for corruption, (_, ce) in published.items():
    assert 100 * per_corruption[corruption] == pytest.approx(ce, abs=0.01)


def test_without_a_baseline_it_is_the_mean_error():
  mean, per_corruption = mean_corruption_error(ERRORS)
  assert mean == pytest.approx(np.mean(list(ERRORS.values())))
  assert per_corruption["fog"] == pytest.approx(np.mean(ALEXNET["fog"]))


def test_corruptions_weigh_the_same_whatever_the_baseline():
  """A mean of ratios, not a ratio of means."""
  halved = {
    key: error / 2 if key[0] == "brightness" else error
    for key, error in ERRORS.items()
  }
  mce, _ = mean_corruption_error(halved, ALEXNET_ERRORS)
  assert mce == pytest.approx(14.5 / 15)


@pytest.mark.parametrize(
  "name", ["imagenet2012_corrupted", "cifar10_corrupted"]
)
def test_it_takes_the_names_of_the_corrupted_sets(name):
  errors = dict.fromkeys(corrupted_sets(name), 0.25)
  assert mean_corruption_error(errors)[0] == 0.25


def test_what_is_missing_is_named():
  errors = dict(ERRORS)
  for key in [("fog", 2), ("fog", 5), ("snow", 1)]:
    del errors[key]
  with pytest.raises(ValueError, match=r"lacks snow \(1\), fog \(2 5\)"):
    mean_corruption_error(errors)


@pytest.mark.parametrize("key", [("speckle_noise", 1), ("fog", 6), ("fog", 0)])
def test_what_the_mean_would_leave_out_is_refused(key):
  with pytest.raises(ValueError, match=rf"has {key[0]} \({key[1]}\)"):
    mean_corruption_error(ERRORS | {key: 0.5})


@pytest.mark.parametrize("error", [-0.1, 47.0, float("nan")])
def test_what_is_no_rate_is_refused(error):
  with pytest.raises(ValueError, match=r"errors\['snow', 3\]=.*\[0, 1\]"):
    mean_corruption_error(ERRORS | {("snow", 3): error})


def test_a_baseline_must_fit():
  with pytest.raises(ValueError, match="baseline lacks shot_noise"):
    mean_corruption_error(ERRORS, {"gaussian_noise": 0.9})
  percent = {name: 100 * error for name, error in ALEXNET_ERRORS.items()}
  with pytest.raises(ValueError, match=r"baseline\['gaussian_noise'\]=88"):
    mean_corruption_error(ERRORS, percent)
  with pytest.raises(ValueError, match=r"baseline\['fog'\]=0"):
    mean_corruption_error(ERRORS, {**ALEXNET_ERRORS, "fog": 0.0})
