"""Seven steps of every method against those of its authors' code."""

import jax
import pytest
from peer_methods import NOT_MET, PEERS, made
from peer_traces import CASES, Case, run

TOLERANCE = 1e-9


def test_every_case_is_compared_or_its_absence_explained():
  assert len(CASES) == 51
  assert not PEERS.keys() & NOT_MET
  assert PEERS.keys() | NOT_MET == set(CASES)


@pytest.mark.parametrize("name", PEERS)
def test_steps_are_those_of_the_authors_code(name):
  with jax.enable_x64(True):
    case = Case(name)
    transform, options = made(PEERS[name](case))
    largest = run(case, transform, **options)
  print(f"{name}: {largest:.0e}")
  assert largest <= TOLERANCE
