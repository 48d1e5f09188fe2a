"""Mean corruption error: how errors grow on corrupted images."""

from collections.abc import Mapping

import numpy as np

_SEVERITIES = (1, 2, 3, 4, 5)

# The authors' own numbers (issue 10 of github.com/hendrycks/robustness has all
# severities); the paper's table 1 is built on them.
ALEXNET_ERRORS: Mapping[str, float] = {
  "gaussian_noise": 0.886428,
  "shot_noise": 0.894468,
  "impulse_noise": 0.922640,
  "defocus_blur": 0.819880,
  "glass_blur": 0.826268,
  "motion_blur": 0.785948,
  "zoom_blur": 0.798360,
  "snow": 0.866816,
  "frost": 0.826572,
  "fog": 0.819324,
  "brightness": 0.564592,
  "contrast": 0.853204,
  "elastic_transform": 0.646056,
  "pixelate": 0.717840,
  "jpeg_compression": 0.606500,
}
"""AlexNet's error on ImageNet-C, averaged over the five severities."""


def mean_corruption_error(
  errors: Mapping[tuple[str, int], float],
  baseline: Mapping[str, float] | None = None,
) -> tuple[float, dict[str, float]]:
  r"""Averages a classifier's errors over 15 corruptions of 5 severities.

  .. math:: \mathrm{CE}_c =
            \frac{\sum_{s=1}^{5} E_{s,c}}{\sum_{s=1}^{5} E^0_{s,c}}, \qquad
            \mathrm{mCE} = \frac1{15} \sum_c \mathrm{CE}_c

  With :math:`E` the errors and :math:`E^0` the baseline's. Without a baseline
  :math:`\mathrm{CE}_c` is the plain mean of the errors over the severities, as
  is usual for CIFAR-10-C, for which no baseline is agreed on.

  TFDS corrupts ImageNet's images anew and encodes the result as JPEG once more:
  errors on `imagenet2012_corrupted` do not compare with those published on
  ImageNet-C, and an mCE from them neither. Between models scored on the same
  set it does.

  Args:
    errors: top-1 error rates in [0, 1] by (corruption, severity from 1 to 5),
      with `data.corrupted_sets`' names of the 15 corruptions.
    baseline: mean error rate in (0, 1] of each corruption, over the severities,
      such as `ALEXNET_ERRORS` for ImageNet; `None` does not normalise.

  Returns:
    The mean and each corruption's share; fractions, of which papers print the
    hundredfold.

  Raises:
    ValueError: an error is missing, is no rate, or has no place in the mean.

  Example:
    >>> errors = {(c, s): 0.5 for c in ALEXNET_ERRORS for s in range(1, 6)}
    >>> mean_corruption_error(errors)[0]
    0.5
    >>> mce, per_corruption = mean_corruption_error(errors, ALEXNET_ERRORS)
    >>> round(mce, 4), round(per_corruption["fog"], 4)
    (0.6467, 0.6103)

  References:
    Hendrycks & Dietterich, *Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations*, 2019, section 4.
  """
  _check_errors(errors)
  if baseline is not None:
    _check_baseline(baseline)
  per_corruption = {}
  for corruption in ALEXNET_ERRORS:
    mean = float(np.mean([errors[corruption, s] for s in _SEVERITIES]))
    scale = 1.0 if baseline is None else baseline[corruption]
    per_corruption[corruption] = mean / scale
  return float(np.mean(list(per_corruption.values()))), per_corruption


def _check_errors(errors: Mapping[tuple[str, int], float]) -> None:
  wanted = [(c, s) for c in ALEXNET_ERRORS for s in _SEVERITIES]
  missing = [key for key in wanted if key not in errors]
  if missing:
    raise ValueError(
      f"errors lacks {_names(missing)}: the mean is over 15 corruptions of 5"
      " severities each"
    )
  strange = [key for key in errors if key not in wanted]
  if strange:
    raise ValueError(
      f"errors has {_names(strange)}, which the mean leaves out: it is over"
      f" {', '.join(ALEXNET_ERRORS)} at the severities 1 to 5"
    )
  for (corruption, severity), error in errors.items():
    if not 0 <= error <= 1:
      raise ValueError(
        f"errors[{corruption!r}, {severity}]={error} must be a rate in [0, 1]"
      )


def _check_baseline(baseline: Mapping[str, float]) -> None:
  missing = [c for c in ALEXNET_ERRORS if c not in baseline]
  if missing:
    raise ValueError(f"baseline lacks {', '.join(missing)}")
  for name in ALEXNET_ERRORS:
    if not 0 < (rate := baseline[name]) <= 1:
      raise ValueError(f"baseline[{name!r}]={rate} must be a rate in (0, 1]")


def _names(keys: list[tuple[str, int]]) -> str:
  severities: dict[str, list[str]] = {}
  for corruption, severity in keys:
    severities.setdefault(corruption, []).append(str(severity))
  return ", ".join(f"{c} ({' '.join(s)})" for c, s in severities.items())
