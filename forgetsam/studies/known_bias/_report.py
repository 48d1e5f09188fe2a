"""From finished runs to tables: means, paired differences, curves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from forgetsam.experiment.sweep import (
  Difference,
  Mean,
  mean_over_runs,
  paired_difference,
)

Run = Mapping[str, Any]
METRICS = {
  "validation/accuracy": "biased validation accuracy",
  "test/accuracy": "biased test accuracy",
  "test_agree/accuracy": "accuracy, patch agrees",
  "test_random/accuracy": "accuracy, patch random",
  "test_conflict/accuracy": "accuracy, patch conflicts",
  "influence/patch": "influence of the patch (logits)",
  "influence/content": "influence of the content (logits)",
  "influence/ratio": "patch / content influence",
}
EFFECTS = (
  "forgotten_patch",
  "forgotten_content",
  "forgotten_balance",
  "learned_patch",
  "learned_content",
  "learned_balance",
)


# Where the patch alone is right 19 times out of 20, less is no network that has
# learned the task.
_LEAST_ACCURACY = 0.9


class Cell(NamedTuple):
  """One metric of one condition.

  Attributes:
    mean: over seeds; None where a run diverged.
    minus_plain: paired over seeds; None without plain runs of the same seeds,
      two at the least.
  """

  mean: Mean | None
  minus_plain: Difference | None


Key = tuple[str, int, float, float]


def group(runs: Iterable[Run]) -> dict[Key, dict[int, Run]]:
  """Runs by (method, m, weight decay, rho), then by seed."""
  groups: dict[Key, dict[int, Run]] = {}
  for run in runs:
    groups.setdefault(_key(run), {})[run["seed"]] = run
  return groups


def cell(
  runs: Mapping[int, Run], metric: str, plain: Mapping[int, Run] | None
) -> Cell:
  """The mean of a metric, and its difference to plain training.

  Args:
    runs: of one condition, by seed.
    metric: a key of `METRICS`, or another key of all the runs.
    plain: plain training's runs, by seed; None for no difference.
  """
  if any(run.get("diverged") for run in runs.values()):
    return Cell(None, None)
  values = [runs[seed][metric] for seed in runs]
  difference = None
  if plain is not None and len(runs) > 1 and set(runs) <= set(plain):
    baseline = [plain[seed][metric] for seed in runs]
    difference = paired_difference(values, baseline)
  return Cell(mean_over_runs(values), difference)


def collapsed(runs: Mapping[int, Run]) -> bool:
  """Whether a run diverged, or validation accuracy is below 0.9 on average."""
  mean = cell(runs, "validation/accuracy", None).mean
  return mean is None or mean.mean < _LEAST_ACCURACY


def table(
  groups: Mapping[Key, Mapping[int, Run]],
  metrics: Sequence[str],
  plain: Key,
) -> list[list[Any]]:
  """Rows for CSV: a condition and a metric each, None where there is nothing.

  Args:
    groups: as `group` gives.
    metrics: what to report.
    plain: the key of plain training's runs.

  Returns:
    A header, then method, m, weight decay, rho, number of runs, metric, mean,
    standard error, and the difference to plain with its interval.
  """
  header = ["method", "m", "weight_decay", "rho", "runs", "metric", "mean"]
  header += ["standard_error", "minus_plain", "low", "high"]
  rows: list[list[Any]] = [header]
  for key, runs in groups.items():
    for metric in metrics:
      found = cell(runs, metric, None if key == plain else groups[plain])
      rows.append(
        [
          *(*key, len(runs), metric),
          *(found.mean or (None, None)),
          *(found.minus_plain or (None, None, None)),
        ]
      )
  return rows


def markdown_cell(found: Cell, *, percent: bool) -> str:
  """`62.9 (+1.2 [0.9, 1.5])`: the mean and its difference to plain."""
  if found.mean is None:
    return "diverged"
  scale, digits = (100, 1) if percent else (1, 3)
  text = f"{scale * found.mean.mean:.{digits}f}"
  if found.minus_plain is None:
    return text
  mean, low, high = (scale * (value or 0.0) for value in found.minus_plain)
  return f"{text} ({mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}])"


def average_effects(rows: Iterable[Run]) -> list[dict[str, Any]]:
  """One-step effects averaged over networks, balances included.

  Args:
    rows: with the condition, seed, epoch and effects of each network.

  Returns:
    For each condition and epoch, the mean and the standard error of each of
    `EFFECTS`, as `NAME` and `NAME_se`. Balances are patch minus content.
  """
  groups: dict[tuple[Any, ...], list[Run]] = {}
  for row in rows:
    full = dict(row)
    for kind in ("forgotten", "learned"):
      full[f"{kind}_balance"] = row[f"{kind}_patch"] - row[f"{kind}_content"]
    groups.setdefault((*_key(row), row["epoch"]), []).append(full)
  averages = []
  names = ("method", "micro_batch_size", "weight_decay", "rho", "epoch")
  for key, several in groups.items():
    result: dict[str, Any] = dict(zip(names, key, strict=True))
    for effect in EFFECTS:
      mean = mean_over_runs([row[effect] for row in several])
      result |= {effect: mean.mean, f"{effect}_se": mean.standard_error}
    averages.append(result)
  return averages


def _key(run: Run) -> Key:
  return (
    run["method"],
    run["micro_batch_size"],
    run["weight_decay"],
    run["rho"],
  )
