"""Every number of one arm's report."""

import dataclasses

import numpy as np

from forgetsam.studies.correlation._associations import (
  Interval,
  Query,
  associate,
  holm,
)
from forgetsam.studies.correlation._jiang import (
  Axis,
  ConditionalIndependence,
  combined,
  conditional_independence,
  granulated_kendall,
  permuted_score,
)
from forgetsam.studies.correlation._names import (
  ALONG,
  FORGETTING,
  GIVEN,
  GIVEN_ALL,
  MEASURES,
  SHARPNESS,
  SHORT,
  TARGETS,
)
from forgetsam.studies.correlation._networks import AXES, Networks, choose
from forgetsam.studies.correlation._rank_correlation import kendall_matrix

Key = tuple[str, tuple[str, ...]]  # a target or a table, and the controls


@dataclasses.dataclass(frozen=True)
class TargetTables:
  """Correlations of each of `MEASURES`, in order, with one target."""

  tau: list[Interval]
  spearman: list[Interval]
  given_loss: list[Interval]
  given_radius: list[Interval]
  given_both: list[Interval]
  given_all: list[Interval]  # both, and the information before
  holm: list[float]  # p-values of `given_both`
  granulated: list[dict[str, float]]
  independence: list[ConditionalIndependence]


@dataclasses.dataclass(frozen=True)
class ArmTables:
  """One arm's numbers; tau is with test accuracy where no target is named."""

  targets: dict[str, TargetTables]
  families: dict[str, list[Interval]]  # method -> tau of `SHORT`
  thirds: dict[str, list[Interval]]  # the same by training loss
  sharpness: list[Interval]  # of each of `FORGETTING` with each of `SHARPNESS`
  sharpness_given_both: list[Interval]
  epochs: list[int]
  along: dict[str, list[Interval]]  # measure -> tau at each epoch
  chance: float  # K of a permuted measure
  ceiling: float  # tau between two seeds' test accuracies; nan for one seed


def arm_tables(networks: Networks, *, resamples: int = 1000) -> ArmTables:
  """Computes everything from an arm's rows that did not diverge."""
  epochs = _measured_epochs(networks)
  queries: dict[Key, list[Query]] = {
    (target, given): [Query(m, target, given) for m in MEASURES]
    for target in TARGETS
    for given in ((), (GIVEN[0],), (GIVEN[1],), GIVEN, GIVEN_ALL)
  }
  for given in ((), GIVEN):
    queries["sharpness", given] = [
      Query(f, s, given) for f in FORGETTING for s in SHARPNESS
    ]
  for name in ALONG:
    columns = [*(f"{name}@{epoch}" for epoch in epochs), name]
    queries[name, ()] = [Query(c, "test_accuracy") for c in columns]
  flat = [query for several in queries.values() for query in several]
  found = iter(associate(networks, flat, resamples=resamples))
  intervals = {key: [next(found) for _ in v] for key, v in queries.items()}
  axes = _axes(networks)
  return ArmTables(
    {t: _target(networks, t, intervals, resamples) for t in TARGETS},
    _families(networks, resamples),
    _thirds(networks, resamples),
    intervals["sharpness", ()],
    intervals["sharpness", GIVEN],
    [*epochs, int(networks["epochs"].max())],
    {name: intervals[name, ()] for name in ALONG},
    permuted_score(
      networks[MEASURES[0]], networks["test_accuracy"], axes, permutations=5
    ),
    _ceiling(networks),
  )


def _measured_epochs(networks: Networks) -> list[int]:
  start = f"{ALONG[0]}@"
  return sorted(
    int(name.removeprefix(start)) for name in networks if name.startswith(start)
  )


def _target(
  networks: Networks,
  target: str,
  intervals: dict[Key, list[Interval]],
  resamples: int,
) -> TargetTables:
  both = intervals[target, GIVEN]
  axes = _axes(networks)
  within = {name: axis for name, axis in axes.items() if name != "method"}
  fixed = combined([axes["method"], networks["seed"]], len(networks["seed"]))
  return TargetTables(
    tau=intervals[target, ()],
    spearman=associate(
      networks,
      [Query(m, target) for m in MEASURES],
      kind="spearman",
      resamples=resamples // 5,
    ),
    given_loss=intervals[target, (GIVEN[0],)],
    given_radius=intervals[target, (GIVEN[1],)],
    given_both=both,
    given_all=intervals[target, GIVEN_ALL],
    holm=holm(both),
    granulated=[
      granulated_kendall(networks[m], networks[target], within, fixed)
      for m in MEASURES
    ],
    independence=[
      conditional_independence(networks[m], networks[target], axes)
      for m in MEASURES
    ],
  )


def _families(networks: Networks, resamples: int) -> dict[str, list[Interval]]:
  return {
    method: _short(choose(networks, networks["method"] == method), resamples)
    for method in dict.fromkeys(networks["method"].tolist())
  }


def _thirds(networks: Networks, resamples: int) -> dict[str, list[Interval]]:
  """A control that does not take the effect of the loss for monotone."""
  loss = networks["train_loss"]
  third = np.searchsorted(np.quantile(loss, [1 / 3, 2 / 3]), loss, side="left")
  found = {}
  for i, name in enumerate(("low", "middle", "high")):
    own = loss[third == i]
    label = f"{name}, {own.min():.2f} to {own.max():.2f}"
    found[label] = _short(choose(networks, third == i), resamples)
  return found


def _short(networks: Networks, resamples: int) -> list[Interval]:
  queries = [Query(name, "test_accuracy") for name in SHORT]
  return associate(networks, queries, resamples=resamples)


def _axes(networks: Networks) -> dict[str, Axis]:
  """The hyper-parameters; gamma has a value of its own where it is none."""
  return {
    name: np.nan_to_num(networks[name], nan=-1.0)
    if networks[name].dtype.kind == "f"
    else networks[name]
    for name in AXES
  }


def _ceiling(networks: Networks) -> float:
  """How well one seed's test accuracies rank another's."""
  first, second = (
    choose(networks, networks["seed"] == seed) for seed in (0, 1)
  )
  shared, i, j = np.intersect1d(
    first["setting"], second["setting"], return_indices=True
  )
  if len(shared) < 2:
    return float("nan")
  pair = first["test_accuracy"][i], second["test_accuracy"][j]
  return float(kendall_matrix(np.stack(pair, axis=1))[0, 1])
