"""Random variables for the tests of weights."""

import pytest
from random_variables import draw_variables


@pytest.fixture(scope="session")
def random_variables():
  return draw_variables
