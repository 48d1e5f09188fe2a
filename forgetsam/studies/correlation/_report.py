"""The report: what the table says, arm by arm, as Markdown and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetsam.experiment.tables import interval_text, markdown_table
from forgetsam.studies.correlation._arm_tables import ArmTables, arm_tables
from forgetsam.studies.correlation._associations import Interval
from forgetsam.studies.correlation._figures import (
  plot_along_training,
  plot_associations,
  plot_forgetting_and_sharpness,
  plot_networks,
  save_figures,
)
from forgetsam.studies.correlation._names import (
  FORGETTING,
  GIVEN,
  MEASURES,
  SHARPNESS,
  SHORT,
  TARGETS,
  label,
)
from forgetsam.studies.correlation._networks import (
  Networks,
  choose,
  collect_networks,
  write_networks,
)
from forgetsam.studies.correlation._plan import Arm

if TYPE_CHECKING:
  from matplotlib.figure import Figure

TABLE = "networks.parquet"


def write_study(
  arms: Sequence[Arm], workdir: Path, *, resamples: int = 1000
) -> None:
  """Writes table, report and plots of the networks that have records.

  Args:
    arms: as `plan_study` returns them.
    workdir: the study's folder.
    resamples: of each bootstrap.
  """
  networks = collect_networks(arms, workdir)
  write_networks(workdir / TABLE, networks)
  write_report(networks, workdir, resamples=resamples)


def write_report(
  networks: Networks, folder: Path, *, resamples: int = 1000
) -> None:
  """Writes `report.md`, and plots `ARM_*.png`, beside the table.

  Args:
    networks: the table.
    folder: where to.
    resamples: of each bootstrap.
  """
  texts = []
  for arm in dict.fromkeys(networks["arm"].tolist()):
    rows = choose(networks, networks["arm"] == arm)
    text, figures = report_arm(rows, resamples=resamples)
    save_figures(folder, {f"{arm}_{name}": f for name, f in figures.items()})
    shown = [f"![{name}]({arm}_{name}.png)\n" for name in figures]
    texts += [f"# Arm: {arm}\n", text, *shown]
  path = folder / "report.md"
  path.write_text("\n".join(texts), encoding="utf-8")
  print(f"The report is in {path}.")


def report_arm(
  networks: Networks, *, resamples: int = 1000
) -> "tuple[str, dict[str, Figure]]":
  """One arm's tables and plots.

  Args:
    networks: the arm's rows.
    resamples: of each bootstrap.

  Returns:
    Markdown, and figures by name.
  """
  finished = choose(networks, ~networks["diverged"].astype(bool))
  tables = arm_tables(finished, resamples=resamples)
  text = [
    _header(networks),
    _methods(finished),
    _accuracy_table(tables),
    _targets_table(tables),
    _groups_table("Within a method: τ with test accuracy", tables.families),
    _groups_table(
      "Within a third of the training losses: τ with test accuracy",
      tables.thirds,
    ),
    _along_table(tables),
  ]
  return "\n".join(text), _figures(finished, tables)


def _figures(networks: Networks, tables: ArmTables) -> "dict[str, Figure]":
  shown = (
    *("obf_probe_unconditional_train", "obf_probe_conditional_train"),
    *("sam_probe_unconditional_train", "own_unconditional_train"),
    *("lambda_max", "train_loss"),
  )
  single = tables.targets["test_accuracy"]
  return {
    "networks": plot_networks(networks, shown, "test_accuracy"),
    "correlations": plot_associations(
      MEASURES,
      {
        "alone": single.tau,
        "given training loss and radius": single.given_both,
        "given these and the information before": single.given_all,
      },
      "Kendall's τ with test accuracy",
    ),
    "sharpness": plot_forgetting_and_sharpness(
      FORGETTING,
      SHARPNESS,
      {
        "alone": tables.sharpness,
        "given training loss and radius": tables.sharpness_given_both,
      },
    ),
    "along_training": plot_along_training(
      tables.epochs, tables.along, "Kendall's τ with final test accuracy"
    ),
  }


def _header(networks: Networks) -> str:
  diverged = int(networks["diverged"].sum())
  settings = len(np.unique(networks["setting"]))
  hours = networks["seconds"].sum() / 3600
  return (
    f"{len(networks['arm'])} networks of {settings} settings, {diverged} "
    f"diverged and left out below; {hours:.2f} hours of training and "
    "measuring.\n"
  )


def _methods(networks: Networks) -> str:
  rows = []
  for method in dict.fromkeys(networks["method"].tolist()):
    one = choose(networks, networks["method"] == method)
    spans = (
      f"{np.min(one[name]):.3f} to {np.max(one[name]):.3f}"
      for name in ("train_loss", "test_accuracy", "test_loss")
    )
    rows.append([method, str(len(one["seed"])), *spans])
  names = ["method", "networks", "training loss", "test accuracy", "test loss"]
  return markdown_table(names, rows)


def _accuracy_table(tables: ArmTables) -> str:
  single = tables.targets["test_accuracy"]
  rows = [
    [
      label(name),
      number(single.tau[i]),
      f"{single.spearman[i].value:+.2f}",
      number(single.given_loss[i]),
      number(single.given_radius[i]),
      number(single.given_both[i]),
      p_value(single.holm[i]),
      number(single.given_all[i]),
      f"{single.granulated[i]['Psi']:+.2f}",
      f"{single.independence[i].score:.3f}",
    ]
    for i, name in enumerate(MEASURES)
  ]
  names = ["measure", "τ", "Spearman", "τ given training loss"]
  names += ["τ given radius", "τ given both", "Holm p"]
  names += ["τ given both and information before", "Ψ", "K"]
  between = ""
  if not np.isnan(tables.ceiling):
    between = (
      "Two seeds of the same settings rank them by test accuracy with "
      f"τ = {tables.ceiling:+.2f}: what knows all but the seed's chance "
      "reaches about that, or a little more. "
    )
  return (
    "## Test accuracy\n\n"
    "Kendall's τ-b with 95 % intervals from resampling whole settings (the "
    "seeds of one setting stay together). Ψ is the granulated coefficient over "
    "rho, gamma, m, learning rate and weight decay within a method; K the "
    "conditional-independence score, of which a permuted measure has "
    f"{tables.chance:.3f} on average. Holm's p belongs to “τ given both” and "
    f"counts the {len(MEASURES) - len(GIVEN)} measures of this table as one "
    f"family. {between}\n\n" + markdown_table(names, rows)
  )


def _targets_table(tables: ArmTables) -> str:
  others = [t for t in TARGETS if t != "test_accuracy"]
  shown = [tables.targets[target] for target in others]
  columns = [intervals for t in shown for intervals in (t.tau, t.given_both)]
  rows = [
    [label(name), *(number(column[i]) for column in columns)]
    for i, name in enumerate(MEASURES)
  ]
  names = ["measure"]
  for target in others:
    names += [f"τ, {label(target)}", "given both"]
  return "## Test loss and accuracy gap\n\n" + markdown_table(names, rows)


def _groups_table(title: str, groups: dict[str, list[Interval]]) -> str:
  rows = [
    [label(name), *(number(values[i]) for values in groups.values())]
    for i, name in enumerate(SHORT)
  ]
  return f"## {title}\n\n" + markdown_table(["measure", *groups], rows)


def _along_table(tables: ArmTables) -> str:
  rows = [
    [label(name), *map(number, intervals)]
    for name, intervals in tables.along.items()
  ]
  names = ["measured at epoch", *map(str, tables.epochs)]
  title = "## Along training: τ with the final test accuracy\n\n"
  return title + markdown_table(names, rows)


def number(interval: Interval) -> str:
  if np.isnan(interval.value):
    return "n/a"
  low = None if np.isnan(interval.low) else interval.low
  return interval_text(interval.value, low, interval.high, digits=2)


def p_value(p: float) -> str:
  if np.isnan(p):
    return "n/a"
  return "< .001" if p < 0.001 else f"{p:.3f}"
