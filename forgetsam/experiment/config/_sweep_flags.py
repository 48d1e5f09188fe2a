"""The flags of `--job=sweep`."""

from pathlib import Path
from typing import NamedTuple

from absl import flags

from forgetsam.experiment.config._errors import (
  ConfigError,
  path_of_flag,
  refusal,
)


class SweepFlags(NamedTuple):
  """The runs of a sweep.

  Attributes:
    variants: variants of the configurations' file.
    seeds: the number of seeds.
    first_seed: the first of them; the configuration's seed, if None.
    grid: keys and values to choose from, or None.
    tune: whether to stay away from the test split.
    settings: a `best.json` of an earlier sweep, or None.
    keep_runs: whether each run has a folder, as the main job writes it.
  """

  variants: tuple[str, ...]
  seeds: int
  first_seed: int
  grid: str | None
  tune: bool
  settings: Path | None
  keep_runs: bool = False


def define_sweep_flags(values: flags.FlagValues) -> None:
  """Adds the sweep's flags."""
  about = "Variants that --job=sweep compares, such as plain,sam"
  flags.DEFINE_list("variants", [], about, flag_values=values)
  for name, default, low, about in [
    ("seeds", 5, 1, "Seeds of each variant"),
    ("first_seed", 0, 0, "The first of them"),
  ]:
    flags.DEFINE_integer(
      name, default, about, lower_bound=low, flag_values=values
    )
  for name, about in [
    ("grid", "Values to choose from: KEY=A,B;KEY=C,D"),
    ("settings", "best.json of an earlier sweep, to train with"),
  ]:
    flags.DEFINE_string(name, None, about, flag_values=values)
  about = "Leave the test split alone, as --grid does"
  flags.DEFINE_bool("tune", False, about, flag_values=values)
  about = "Keep the folder of each compared run, and test its best checkpoint"
  flags.DEFINE_bool("keep_runs", False, about, flag_values=values)


def read_sweep_flags(values: flags.FlagValues) -> SweepFlags | None:
  """Reads the sweep's flags; None where another job runs."""
  if values.job != "sweep":
    for name in SweepFlags._fields:
      if values[name].present:
        raise ConfigError(
          refusal(f"--{name}", values[name].value, "with --job=sweep only")
        )
    return None
  variants = tuple(values.variants)
  if not variants or len(set(variants)) < len(variants) or not all(variants):
    text = "variants of the file, each once, such as --variants=plain,sam,obf"
    raise ConfigError(refusal("--variants", ",".join(variants), text))
  tune = values.tune or values.grid is not None
  if tune and values.settings is not None:
    text = "none beside --grid or --tune: what was chosen is for reporting"
    raise ConfigError(refusal("--settings", values.settings, text))
  if tune and values.keep_runs:
    text = "no --grid or --tune beside it: the main job tests what it trains"
    raise ConfigError(refusal("--keep_runs", True, text))
  return SweepFlags(
    variants=variants,
    seeds=values.seeds,
    first_seed=values.first_seed,
    grid=values.grid,
    tune=tune,
    settings=path_of_flag("--settings", values.settings)
    if values.settings
    else None,
    keep_runs=values.keep_runs,
  )
