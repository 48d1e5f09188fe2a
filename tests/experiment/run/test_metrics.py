"""Epoch means start anew each epoch and survive a restart exactly."""

import json

import pytest

from forgetsam.experiment.run import EpochMeans


def test_means_are_over_the_current_epoch():
  means = EpochMeans(steps_per_epoch=3)
  for step, loss in enumerate([9.0, 9.0, 9.0, 1.0, 2.0]):
    means.add(step, {"loss": loss})
  assert means.means() == {"loss": 1.5}


@pytest.mark.parametrize("interrupted", [1, 3, 4])
def test_a_restart_changes_no_bit(interrupted: int):
  values = [0.1 + 0.7 * i for i in range(6)]
  whole = EpochMeans(3)
  for step, value in enumerate(values):
    whole.add(step, {"loss": value})
  first = EpochMeans(3)
  for step, value in enumerate(values[:interrupted]):
    first.add(step, {"loss": value})
  record = json.loads(json.dumps(first.record()))
  second = EpochMeans(3, record)
  for step in range(interrupted, 6):
    second.add(step, {"loss": values[step]})
  assert second.means() == whole.means()
  assert second.record() == whole.record()
