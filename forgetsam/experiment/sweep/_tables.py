"""Results as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from forgetsam.experiment.sweep._comparison import Row
from forgetsam.experiment.sweep._statistics import Difference, Mean

NOTE = (
  "Means over runs with their standard errors; differences are paired over "
  "seeds, with 95 % intervals from Student's t, each for itself: with many "
  "comparisons some intervals miss zero by chance. A variant with a diverged "
  "run has no mean."
)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A Markdown table: text to the left, everything else to the right."""
  lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """A CSV table; what is None stays empty."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(header)
  writer.writerows(rows)
  return text.getvalue()


def comparison_markdown(title: str, rows: Sequence[Row]) -> str:
  """One metric's table."""
  baselines = list(rows[0].against)
  header = ["variant", title, *(f"minus {b}" for b in baselines), "runs"]
  return markdown(
    header,
    [
      [
        row.variant,
        show_mean(row.mean),
        *(
          "" if b == row.variant else _show_difference(row.against[b])
          for b in baselines
        ),
        show_runs(len(row.values), row.diverged),
      ]
      for row in rows
    ],
  )


def comparison_csv(tables: dict[str, Sequence[Row]]) -> str:
  """All metrics in one table, a row for each metric and variant."""
  (first, *_) = tables.values()
  baselines = list(first[0].against)
  header = ["metric", "variant", "runs", "diverged", "mean", "standard_error"]
  for b in baselines:
    header += [f"minus_{b}", f"minus_{b}_low", f"minus_{b}_high"]
  lines = []
  for metric, rows in tables.items():
    for row in rows:
      line = [metric, row.variant, len(row.values), row.diverged]
      line += row.mean or (None, None)
      for b in baselines:
        line += row.against[b] or (None, None, None)
      lines.append(line)
  return csv_text(header, lines)


def show_mean(mean: Mean | None) -> str:
  """`0.8132 ± 0.0013`."""
  if mean is None:
    return "diverged"
  error = mean.standard_error
  return f"{mean.mean:.4f}" + ("" if error is None else f" ± {error:.4f}")


def _show_difference(difference: Difference | None) -> str:
  """`+0.0120 [+0.0040, +0.0200]`."""
  if difference is None:
    return "diverged"
  text = f"{difference.mean:+.4f}"
  if difference.low is None:
    return text
  return f"{text} [{difference.low:+.4f}, {difference.high:+.4f}]"


def show_runs(count: int, diverged: int) -> str:
  """`5`, or `5, of which 2 diverged`."""
  return f"{count}, of which {diverged} diverged" if diverged else str(count)
