"""The four full-size models against the reference implementation's outputs."""

import jax
import numpy as np
import pytest
from torch_states import golden, golden_state

from forgetsam import interop, models

pytestmark = pytest.mark.slow

# The golden README asks for 1e-3, and 1e-2 in training mode; in float32 on a
# CPU, a hundredth of that is reached.
EVALUATION, TRAINING = 1e-4, 1e-3
MODELS = [
  "vit_s32",
  "vit_s16",
  "resnet50",
  pytest.param("resnet101", marks=pytest.mark.long),
]


def _images(name):
  batch = len(golden()[f"{name}/logits_eval"])
  rng = np.random.RandomState(12024)
  images = rng.standard_normal((batch, 3, 224, 224)).astype(np.float32)
  return images.transpose(0, 2, 3, 1)


def _check(actual, name, tolerance):
  expected = golden()[name]
  error = np.abs(actual - expected).max() / np.abs(expected).max()
  assert error < tolerance, (name, error)


@pytest.mark.parametrize("name", MODELS)
def test_reference_outputs(name):
  state = golden_state(name)
  variables = interop.from_torch(name, state)
  module, images = models.create(name, 1000), _images(name)
  logits = jax.jit(module.apply)(variables, images)
  _check(logits, f"{name}/logits_eval", EVALUATION)

  if "batch_stats" in variables:
    params = variables.pop("params")
    forward = jax.jit(models.forward(module), static_argnames="train")
    logits, after = forward(params, variables, images, train=True)
    _check(logits, f"{name}/logits_train", TRAINING)
    after = interop.to_torch(name, {"params": params, **after})
    recorded = [k for k in golden() if k.startswith(f"{name}/after/")]
    assert len(recorded) == 8
    for key in recorded:
      _check(after[key.removeprefix(f"{name}/after/")], key, TRAINING)
    variables = {"params": params, **variables}

  back = interop.to_torch(name, variables)
  assert back.keys() == state.keys()
  for key, value in state.items():
    assert back[key].dtype == value.dtype
    np.testing.assert_array_equal(back[key], value)
