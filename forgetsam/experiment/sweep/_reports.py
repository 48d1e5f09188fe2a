"""A sweep's tables, picture and choices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetsam.experiment.run import read_json, write_json
from forgetsam.experiment.sweep._choice import choose
from forgetsam.experiment.sweep._comparison import (
  NOTE,
  compare,
  comparison_csv,
  comparison_markdown,
  draw_comparison,
  mean_of,
  show_mean,
  show_runs,
)
from forgetsam.experiment.sweep._plan import Trial
from forgetsam.experiment.sweep._records import Record, scored_by
from forgetsam.experiment.sweep._statistics import Mean
from forgetsam.experiment.tables import csv_text, markdown_table

BEST = "best.json"
_SCORES = {
  "accuracy": "accuracy",
  "loss": "loss (nats)",
  "ece": "calibration error",
  "worst_group_accuracy": "accuracy of the worst group",
}
_PANELS = 2  # of the picture

Finished = Sequence[tuple[Trial, Sequence[Record]]]


def report_comparison(workdir: Path, finished: Finished, seeds: range) -> None:
  """Compares variants on the test split: Markdown, CSV and a picture.

  Args:
    workdir: where `comparison.md`, `.csv`, `.png` and `runs.csv` go.
    finished: each variant's trial, and its records in the order of seeds.
    seeds: of the runs.
  """
  records = {trial.variant: several for trial, several in finished}
  titles = _titles(records)
  tables = {metric: compare(records, metric) for metric in titles}
  text = "\n".join(
    comparison_markdown(titles[metric], rows) for metric, rows in tables.items()
  )
  used = [f"- {t.variant}: {t.label}\n" for t, _ in finished if t.label]
  settings = "\nSettings:\n\n" + "".join(used) if used else ""
  text += f"{settings}\nSeeds {seeds.start} to {seeds.stop - 1}. {NOTE}\n"
  (workdir / "comparison.md").write_text(text)
  (workdir / "comparison.csv").write_text(comparison_csv(tables))
  (workdir / "runs.csv").write_text(_runs_csv(finished, seeds))
  print(f"\n{text}")
  panels = {titles[metric]: tables[metric] for metric in [*tables][:_PANELS]}
  draw_comparison(workdir / "comparison.png", panels)
  print(f"Files: {workdir}/comparison.md, .csv, .png; runs.csv")


def _titles(records: Mapping[str, Sequence[Record]]) -> dict[str, str]:
  """Titles of the scores of tested sets that all finished runs have."""
  several = [r for one in records.values() for r in one if r.metrics]
  names = [
    name
    for name in dict.fromkeys(name for r in several for name in r.metrics)
    if all(name in r.metrics for r in several)
    and not name.startswith(("train/", "validation/"))
  ] or ["test/accuracy", "test/loss"]
  if scored_by(several) == "loss":
    return {
      name: name.replace("/", " ").replace("_", " ")
      for name in names
      if name.startswith("test/") and not name.endswith("/count")
    }
  sets = dict.fromkeys(name.rpartition("/")[0] for name in names)
  return {
    f"{tested}/{score}": f"{tested.replace('best/test', 'best test')} {title}"
    for tested in sets
    for score, title in _SCORES.items()
    if f"{tested}/{score}" in names
  }


def report_tuning(workdir: Path, finished: Finished, seeds: range) -> None:
  """Chooses a setting for each variant, on the validation split.

  Args:
    workdir: where `best.json` goes, which keeps the choices for other variants
      of earlier commands, and `tuning/VARIANT.md` and `.csv`.
    finished: the trials, and their records in the order of seeds.
    seeds: the runs' seeds.
  """
  (workdir / "tuning").mkdir(exist_ok=True)
  best = read_json(workdir / BEST) or {}
  for variant in dict.fromkeys(trial.variant for trial, _ in finished):
    mine = [item for item in finished if item[0].variant == variant]
    metric = scored_by(record for _, several in mine for record in several)
    scores = [
      mean_of([record.value(f"validation/{metric}") for record in several])
      for _, several in mine
    ]
    ranks = scores if metric == "accuracy" else [*map(_negative, scores)]
    chosen = choose([trial.values for trial, _ in mine], ranks)
    text = f"{variant}\n\n" + _tuning_markdown(mine, chosen, metric)
    (workdir / "tuning" / f"{variant}.md").write_text(text)
    (workdir / "tuning" / f"{variant}.csv").write_text(_runs_csv(mine, seeds))
    print(f"\n{text}")
    best.pop(variant, None)
    if chosen is None:
      print(f"Every setting of {variant} diverged: there is none to choose.")
      continue
    score = scores[chosen]
    assert score is not None  # the choice rules out what diverged
    best[variant] = {
      "overrides": mine[chosen][0].values,
      f"validation/{metric}": score.mean,
      "standard_error": score.standard_error,
      "settings": len(mine),
      "seeds": list(seeds),
    }
  write_json(workdir / BEST, best)
  print(
    "Chosen: the weakest setting within one standard error of the best, on "
    f"validation.\nFiles: {workdir / BEST}, to pass on as --settings; "
    f"{workdir}/tuning"
  )


def _negative(score: Mean | None) -> Mean | None:
  return None if score is None else score._replace(mean=-score.mean)


def _tuning_markdown(mine: Finished, chosen: int | None, metric: str) -> str:
  names = ["accuracy", "loss"] if metric == "accuracy" else ["loss"]
  rows = []
  for i, (trial, several) in enumerate(mine):
    values = [
      [record.value(f"validation/{name}") for record in several]
      for name in names
    ]
    rows.append(
      [
        trial.label or "as configured",
        *(show_mean(mean_of(each)) for each in values),
        show_runs(len(several), values[0].count(None)),
        "chosen" if i == chosen else "",
      ]
    )
  header = ["setting", *(f"validation {n}" for n in names), "runs", ""]
  return markdown_table(header, rows)


def _runs_csv(finished: Finished, seeds: range) -> str:
  """Every run, also those that diverged."""
  names = dict.fromkeys(
    name for _, several in finished for r in several for name in r.metrics
  )
  header = ["variant", "setting", "seed", "diverged_at", "seconds", *names]
  rows = [
    [
      trial.variant,
      trial.label,
      seed,
      record.diverged_at,
      round(record.seconds, 3),
      *(record.metrics.get(name) for name in names),
    ]
    for trial, several in finished
    for seed, record in zip(seeds, several, strict=True)
  ]
  return csv_text(header, rows)


def read_settings(values: Mapping[str, Any], variant: str) -> dict[str, str]:
  """A variant's chosen overrides, as the command line would set them."""
  return {
    key: str(tuple(value) if isinstance(value, list) else value)
    for key, value in values[variant]["overrides"].items()
  }
