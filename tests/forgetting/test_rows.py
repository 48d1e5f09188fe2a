"""Outputs and features without a row for each label are refused by name."""

from functools import partial

import numpy as np
import pytest

import forgetsam as fs

Z, LABELS = np.eye(4, 2, dtype=np.float32), np.array([0, 1, 0, 1])
FEATURES = {"num_classes": 2, "noise_std": 1.0}
ONE = [
  fs.forgetting.output_information,
  partial(fs.forgetting.representation_information, **FEATURES),
  partial(fs.forgetting.feature_scale, num_classes=2),
]
TWO = [
  fs.forgetting.output_forgetting,
  fs.forgetting.output_shift,
  partial(fs.forgetting.representation_forgetting, **FEATURES),
]


@pytest.mark.parametrize("bad", [Z[:2], Z[:, 0], Z[None], Z * 1j])
def test_outputs_that_do_not_fit_the_labels(bad):
  fault = rf"of shape \({bad.shape[0]},.*{bad.dtype} must be real and \[4, "
  for function in ONE:
    with pytest.raises(ValueError, match="^(probabilities|features) " + fault):
      function(bad, LABELS)
  for function in TWO:
    with pytest.raises(ValueError, match="^before_(logits|features) " + fault):
      function(bad, bad, LABELS)
    with pytest.raises(ValueError, match="^after_(logits|features) " + fault):
      function(Z, bad, LABELS)


def test_outputs_of_other_widths():
  for function in TWO:
    with pytest.raises(ValueError, match=r"after_.*\(4, 1\).*as before_"):
      function(Z, Z[:, :1], LABELS)
