"""The scores of Jiang et al. against slow loops and known answers."""

import collections
import itertools
import math

import numpy as np
import pytest

from forgetsam.studies.correlation import (
  conditional_independence,
  granulated_kendall,
  permuted_score,
)

Axes = dict[str, np.ndarray]


@pytest.fixture
def axes() -> Axes:
  """A 3 x 2 x 2 grid."""
  grid = np.array(list(itertools.product((1, 2, 3), "ab", (0, 1))))
  return {"rho": grid[:, 0].astype(float), "m": grid[:, 1], "wd": grid[:, 2]}


def slow_psi(measure: np.ndarray, target: np.ndarray, axes: Axes, name: str):
  """As the paper writes it: loops over the others' values, then over pairs."""
  others = [a for a in axes if a != name]
  taus = []
  for values in itertools.product(*(np.unique(axes[a]) for a in others)):
    group = [
      i
      for i in range(len(measure))
      if all(axes[a][i] == v for a, v in zip(others, values, strict=True))
    ]
    pairs = list(itertools.permutations(group, 2))
    taus.append(
      sum(
        np.sign(measure[i] - measure[j]) * np.sign(target[i] - target[j])
        for i, j in pairs
      )
      / len(pairs)
    )
  return float(np.mean(taus))


def test_granulated_is_the_papers_loop(axes: Axes):
  rng = np.random.default_rng(0)
  measure, target = rng.normal(size=(2, 12))
  measure[3] = measure[4]
  found = granulated_kendall(measure, target, axes, np.zeros(12))
  expected = {name: slow_psi(measure, target, axes, name) for name in axes}
  assert {n: found[n] for n in axes} == pytest.approx(expected)
  assert found["Psi"] == pytest.approx(np.mean(list(expected.values())))


def test_a_measure_of_one_hyper_parameter_is_found_out(axes: Axes):
  target = 10 * axes["rho"] + (axes["m"] == "b")
  found = granulated_kendall(axes["rho"], target, axes, np.zeros(12))
  assert found == pytest.approx({"rho": 1.0, "m": 0.0, "wd": 0.0, "Psi": 1 / 3})


def test_what_is_fixed_is_not_compared(axes: Axes):
  rng = np.random.default_rng(0)
  target = rng.normal(size=24)
  both = {name: np.concatenate([a, a]) for name, a in axes.items()}
  seed = np.repeat([0, 1], 12)
  measure = np.concatenate([target[:12], -target[12:]])
  found = granulated_kendall(measure, target, both, seed)
  assert found == pytest.approx({"rho": 0.0, "m": 0.0, "wd": 0.0, "Psi": 0.0})


def test_a_grid_of_one_point_has_no_coefficient():
  found = granulated_kendall(
    np.arange(3.0), np.arange(3.0), {"rho": np.zeros(3)}, np.zeros(3)
  )
  assert list(found) == ["Psi"]
  assert math.isnan(found["Psi"])


def slow_information(measure: np.ndarray, target: np.ndarray, given: list):
  """I / H from dictionaries of counts, over all ordered pairs."""
  n = len(measure)
  pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
  cells = collections.defaultdict(list)
  for i, j in pairs:
    u = tuple((axis[i], axis[j]) for axis in given)
    cells[u].append(
      (np.sign(measure[i] - measure[j]), np.sign(target[i] - target[j]))
    )
  information = entropy = 0.0
  for seen in cells.values():
    share = len(seen) / len(pairs)
    joint = collections.Counter(seen)
    first = collections.Counter(v for v, _ in seen)
    second = collections.Counter(g for _, g in seen)
    for (v, g), count in joint.items():
      p = count / len(seen)
      q = first[v] * second[g] / len(seen) ** 2
      information += share * p * math.log(p / q)
    for count in second.values():
      entropy -= share * count / len(seen) * math.log(count / len(seen))
  return information / entropy


def test_the_score_is_the_smallest_over_small_sets(axes: Axes):
  rng = np.random.default_rng(3)
  measure = rng.normal(size=12) + axes["rho"]
  target = measure + rng.normal(size=12)
  target[5] = target[2]
  sets = [s for k in range(3) for s in itertools.combinations(axes, k)]
  slow = {s: slow_information(measure, target, [axes[a] for a in s])
          for s in sets}  # fmt: skip
  found = conditional_independence(measure, target, axes)
  assert found.given == min(slow, key=lambda s: slow[s])
  assert found.score == pytest.approx(min(slow.values()), abs=1e-9)
  assert found.unconditional == pytest.approx(slow[()], abs=1e-9)
  one = conditional_independence(measure, target, axes, max_given=1)
  assert one.score == pytest.approx(min(slow[s] for s in sets if len(s) < 2))


def test_information_has_a_closed_form():
  # Of six pairs one disagrees: a symmetric channel with error 1/6.
  found = conditional_independence(
    np.array([0.0, 1, 2, 3]), np.array([0.0, 1, 3, 2]), {}
  )
  error = 1 / 6
  entropy = -error * math.log2(error) - (1 - error) * math.log2(1 - error)
  assert found.score == pytest.approx(1 - entropy)


def test_a_measure_that_repeats_a_hyper_parameter_scores_nothing(axes: Axes):
  target = axes["rho"] + np.random.default_rng(0).normal(size=12) / 5
  found = conditional_independence(axes["rho"], target, axes)
  assert found.score == pytest.approx(0.0, abs=1e-12)
  assert "rho" in found.given
  assert found.unconditional > 0.3


def test_equal_targets_are_refused():
  with pytest.raises(ValueError, match="at least two different values"):
    conditional_independence(np.arange(4.0), np.zeros(4), {})


def test_a_permuted_measure_scores_near_nothing():
  x = np.arange(40.0)
  assert permuted_score(x, x, {}, permutations=20) < 0.05
