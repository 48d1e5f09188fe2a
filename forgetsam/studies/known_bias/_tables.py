"""From finished runs to tables: means, paired differences, ranks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scipy.stats import kendalltau

from forgetsam.experiment.sweep import (
  Difference,
  Mean,
  mean_over_runs,
  paired_difference,
)
from forgetsam.experiment.tables import interval_text, markdown_table
from forgetsam.studies.known_bias._scoring import SPLITS

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
_SHOWN = (
  "test/accuracy",
  *(f"{split}/accuracy" for split in SPLITS),
  "influence/ratio",
)
EFFECTS = tuple(
  f"{kind}_{changed}"
  for kind in ("forgotten", "learned")
  for changed in ("patch", "content", "balance")
)
CONDITION = ("method", "micro_batch_size", "weight_decay", "rho")
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


Key = tuple[str, int, float, float]  # the values of `CONDITION`
Groups = Mapping[Key, Mapping[int, Run]]


def group_runs(runs: Iterable[Run]) -> dict[Key, dict[int, Run]]:
  """Runs by (method, m, weight decay, rho), then by seed."""
  groups: dict[Key, dict[int, Run]] = {}
  for run in runs:
    groups.setdefault(key_of(run), {})[run["seed"]] = run
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


def condition_rows(groups: Groups, plain: Key) -> list[list[Any]]:
  """Rows for CSV: a condition and a metric each, None where there is nothing.

  Args:
    groups: as `group_runs` gives.
    plain: the key of plain training's runs.

  Returns:
    A header, then method, m, weight decay, rho, number of runs, metric, mean,
    standard error, and the difference to plain with its interval.
  """
  header = ["method", "m", "weight_decay", "rho", "runs", "metric", "mean"]
  header += ["standard_error", "minus_plain", "low", "high"]
  rows: list[list[Any]] = [header]
  for key, runs in groups.items():
    for metric in METRICS:
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
  return f"{text} ({interval_text(mean, low, high, digits)})"


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
    groups.setdefault((*key_of(row), row["epoch"]), []).append(full)
  averages = []
  for key, several in groups.items():
    result: dict[str, Any] = dict(zip((*CONDITION, "epoch"), key, strict=True))
    for effect in EFFECTS:
      mean = mean_over_runs([row[effect] for row in several])
      result |= {effect: mean.mean, f"{effect}_se": mean.standard_error}
    averages.append(result)
  return averages


def results_table(groups: Groups) -> str:
  """The results in Markdown; the first condition is plain training."""
  header = ["method", "m", "rho", *(METRICS[name] for name in _SHOWN)]
  plain, rows = next(iter(groups.values())), []
  for key, runs in groups.items():
    baseline = None if runs is plain else plain
    cells = [
      markdown_cell(cell(runs, n, baseline), percent=n.endswith("accuracy"))
      for n in _SHOWN
    ]
    rows.append([key[0], str(key[1]), f"{key[3]:g}", *cells])
  return markdown_table(header, rows)


def rank_table(effects: Sequence[Run], curve: Groups) -> str:
  """Kendall's tau between one-step balances and the ratio after training."""
  header = ["epoch", "m", "settings", "tau, forgotten", "tau, learned"]
  rows = []
  for epoch in sorted({effect["epoch"] for effect in effects}):
    for m in sorted({effect["micro_batch_size"] for effect in effects}):
      found = [
        effect
        for effect in shown_effects(effects, epoch, m)
        if not collapsed(curve[key_of(effect)])
      ]
      trained = (curve[key_of(effect)] for effect in found)
      means = [cell(runs, "influence/ratio", None).mean for runs in trained]
      ratios = [mean.mean for mean in means if mean]
      taus = [
        f"{kendalltau([e[name] for e in found], ratios)[0]:+.2f}"
        for name in ("forgotten_balance", "learned_balance")
      ]
      rows.append([str(epoch), str(m), str(len(found)), *taus])
  return markdown_table(header, rows)


def shown_effects(effects: Sequence[Run], epoch: int, m: int) -> list[Run]:
  """Those of an epoch and of micro-batches of m, beside plain training's."""
  return [
    effect
    for effect in effects
    if effect["epoch"] == epoch
    and (effect["method"] == "plain" or effect["micro_batch_size"] == m)
  ]


def key_of(run: Run) -> Key:
  """The condition of a run or an effect."""
  method, m, weight_decay, rho = (run[name] for name in CONDITION)
  return method, m, weight_decay, rho
