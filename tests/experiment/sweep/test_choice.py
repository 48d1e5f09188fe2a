"""The one-standard-error rule on tables made for it."""

import pytest

from forgetsam.experiment.sweep import Mean, choose

RADII = [{"perturbation.rho": rho} for rho in (0.8, 0.4, 0.2, 0.1, 0.05)]


def test_the_smallest_radius_within_one_error_of_the_best():
  # The best is 0.90 +- 0.02: 0.88 and above are as good as it.
  scores = [
    Mean(0.89, 0.01),
    Mean(0.90, 0.02),
    Mean(0.885, 0.001),
    Mean(0.875, 0.5),  # its own error does not count
    Mean(0.60, 0.01),
  ]
  assert choose(RADII, scores) == 2


def test_exactly_one_error_away_is_as_good():
  settings = RADII[:2]
  assert choose(settings, [Mean(1.0, 0.25), Mean(0.75, 0.0)]) == 1
  assert choose(settings, [Mean(1.0, 0.25), Mean(0.74, 0.0)]) == 0


def test_without_errors_the_best_is_chosen():
  assert choose(RADII[:2], [Mean(0.8, None), Mean(0.7, None)]) == 0


def test_diverged_settings_are_ruled_out():
  scores = [Mean(0.5, 0.01), None, Mean(0.5, 0.01), None, None]
  assert choose(RADII, scores) == 2
  assert choose(RADII, [None] * 5) is None


@pytest.mark.parametrize(
  ("left", "right", "expected"),
  [
    # The keys count in this order ...
    ((0.1, 0.5, 0.5, 8), (0.2, 0.0, 0.1, 64), 0),
    ((0.1, 0.5, 0.1, 64), (0.1, 0.2, 0.5, 8), 1),
    ((0.1, 0.5, 0.1, 8), (0.1, 0.5, 0.2, 64), 0),
    # ... and of m the larger is chosen, none being the largest.
    ((0.1, 0.5, 0.1, 8), (0.1, 0.5, 0.1, 64), 1),
    ((0.1, 0.5, 0.1, 64), (0.1, 0.5, 0.1, None), 1),
    ((0.1, 0.5, 0.1, 64), (0.1, 0.5, 0.1, 64), 0),
  ],
)
def test_how_ties_are_broken(left: tuple, right: tuple, expected: int):
  keys = (
    "perturbation.rho",
    "optimizer.weight_decay",
    "optimizer.learning_rate",
    "micro_batch_size",
  )
  settings = [dict(zip(keys, v, strict=True)) for v in (left, right)]
  assert choose(settings, [Mean(0.9, 0.1), Mean(0.9, 0.1)]) == expected


def test_keys_that_are_not_tuned_do_not_matter():
  settings = [{"ascent.gamma": 1.0}, {"ascent.gamma": 0.0}]
  assert choose(settings, [Mean(0.9, 0.1), Mean(0.91, 0.1)]) == 0
