"""Variants side by side: means, and paired differences over seeds."""

import dataclasses
from collections.abc import Mapping, Sequence

from forgetsam.experiment.sweep._records import Record
from forgetsam.experiment.sweep._statistics import (
  Difference,
  Mean,
  mean_over_runs,
  paired_difference,
)

BASELINES = ("plain", "sam")


@dataclasses.dataclass(frozen=True)
class Row:
  """One variant's results on one metric.

  Attributes:
    variant: its name.
    values: the metric of each run, in the order of seeds; None where it
      diverged.
    mean: over all runs; None where one diverged, for a mean over the others
      would flatter the variant.
    against: the paired difference to each baseline; None to itself, and where
      a run of either diverged.
  """

  variant: str
  values: tuple[float | None, ...]
  mean: Mean | None
  against: dict[str, Difference | None]

  @property
  def diverged(self) -> int:
    """How many runs diverged."""
    return self.values.count(None)


def compare(records: Mapping[str, Sequence[Record]], metric: str) -> list[Row]:
  """Compares variants that ran with the same seeds.

  Args:
    records: each variant's records, in the same order of seeds.
    metric: such as "test/accuracy".

  Returns:
    A row for each variant, in the order given; the baselines are those of
    "plain" and "sam" that are among them.
  """
  values = {
    variant: tuple(record.value(metric) for record in several)
    for variant, several in records.items()
  }
  baselines = [name for name in BASELINES if name in values]
  return [
    Row(
      variant,
      mine,
      mean_of(mine),
      {
        name: None if name == variant else _difference(mine, values[name])
        for name in baselines
      },
    )
    for variant, mine in values.items()
  ]


def mean_of(values: Sequence[float | None]) -> Mean | None:
  """The mean over all runs, or None where one diverged."""
  finished = [value for value in values if value is not None]
  return mean_over_runs(finished) if len(finished) == len(values) else None


def _difference(
  values: Sequence[float | None], baseline: Sequence[float | None]
) -> Difference | None:
  mine = [value for value in values if value is not None]
  theirs = [value for value in baseline if value is not None]
  if len(mine) < len(values) or len(theirs) < len(baseline):
    return None
  return paired_difference(mine, theirs)
