"""The time left, on clocks of our own."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from forgetsam.experiment.run import Pace

STOP, LOG = 1000, 50


def lines(
  seconds: Callable[[int], float], pause: Callable[[int], float], every: int
) -> Iterator[tuple[float, float]]:
  """The time left of each log line, and the true one; the first step ends at 0.

  Args:
    seconds: of a step, by its end.
    pause: seconds after a step, 0 where there is none.
    every: steps between evaluations.
  """
  ends = list(itertools.accumulate(map(seconds, range(2, STOP + 1))))
  stops = list(itertools.accumulate(map(pause, range(1, STOP + 1))))
  pace = Pace(STOP, evaluate=every)
  pace.begin(1, 0.0)
  for done in range(2, STOP):
    now = ends[done - 2] + stops[done - 2]
    if done % LOG == 0:
      pace.steps(done, now)
      left = pace.left(done)
      assert left is not None
      yield left, ends[-1] + stops[-1] - now
    if pause(done):
      pace.steps(done, now)
      pace.pause(done, now, now + pause(done))


def test_a_run_of_even_steps_and_pauses_knows_its_end():
  found = list(lines(lambda _: 0.1, lambda n: 2.0 * (n % 50 == 0), every=50))
  assert len(found) == 19
  for left, truth in found[2:]:
    assert left == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("every", [30, 70, 200])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 4.0])
def test_the_time_left_does_not_jump(every: int, seconds: float):
  """The first evaluation compiles for a minute; steps hiccup now and then."""

  def pause(done: int) -> float:
    return (done % every == 0) * (seconds + 60.0 * (done == every))

  found = list(lines(lambda n: 0.1 + 3.0 * (n % 97 == 0), pause, every=every))
  for (before, _), (after, _) in itertools.pairwise(found[:-1]):
    assert 0.5 < after / before < 2.0
  for left, truth in found[3 * every // LOG : -1]:
    assert 0.6 < left / truth < 1.5


def test_saves_beside_evaluations_count_as_what_they_take():
  pace = Pace(stop=100, evaluate=40, checkpoint=10)
  pace.begin(0, 0.0)
  now = 0.0
  for done in range(10, 70, 10):
    now += 10.0
    pace.steps(done, now)
    pause = 5.0 if done == 40 else 1.0
    pace.pause(done, now, now + pause)
    now += pause
  # 39 steps; saves after 70 and 90; evaluations after 80 and at the end.
  assert pace.left(61) == pytest.approx(39 + 2 * 1.0 + 2 * 5.0)
  assert pace.left(60) == pytest.approx(40 + 2 * 1.0 + 2 * 5.0)
  assert pace.left(100) == 0.0


def test_without_a_second_step_nothing_is_known():
  pace = Pace(stop=10, evaluate=5)
  assert pace.left(0) is None
  pace.begin(1, 0.0)
  pace.begin(2, 9.0)  # the first counts
  assert pace.rate() is None
  pace.steps(3, 4.0)
  assert pace.rate() == pytest.approx(0.5)
