"""Five training steps of every method against the official code's states."""

import jax
import pytest
from step_traces import CASES, deviations

TOLERANCE = 2e-6  # relative to each array's largest entry


def test_every_case_is_found():
  assert len(CASES) == 21


@pytest.mark.parametrize("case", CASES)
def test_states_and_gradients_are_the_official_ones(case):
  with jax.enable_x64(True):
    for what, error in deviations(case):
      assert error <= (1e-10 if "schedule" in what else TOLERANCE), what
