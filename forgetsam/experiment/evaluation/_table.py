"""The table of many sets' scores."""

from collections.abc import Mapping

from forgetsam.experiment.tables import markdown_table

_HEADER = ("set", "top-1 (%)", "top-5 (%)", "loss", "ECE", "n")


def format_table(results: Mapping[str, Mapping[str, float]]) -> str:
  """Lays results out as a Markdown table, one set a row.

  Args:
    results: each set's scores as `evaluate` returns them, by name. Where they
      are of other metrics, the columns are the first set's scores.

  Returns:
    Lines of equal length without a last newline. Accuracies are in percent;
    the loss is in nats and the calibration error a fraction.

  Raises:
    ValueError: a result lacks one of `evaluate`'s values.

  Example:
    >>> result = {
    ...   "accuracy": 0.7613, "top5_accuracy": 0.9286, "loss": 0.9614,
    ...   "ece": 0.0373, "count": 50000,
    ... }
    >>> print(format_table({"imagenet2012": result}))
    | set          | top-1 (%) | top-5 (%) |   loss |    ECE |     n |
    | ------------ | --------: | --------: | -----: | -----: | ----: |
    | imagenet2012 |     76.13 |     92.86 | 0.9614 | 0.0373 | 50000 |
  """
  first = next(iter(results.values()), {})
  if "count" in first and "ece" not in first:
    header = ("set", *first)
    rows = [
      (name, *(f"{result[column]:.6g}" for column in first))
      for name, result in results.items()
    ]
    return markdown_table(header, rows, aligned=True).rstrip("\n")
  rows = [_row(name, result) for name, result in results.items()]
  return markdown_table(_HEADER, rows, aligned=True).rstrip("\n")


def _row(name: str, result: Mapping[str, float]) -> tuple[str, ...]:
  needed = ("accuracy", "top5_accuracy", "loss", "ece", "count")
  missing = [key for key in needed if key not in result]
  if missing:
    raise ValueError(
      f"results[{name!r}] lacks {', '.join(missing)}; it must be a result of"
      " `evaluate`"
    )
  return (
    name,
    f"{100 * result['accuracy']:.2f}",
    f"{100 * result['top5_accuracy']:.2f}",
    f"{result['loss']:.4f}",
    f"{result['ece']:.4f}",
    f"{result['count']:.0f}",
  )
