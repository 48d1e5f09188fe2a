"""The folders that the scripts of docs/noisy_cifar10 read and write."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetsam.experiment.run import check_folder
from forgetsam.experiment.tables import csv_text


def read_arguments(program: str, about: str | None, *names: str) -> list[str]:
  """Positional arguments; the last is DOCS, a folder, made if need be."""
  parser = argparse.ArgumentParser(
    prog=f"python -m scripts.{program}",
    description=about,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  for name in (*names, "docs"):
    parser.add_argument(name)
  values = list(vars(parser.parse_args()).values())
  check_folder(Path(values[-1]), "DOCS")
  return values


def write_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
  """Writes a CSV file with the columns of all runs."""
  columns = list(dict.fromkeys(key for run in runs for key in run))
  every = [[run.get(column) for column in columns] for run in runs]
  path.write_text(csv_text(columns, every))
