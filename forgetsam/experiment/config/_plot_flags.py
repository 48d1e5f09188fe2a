"""The flags of `--job=plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from forgetsam.experiment.config._errors import (
  ConfigError,
  path_of_flag,
  refusal,
)


class PlotFlags(NamedTuple):
  """The runs and metrics to draw.

  Attributes:
    runs: folders of runs, folders that hold such, or patterns of either.
    metrics: names to draw, such as "validation/accuracy"; empty chooses.
    output: the folder for the picture; None is that of the runs.
  """

  runs: tuple[str, ...]
  metrics: tuple[str, ...]
  output: Path | None


def define_plot_flags(values: flags.FlagValues) -> None:
  """Adds the flags that only this job has."""
  about = "Metrics that --job=plot draws, such as validation/accuracy"
  flags.DEFINE_list("metrics", [], about, flag_values=values)
  about = "Folder for its picture, where that is not the runs'"
  flags.DEFINE_string("output", None, about, flag_values=values)


def read_plot_flags(
  values: flags.FlagValues, overrides: Sequence[str]
) -> PlotFlags | None:
  """Reads the flags; None where another job runs."""
  if values.job != "plot":
    for name in ("metrics", "output"):
      if values[name].present:
        value = values[name].value
        raise ConfigError(refusal(f"--{name}", value, "with --job=plot only"))
    return None
  if given := values.config or next(iter(overrides), None):
    text = "without --job=plot, which reads the configurations of its runs"
    raise ConfigError(refusal("--config", given, text))
  # A comma may stand in a folder's name.
  runs = values.workdir
  one = Path(runs).exists()
  return PlotFlags(
    runs=(runs,) if one else tuple(filter(None, runs.split(","))),
    metrics=tuple(values.metrics),
    output=values.output and path_of_flag("--output", values.output),
  )
