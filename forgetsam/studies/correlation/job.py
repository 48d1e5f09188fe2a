"""Whether forgetting predicts generalisation, over many small networks."""

from collections.abc import Sequence
from pathlib import Path

import jax

from forgetsam.studies.correlation import plan_study, run_study, write_study


def study(
  file: str, overrides: Sequence[str], arms: Sequence[str], workdir: Path
) -> None:
  """Runs what is not finished yet, and reports on the arms asked for.

  Args:
    file: a configurations' file that defines `STUDY`.
    overrides: `--config.key=value` arguments, for every network.
    arms: some of the file's arms; empty for all of them.
    workdir: the study's folder: records, table, report and plots.

  Raises:
    ConfigError: an arm, key or value is refused, or the folder holds records of
      other configurations.
  """
  planned = plan_study(
    file, overrides, arms, num_devices=jax.local_device_count()
  )
  run_study(planned, workdir)
  write_study(planned, workdir)
