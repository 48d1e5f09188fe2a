"""Compares methods where the bias is known, in five stages.

    python -m forgetsam.studies.known_bias train --workdir=runs/known_bias
    python -m forgetsam.studies.known_bias report runs/known_bias DOCS

1. Plain training over weight decay, seeds 0 to 4: the smallest within one
   standard error of the best on *biased* validation images.
2. Every method over rho at two values of m, seeds 0 to 4, with that decay: the
   largest rho within one standard error of the best on biased validation.
3. Plain training and the chosen settings, 15 fresh seeds.
4. One perturbation, and one step from it, from plainly trained networks.
5. Added after the others: SAM and OBF without weight decay, seeds 0 to 4.

The unbiased splits are scored along the way and choose nothing. Finished runs
are kept in WORKDIR; the same command goes on where it stopped.
"""

import argparse
import sys

from forgetsam.experiment.config import path_of_flag
from forgetsam.experiment.run import check_folder, report_failure
from forgetsam.studies.known_bias._report import write_report
from forgetsam.studies.known_bias._train import run_study


def main() -> int:
  """Parses the command line, then trains or reports; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m forgetsam.studies.known_bias",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest="command", required=True)
  train = commands.add_parser("train", help="also takes --config.key=value")
  train.add_argument("--workdir", required=True)
  report = commands.add_parser("report", help="writes tables and pictures")
  report.add_argument("workdir")
  report.add_argument("docs")
  known, rest = parser.parse_known_args()
  unknown = [a for a in rest if not a.startswith("--config.")]
  if unknown or (rest and known.command == "report"):
    sys.exit(f"{(unknown or rest)[0]} is unknown: {parser.format_usage()}")
  workdir = None
  try:
    workdir = path_of_flag("--workdir", known.workdir)
    if known.command == "train":
      run_study(workdir, rest)
    else:
      docs = path_of_flag("DOCS", known.docs)
      check_folder(docs, "DOCS")
      write_report(workdir, docs)
  except (Exception, KeyboardInterrupt) as error:
    return report_failure(error, workdir)
  return 0


if __name__ == "__main__":
  sys.exit(main())
