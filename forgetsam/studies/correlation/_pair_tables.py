"""Pictures of tables of rank correlations; they need matplotlib."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetsam.studies.correlation._associations import Interval
from forgetsam.studies.correlation._figures import new_figure
from forgetsam.studies.correlation._names import label

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def plot_forgetting_and_sharpness(
  forgetting: Sequence[str],
  sharpness: Sequence[str],
  tables: Mapping[str, Sequence[Interval]],
) -> "Figure":
  """Tables of rank correlations, dark where they are strong.

  Args:
    forgetting: the lines.
    sharpness: the columns.
    tables: title -> intervals, line after line; those that cover zero are put
      in brackets.

  Returns:
    The figure.
  """
  height = 1.9 + 0.3 * len(forgetting)
  figure = new_figure((2.6 + 3.3 * len(tables), height))
  panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
  shape = len(forgetting), len(sharpness)
  image: Any = None
  for panel, (title, intervals) in zip(panels, tables.items(), strict=True):
    values = np.array([t.value for t in intervals]).reshape(shape)
    # Strength as tone and the sign in the number: it reads in grey.
    image = panel.imshow(
      np.abs(values), cmap="Greys", vmin=0, vmax=1, aspect="auto"
    )
    for index, interval in enumerate(intervals):
      i, j = divmod(index, len(sharpness))
      text = f"{interval.value:+.2f}".replace("0.", ".")
      if interval.low <= 0 <= interval.high:
        text = f"({text})"
      dark = abs(interval.value) > 0.55
      panel.text(
        j,
        i,
        text,
        ha="center",
        va="center",
        fontsize=7,
        color="white" if dark else "black",
      )
    panel.set_title(title, fontsize=9)
    panel.set_xticks(
      range(len(sharpness)),
      [label(s) for s in sharpness],
      rotation=40,
      ha="right",
      fontsize=7,
    )
    panel.set_yticks(
      range(len(forgetting)), [label(f) for f in forgetting], fontsize=8
    )
  figure.colorbar(image, ax=list(panels), label="|Kendall's τ|", shrink=0.8)
  figure.set_layout_engine("constrained")
  return figure
