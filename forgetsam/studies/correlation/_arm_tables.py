"""Every number of one arm's report."""

import dataclasses
from collections.abc import Sequence

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

_ALONG = (
  "obf_probe_unconditional_train",
  "obf_probe_conditional_train",
  "sam_probe_unconditional_train",
  "sam_probe_conditional_train",
)


Key = tuple[str, tuple[str, ...]]  # a target or a table, and the controls


@dataclasses.dataclass(frozen=True)
class TargetTables:
  """Of each of `MEASURES`, in order, with one target.

  Attributes:
    tau: Kendall's tau-b.
    spearman: Spearman's rho.
    given_loss: tau given the training loss.
    given_radius: tau given the radius of the network's own perturbation.
    given_both: tau given both.
    given_all: tau given both and the information before any perturbation.
    holm: adjusted p-values of `given_both`.
    granulated: Jiang et al.'s psi and Psi.
    independence: their K.
  """

  tau: list[Interval]
  spearman: list[Interval]
  given_loss: list[Interval]
  given_radius: list[Interval]
  given_both: list[Interval]
  given_all: list[Interval]
  holm: list[float]
  granulated: list[dict[str, float]]
  independence: list[ConditionalIndependence]


@dataclasses.dataclass(frozen=True)
class ArmTables:
  """One arm's numbers.

  Attributes:
    targets: by target.
    families: method -> tau of `SHORT` with test accuracy.
    thirds: the same in the thirds with low, middle and high training loss.
    sharpness: tau of each of `FORGETTING` with each of `SHARPNESS`.
    sharpness_given_both: the same given training loss and radius.
    epochs: when forgetting was measured.
    along: measure -> tau with the final test accuracy at each epoch.
    chance: K of a permuted measure.
    ceiling: tau between the test accuracies of two seeds; nan for one.
  """

  targets: dict[str, TargetTables]
  families: dict[str, list[Interval]]
  thirds: dict[str, list[Interval]]
  sharpness: list[Interval]
  sharpness_given_both: list[Interval]
  epochs: list[int]
  along: dict[str, list[Interval]]
  chance: float
  ceiling: float


def arm_tables(networks: Networks, *, resamples: int = 1000) -> ArmTables:
  """Computes everything from an arm's rows that did not diverge."""
  epochs = measured_epochs(networks)
  queries: dict[Key, list[Query]] = {
    (target, given): [Query(m, target, given) for m in MEASURES]
    for target in TARGETS
    for given in ((), (GIVEN[0],), (GIVEN[1],), GIVEN, GIVEN_ALL)
  }
  for given in ((), GIVEN):
    queries["sharpness", given] = [
      Query(f, s, given) for f in FORGETTING for s in SHARPNESS
    ]
  for name in _ALONG:
    queries[name, ()] = [Query(q, "test_accuracy") for q in _at(name, epochs)]
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
    [*epochs, _last_epoch(networks)],
    {name: intervals[name, ()] for name in _ALONG},
    permuted_score(
      networks[MEASURES[0]], networks["test_accuracy"], axes, permutations=5
    ),
    _ceiling(networks),
  )


def measured_epochs(networks: Networks) -> list[int]:
  """The epochs along training at which forgetting was measured."""
  names = [n.partition("@") for n in networks]
  return sorted({int(epoch) for name, _, epoch in names if name == _ALONG[0]
                 and epoch})  # fmt: skip


def _at(name: str, epochs: Sequence[int]) -> list[str]:
  return [f"{name}@{epoch}" for epoch in epochs] + [name]


def _last_epoch(networks: Networks) -> int:
  return int(networks["epochs"].max())


def _target(
  networks: Networks,
  target: str,
  intervals: dict[Key, list[Interval]],
  resamples: int,
) -> TargetTables:
  both = intervals[target, GIVEN]
  axes = _axes(networks)
  within = {name: axis for name, axis in axes.items() if name != "method"}
  fixed = combined([axes["method"], networks["seed"]])
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
  place = np.searchsorted(np.quantile(loss, [1 / 3, 2 / 3]), loss, side="left")
  texts = {}
  for i, name in enumerate(("low", "middle", "high")):
    own = loss[place == i]
    label = f"{name}, {own.min():.2f} to {own.max():.2f}"
    texts[label] = _short(choose(networks, place == i), resamples)
  return texts


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
